"""Jobs: what decides a result, in a file that is never changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fdta.cli import main
from fdta.errors import InputError
from fdta.experiment.jobs import KINDS, read_job, write_job
from fdta.experiment.params import Experiment
from fdta.experiment.plan import FULL
from fdta.experiment.steps import Steps
from fdta.names import DETECTOR, Run

ROOT = Path(__file__).parents[2]
BENCHMARKS = ("synthetic", "smoke", "paper", "published")


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Steps]:
    """Steps of the benchmark `synthetic` with one setting changed."""

    def change(*place: str, value: object) -> Steps:
        raw = yaml.safe_load((ROOT / "params.yaml").read_text())
        settings = raw
        for key in place[:-1]:
            settings = settings.setdefault(key, {})
        settings[place[-1]] = value
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(raw))
        return Steps(Experiment(path, "synthetic"), tmp_path)

    return change


@pytest.fixture(scope="module")
def steps() -> Steps:
    return Steps(Experiment(ROOT / "params.yaml", "synthetic"))


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_job_survives_its_file(benchmark: str, tmp_path: Path):
    found = Steps(Experiment(ROOT / "params.yaml", benchmark), tmp_path).all()
    for step in found.values():
        path = write_job(tmp_path, step.job)
        assert read_job(path) == step.job and path.name == f"{step.job.key}.json"
    keys = [step.job.key for step in found.values()]
    assert len(set(keys)) == len(keys)
    places = [output for step in found.values() for output in step.job.outputs]
    assert len(set(places)) == len(places)


def test_every_kind_of_job_is_met():
    met = {
        step.job.kind
        for benchmark in BENCHMARKS
        for step in Steps(Experiment(ROOT / "params.yaml", benchmark)).all().values()
    }
    assert met == set(KINDS)


def test_what_makes_an_output_is_its_own_step(steps: Steps):
    for step in steps.all().values():
        for output in step.job.outputs:
            assert steps.producer(output) == step, output
        for path, record in step.job.inputs.items():
            (made,) = [need.job.outputs for need in step.needs if need.job.record == record] if record else [(path,)]
            assert any(Path(path).is_relative_to(output) for output in made)


def test_a_job_file_that_was_edited_is_refused(steps: Steps, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write_job(tmp_path, steps.train(Run("dance", FULL)).job)
    value = json.loads(path.read_text())
    value["seed"] = 7
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="the file was changed"):
        read_job(path)
    assert main(["run", str(path), "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"fdta: {path}: the file was changed")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "broken JSON"),
        ("[1]", "must be names with values"),
        ('{"kind": "no"}', "is no kind of job"),
        ('{"kind": "score"}', "missing"),
        (
            '{"kind": "figure", "figure": "no", "datasets": ["dance"], "document": {}, "inputs": {}, "outputs": [], '
            '"record": "r", "code": ""}',
            "figure: 'no' is not allowed",
        ),
    ],
)
def test_a_broken_job_file_is_refused(text: str, told: str, tmp_path: Path):
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        read_job(path)
    with pytest.raises(InputError, match="no such file"):
        read_job(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"outputs": ["../../x.json"]}, "'../../x.json' leads out of the project"),
        ({"record": "/etc/x.record.json"}, "'/etc/x.record.json' leads out of the project"),
        ({"run": "../../x"}, "run: must be"),
        ({"split": "../x"}, "split: must be a name of letters"),
    ],
)
def test_a_job_cannot_write_out_of_the_project(change: dict, told: str, tmp_path: Path):
    right = {"kind": "score", "run": "dance/full/seed-0", "split": "test", "inputs": {}, "outputs": ["scores/s.json"]}
    path = tmp_path / "job.json"
    path.write_text(json.dumps(right | {"record": "scores/s.record.json", "code": ""} | change))
    with pytest.raises(InputError, match=re.escape(told)):
        read_job(path)


def stale_kinds(before: Steps, after: Steps) -> set[str]:
    """Kinds of the jobs of `dance` that a change gives another key."""
    jobs = after.all()
    changed = [step.job for record, step in before.all().items() if jobs[record].job.key != step.job.key]
    assert all("dance" in job.record for job in changed if job.kind not in ("tables", "figure", "report"))
    return {job.kind for job in changed} - {"tables", "figure", "report"}


def test_a_setting_changes_the_jobs_that_it_decides(steps: Steps, changed: Callable[..., Steps]):
    dance = ("benchmarks", "synthetic", "datasets", "dance", "overrides")
    tracker = changed(*dance, value={"tracker.id_threshold": 0.33})
    assert stale_kinds(steps, tracker) == {"detect", "track", "speed"}
    validation = changed(*dance, value={"validation.id_threshold": 0.33})
    assert stale_kinds(steps, validation) == {"train"}
    bins = changed(*dance, value={"spatial.bins": 33})
    assert stale_kinds(steps, bins) == {"train"}
    teacher = changed("benchmarks", "synthetic", "datasets", "dance", "splits", value={"train": 2, "val": 2, "test": 3})
    assert "render" in stale_kinds(steps, teacher)


def test_a_variant_without_an_adapter_does_not_depend_on_its_code(steps: Steps):
    full, base = (steps.experiment.settings("dance", name).unused_code() for name in (FULL, "base"))
    assert full == () and "fdta.model.spatial_adapter" in base
    assert steps.train(Run("dance", FULL)).job.code != steps.train(Run("dance", "base")).job.code


def test_an_adapter_that_is_off_has_no_settings(steps: Steps, changed: Callable[..., Steps]):
    bins = changed("benchmarks", "synthetic", "datasets", "dance", "overrides", value={"spatial.bins": 33})
    for variant, same in ((FULL, False), ("base", True), (DETECTOR, True)):
        run = Run("dance", variant)
        assert (steps.train(run).job.key == bins.train(run).job.key) == same, variant


def test_the_detector_has_no_settings_of_the_tracker(steps: Steps):
    job = steps.train(Run("dance", DETECTOR)).job
    assert job.settings.tracker == type(job.settings.tracker)() and not job.settings.temporal.enabled


def test_published_checkpoints_need_no_training_and_no_training_split(tmp_path: Path):
    path = tmp_path / "params.yaml"
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["benchmarks"]["published-dancetrack"]["submissions"] = False
    path.write_text(yaml.safe_dump(raw))
    steps = Steps(Experiment(path, "published-dancetrack"), tmp_path)
    found = steps.all().values()
    assert not {step.job.kind for step in found} & {"train", "detector", "depth", "submission"}
    assert [step.job.outputs for step in found if step.job.kind == "data"] == [("data/dancetrack/val",)]
    made = steps.train(Run("dancetrack", FULL))
    assert [need.job.outputs for need in made.needs] == [("pretrained/fdta_dancetrack.pth",)]
    assert made.job.outputs == ("models/dancetrack/full/seed-0/model.pt",)
    for run in (Run("dancetrack", "sa"), Run("dancetrack", FULL, 1)):
        with pytest.raises(InputError, match="nothing is trained on dancetrack"):
            steps.train(run)
    with pytest.raises(InputError, match="is imported, not trained"):
        steps.train(Run("dancetrack", FULL), 4)


def test_training_settings_do_not_import_again(tmp_path: Path):
    path, raw, keys = tmp_path / "params.yaml", yaml.safe_load((ROOT / "params.yaml").read_text()), []
    for key, value in (("loss.identity", 1.0), ("loss.identity", 2.0), ("history", 31)):
        raw["benchmarks"]["published"]["datasets"]["dancetrack"]["overrides"] = {key: value}
        path.write_text(yaml.safe_dump(raw))
        keys.append(Steps(Experiment(path, "published"), tmp_path).train(Run("dancetrack", FULL)).job.key)
    assert keys[0] == keys[1] != keys[2]
