from __future__ import annotations

import csv
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.finished_project import HOTA, write_scores

from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.plan import table_baselines, table_inputs, table_runs
from fdta.names import Run
from fdta.report.tables import write_tables
from fdta.settings import ParamsError


def written(params: Experiment, root: Path) -> str:
    write_tables(params, root, root / "results" / "tables.md")
    return (root / "results" / "tables.md").read_text()


def table(text: str, name: str) -> dict[str, dict[str, str]]:
    """Label -> column -> cell of one table of the page; the words around it under the label ""."""
    section = text.partition(f"## {name} (")[2].partition("\n## ")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    rows = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}
    return rows | {"": {"": "\n".join(line for line in section.splitlines() if not line.startswith("|"))}}


def test_paper_and_measured_stand_side_by_side(params: Experiment, root: Path):
    rows = table(written(params, root), "Table 4")
    base, full = rows["no adapter"], rows["SA + TA + IA"]
    assert (base["HOTA paper"], base["HOTA here"], base["run"]) == ("69.4", "58.0", "`base`")
    assert (full["IDF1 paper"], full["IDF1 here"]) == ("77.2", "**71.0**")
    assert (full["MOTA here"], full["AssA here"], full["DetA here"]) == ("**81.0**", "**56.0**", "**66.0**")
    assert rows["SA"]["run"] == "cited" and rows["SA"]["HOTA here"] == ""


def test_difference_and_its_error(params: Experiment, root: Path):
    rows = table(written(params, root), "Table 4")
    differences = [full - base for full, base in zip(HOTA["full"], HOTA["base"], strict=True)]
    error = statistics.stdev(differences) / math.sqrt(3)
    assert rows["SA + TA + IA"]["Δ HOTA here ± s.e."] == f"{statistics.fmean(differences):+.1f} ± {error:.1f}"
    assert rows["SA + TA + IA"]["Δ HOTA paper"] == "+2.3"
    assert rows["no adapter"]["Δ HOTA paper"] == rows["SA"]["Δ HOTA paper"] == ""
    told = rows[""][""]
    assert "against *no adapter*" in told
    # 3.0 ± 1.0 is beyond two standard errors, 1.3 ± 1.5 is not.
    assert (
        "Beyond 2 s.e. of 3 paired test sequences (noise of training not counted): SA + TA + IA (+3.0)\n" in told + "\n"
    )


def test_rows_that_the_paper_lacks_and_headings(params: Experiment, root: Path):
    rows = table(written(params, root), "Table 1")
    bot_sort = rows["BoT-SORT (arXiv2022)"]
    assert (bot_sort["HOTA paper"], bot_sort["HOTA here"], bot_sort["Δ HOTA paper"]) == ("—", "42.0", "—")
    assert rows["Hybrid-SORT (AAAI2024)"]["AssA paper"] == "—"
    order = list(rows)
    assert order.index("*Tracking-by-Detection*") < order.index("BoT-SORT (arXiv2022)") < order.index("*End-to-End*")
    assert order.index("*with extra data*") < order.index("Ours\N{ASTERISK OPERATOR}")
    assert "MOTIP: measured here by `base`" in rows[""][""]


def test_a_missing_score_is_a_dash_until_it_is_back(params: Experiment, root: Path):
    before = written(params, root)
    path = root / "scores" / "dance" / "ta" / "seed-0" / "test.json"
    content = path.read_text()
    path.unlink()
    without = written(params, root)
    rows = table(without, "Table 4")
    assert rows["TA"]["HOTA here"] == rows["TA"]["Δ HOTA here ± s.e."] == "—"
    assert rows["TA"]["HOTA paper"] == "70.4" and rows["SA + TA + IA"]["HOTA here"] == "**61.0**"
    assert "1 files: `scores/dance/ta/seed-0/test.json`" in without
    path.write_text(content)
    assert written(params, root) == before


def test_nothing_measured_gives_all_tables_with_dashes(params: Experiment, tmp_path: Path):
    text = written(params, tmp_path / "empty")
    assert table(text, "Table 4")["TA"]["HOTA here"] == "—"
    assert table(text, "Table 8")["DETR"]["ms here"] == "—"
    assert {path.stem for path in (tmp_path / "empty" / "results" / "tables").iterdir()} == {
        *params.tables,
        "similarity",
        "depth-cost",
    }


def test_a_broken_file_is_named(params: Experiment, root: Path):
    path = root / "scores" / "dance" / "ta" / "seed-0" / "test.json"
    path.write_text('{"combined": ')
    with pytest.raises(InputError, match=r"ta/seed-0/test\.json: broken JSON"):
        written(params, root)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"ta/seed-0/test\.json: no HOTA"):
        written(params, root)


def test_one_seed_claims_nothing(params: Experiment, root: Path):
    text = written(params, root)
    assert "**Seed noise has not been measured in this run**" in text
    assert "Beyond the seed noise" not in text


def test_seed_noise_is_pooled_over_every_seed_found(params: Experiment, root: Path):
    write_scores(root, "base", (46.0, 58.0, 64.0), seed=1)
    write_scores(root, "full", (54.0, 66.0, 75.0), seed=3)
    text = written(params, root)
    pooled = math.sqrt((statistics.variance([58, 56]) + statistics.variance([61, 65])) / 2)
    threshold = 2 * math.sqrt(2) * pooled
    assert f"s = {pooled:.2f} HOTA" in text and "2 variant(s), 2 degree(s) of freedom" in text
    assert f"{threshold:.1f} HOTA with one seed" in text
    rows = table(text, "Table 4")
    # The rows themselves keep to the seeds of params.yaml, and +3 is within the noise.
    assert rows["no adapter"]["HOTA here"] == "58.0"
    assert f"Beyond the seed noise, {threshold:.1f} HOTA with one seed a row: none" in rows[""][""]


def test_several_seeds_are_averaged(changed_params: Callable[..., Experiment], root: Path):
    params = changed_params(("seeds: [0]", "seeds: [0, 1]"))
    for name in ("base", "full", "ta"):
        write_scores(root, name, tuple(value + 2 for value in HOTA[name]), seed=1)
    rows = table(written(params, root), "Table 4")
    assert rows["no adapter"]["HOTA here"] == "59.0 ± 1.4"
    assert rows["SA + TA + IA"]["Δ HOTA here ± s.e."] == "+3.0 ± 1.0"
    threshold = 2 * math.sqrt(2) * statistics.stdev([0, 2]) / math.sqrt(2)
    assert f"Beyond the seed noise, {threshold:.1f} HOTA with 2 seeds a row: SA + TA + IA (+3.0)" in rows[""][""]


def test_speed_history_and_similarity(params: Experiment, root: Path):
    text = written(params, root)
    speed = table(text, "Table 8")
    assert (speed["ID Prediction"]["ms paper"], speed["ID Prediction"]["ms here"]) == ("6.67", "10.00")
    assert (speed["DETR"]["% paper"], speed["DETR"]["% here"]) == ("83.9", "60.0")
    assert "images of 160 x 96" in speed[""][""] and "a machine" in speed[""][""]
    short = table(text, "Table 11")["short, w/ TA"]
    assert (short["history paper"], short["history here"], short["HOTA here"]) == ("5", "2", "52.0")
    assert (short["h/epoch paper"], short["h/epoch here"]) == ("1.0", "0.0050")
    # Against the row of the same length: (2, 1, 3).
    assert short["Δ HOTA here ± s.e."] == "+2.0 ± 0.6"
    similarity = text.partition("## Similarity")[2]
    cells = [cell.strip() for cell in similarity.partition("`full`")[2].splitlines()[0].split("|")[1:-1]]
    assert cells == ["0.700", "0.0", "0.0", "0.0", "62.5", "12.5", "25.0"]
    alone = similarity.partition("detector alone")[2].splitlines()[0]
    assert [cell.strip() for cell in alone.split("|")[1:-1]] == cells


def test_csv_holds_the_same_numbers(params: Experiment, root: Path):
    written(params, root)
    with (root / "results" / "tables" / "table-4.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["base", "sa", "ta", "ia", "sa-ta", "sa-ia", "ta-ia", "full"]
    assert (rows["full"]["HOTA_paper"], rows["full"]["HOTA_here"], rows["full"]["reference"]) == (
        "71.7",
        "61.0",
        "base",
    )
    assert (rows["full"]["HOTA_difference_here"], rows["full"]["HOTA_difference_standard_error"]) == ("3.0", "1.0")
    assert rows["sa"]["measured_by"] == "cited" and rows["sa"]["HOTA_here"] == ""


def test_header_says_what_was_run(params: Experiment, root: Path, changed_params: Callable[..., Experiment]):
    text = written(params, root)
    assert "`tiny`" in text and "> Made for a test." in text
    assert "object-max (the published rule)" in text and "Commit unknown" in text
    assert [cell.strip() for cell in text.partition("| `dance` ")[2].splitlines()[0].split("|")[1:-1]] == [
        "made dancers", "DanceTrack", "test", "3", "30", "`stills` (attribute pre-training)"
    ]  # fmt: skip
    real = changed_params(("        render: {scene: dance, frames: 10}\n", ""))
    assert "| test  |         3 |      — |" in written(real, root)
    other = changed_params(("settings:\n", "settings:\n      tracker.assignment: hungarian\n"))
    assert "hungarian (not the published one, object-max)" in written(other, root)


def test_a_split_that_was_trained_on_is_told(changed_params: Callable[..., Experiment], root: Path):
    params = changed_params(("extra: {training_splits: [train, val]}", "extra: {training_splits: [train, test]}"))
    rows = table(written(params, root), "Table 1")
    assert "Ours\N{ASTERISK OPERATOR} is scored on `test`, which it was also trained on" in rows[""][""]
    # Best of what remains.
    assert (rows["Ours\N{ASTERISK OPERATOR}"]["HOTA here"], rows["Ours"]["HOTA here"]) == ("63.3", "**61.0**")


def test_runs_scored_in_part_are_told(params: Experiment, root: Path):
    write_scores(root, "ta", HOTA["ta"][:2])
    text = written(params, root)
    assert "**Not scored on all test sequences**: `dance/ta/seed-0` (2 of 3)" in text
    assert "2 to 3 paired test sequences" in table(text, "Table 4")[""][""]


def test_a_data_set_that_the_benchmark_lacks(params: Experiment, root: Path):
    rows = table(written(params, root), "Table 3")
    assert "no such data set in this benchmark" in rows[""][""]
    assert (rows["Ours"]["HOTA paper"], rows["Ours"]["HOTA here"]) == ("72.2", "—")
    assert {run.dataset for run in table_runs(params)} == {"dance"}


def test_runs_and_files_that_the_tables_need(params: Experiment, root: Path):
    names = ["base", "full", "extra", "ta", "short-base", "short-ta"]
    assert sorted(table_runs(params), key=str) == sorted((Run("dance", name) for name in names), key=str)
    assert table_baselines(params) == [Run("dance", "sort"), Run("dance", "bot-sort")]
    inputs = [str(path.relative_to(root)) for path in table_inputs(params, root)]
    assert len(set(inputs)) == len(inputs) and all((root / path).is_file() for path in inputs)
    assert {"scores/dance/speed.json", "models/dance/ta/seed-0/history.jsonl"} <= set(inputs)
    assert {path for path in inputs if "similarity" in path} == {
        f"scores/dance/{name}/seed-0/test-similarity.json" for name in ("detector", "base", "ta", "full")
    }


def test_baselines_need_the_full_model(changed_params: Callable[..., Experiment]):
    params = changed_params((", ours: full, ours-extra: extra", ""), (", ta: ta, full: full}", "}"))
    needed = [run for run in table_runs(params) if run.variant == "full"]
    assert needed == [Run("dance", "full")]


def test_wrong_tables_are_refused(changed_params: Callable[..., Experiment]):
    params = changed_params(("rows: {base: base, ta: ta", "rows: {base: base, tta: ta"))
    with pytest.raises(ParamsError, match=r"tables\.table-4\.rows\.tta: no such row; there are base, sa"):
        table_runs(params)
    with pytest.raises(ParamsError, match=r"tables\.table-12: no such table"):
        table_runs(changed_params(("table-8:", "table-12:")))


def test_the_workflow_imports_nothing_heavy():
    code = (
        "import sys, fdta.experiment.plan; print([m for m in ('torch', 'mlflow', 'numpy', 'cv2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


SERVED = """
catalogue:
  datasets:
    servedset:
      title: served
      licence: none
      folder: /nowhere
      splits: {train: {sequences: 2}, val: {sequences: 3}, test: {sequences: 3, ground_truth: false}}
"""


@pytest.fixture
def served(tmp_path: Path, changed_params: Callable[..., Experiment]) -> Experiment:
    """A project whose test split a server scores; ours are of the validation split."""
    return changed_params(
        ("benchmark: tiny\n", SERVED + "benchmark: tiny\n"),
        ("splits: {train: 2, val: 1, test: 3}\n        render: {scene: dance, frames: 10}", "source: servedset"),
        ("detector_start: stills", "detector_start: stills\n        test_split: val"),
        ("    rows: {sort: sort,", "    submissions: true\n    rows: {sort: sort,"),
    )


def test_scores_of_a_server_stand_for_those_of_the_validation_split(served: Experiment, root: Path):
    for scores in root.glob("scores/dance/*/seed-0/test.json"):
        scores.rename(scores.with_name("val.json"))
    before = table(written(served, root), "Table 1")
    assert before["Ours"]["HOTA here"] == "**61.0**" and before["Ours\u2217"]["run"] == "`extra` ‡"
    assert "it was also trained on: no test result" in before[""][""].replace("which ", "")
    entries = "{HOTA: 44.0, IDF1: 45.0, AssA: 46.0, MOTA: 47.0, DetA: 48.0, submission: abc}"
    (root / "server-scores.yaml").write_text(f"dance/full/seed-0: {entries}\ndance/extra/seed-0: {entries}\n")
    submission = root / "results/submissions/dance/full/seed-0.zip"
    submission.parent.mkdir(parents=True)
    submission.write_bytes(b"of another training")
    after = table(written(served, root), "Table 1")
    assert (after["Ours"]["HOTA here"], after["Ours"]["run"]) == ("44.0", "`full` †")
    assert after["Ours\u2217"]["run"] == "`extra` †" and "no test result" not in after[""][""]
    assert after["SORT (ICIP2016)"]["HOTA here"] == before["SORT (ICIP2016)"]["HOTA here"]
    # A difference between a server's score and one of ours says nothing.
    assert after["Ours"]["Δ HOTA here ± s.e."] == "—"
    assert "scored submission abc of `dance/full/seed-0`, which has been tracked anew" in after[""][""]
    rows = list(csv.DictReader((root / "results/tables/table-1.csv").open()))
    places = {row["row"]: (row["scored_on"], row["scored_by"]) for row in rows}
    assert places["ours"] == ("test", "server") and places["sort"] == ("val", "TrackEval")
    assert places["motr"] == ("", "")


def test_submissions_are_wanted_for_the_tables_that_ask_for_them(served: Experiment, root: Path):
    wanted = [str(path.relative_to(root)) for path in table_inputs(served, root) if path.suffix == ".zip"]
    names = ("sort", "bot-sort", "base", "full", "extra")
    assert sorted(wanted) == sorted(f"results/submissions/dance/{name}/seed-0.zip" for name in names)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("dance/fulll/seed-0: {HOTA: 1.0, IDF1: 1.0, AssA: 1.0, MOTA: 1.0, DetA: 1.0}", "no such variant"),
        ("waltz/full/seed-0: {HOTA: 1.0, IDF1: 1.0, AssA: 1.0, MOTA: 1.0, DetA: 1.0}", "no such data set"),
        ("stills/full/seed-0: {HOTA: 1.0, IDF1: 1.0, AssA: 1.0, MOTA: 1.0, DetA: 1.0}", "no server keeps"),
        ("dance/full/seed-0: {HOTA: 1.0}", "IDF1: missing"),
        ("dance/full/seed-0: {HOTA: 717, IDF1: 1.0, AssA: 1.0, MOTA: 1.0, DetA: 1.0}", "percentage"),
        ("full: {HOTA: 1.0}", "DATASET/VARIANT/seed-N"),
    ],
)
def test_wrong_scores_of_a_server_are_refused(served: Experiment, root: Path, entry: str, message: str):
    (root / "server-scores.yaml").write_text(entry + "\n")
    with pytest.raises(ParamsError, match=message) as caught:
        written(served, root)
    assert "server-scores.yaml" in str(caught.value)


def test_a_table_of_ones_own(changed_params: Callable[..., Experiment], root: Path):
    params = changed_params(
        ("tables:\n", "tables:\n  mine: {title: My dancers, dataset: dance, rows: {plain: base, all: full}}\n")
    )
    text = written(params, root)
    rows = table(text, "Mine")
    assert (rows["all"]["HOTA here"], rows["all"]["HOTA paper"]) == ("**61.0**", "—")
    assert "Paper:" not in rows[""][""]
    with pytest.raises(ParamsError, match=r"tables\.mine: no such table"):
        written(
            changed_params(("tables:\n", "tables:\n  mine: {title: t, dataset: elsewhere, rows: {a: base}}\n")), root
        )


def test_cost_of_pseudo_depth(params: Experiment, root: Path):
    section = written(params, root).partition("## D.1.1: ")[2].partition("\n## ")[0]
    cells = [cell.strip() for cell in section.splitlines()[-1].split("|")[1:-1]]
    assert cells == ["`dance`", "video-depth-anything large", "1.0", "0.50", "8.4", "1.5", "2"]
    assert "brought along" in section
