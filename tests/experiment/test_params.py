from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.names import Run
from fdta.settings import ParamsError, read_settings, to_plain

ROOT = Path(__file__).parents[2]


@pytest.fixture
def changed(tmp_path):
    """Write params.yaml with one value at a path of keys changed or added."""

    def change(keys: list[str], value: object) -> Path:
        raw = yaml.safe_load((ROOT / "params.yaml").read_text())
        place = raw
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(raw))
        return path

    return change


@pytest.mark.parametrize("benchmark", ["synthetic", "smoke", "paper", "published", "published-bft"])
def test_every_benchmark_is_valid(benchmark):
    params = Experiment(ROOT / "params.yaml", benchmark)
    for dataset in params.benchmark.datasets:
        for variant in params.variants:
            settings = params.settings(dataset, variant)
            assert read_settings(Settings, to_plain(settings), "", "test") == settings


def test_paper_settings():
    params = Experiment(ROOT / "params.yaml", "paper")
    dance, sports, birds = (params.settings(name, "full") for name in ("dancetrack", "sportsmot", "bft"))
    assert (dance.history, sports.history, birds.history) == (30, 60, 20)
    assert (dance.training.epochs, dance.training.milestones) == (13, (6, 9))
    assert (sports.training.epochs, sports.training.milestones) == (13, (8, 12))
    assert (birds.training.epochs, birds.training.milestones) == (22, (16, 20))
    assert (dance.spatial.bins, birds.spatial.bins) == (150, 120)
    assert (dance.detector.queries, dance.detector.width, dance.association.labels) == (300, 256, 50)
    assert dance.augmentation.short_sides == tuple(range(480, 801, 32))


def test_overrides_rank_benchmark_dataset_variant():
    params = Experiment(ROOT / "params.yaml", "synthetic")
    assert params.settings("dance", "full").history == 8
    assert params.settings("dance", "history-short-ta").history == 2
    assert not params.settings("dance", "base").spatial.enabled
    assert params.settings("appearance", "detector").loss.attributes > params.settings("dance", "full").loss.attributes


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (["benchmark"], "synthetik", "benchmark: 'synthetik'"),
        (["colour"], 1, "colour: unknown key"),
        (["variants", "full", "trackr.id_threshold"], 0.2, "variants.full.trackr: unknown key; did you mean tracker?"),
        (["variants", "full", "tracker.id_treshold"], 0.2, "unknown key; did you mean id_threshold?"),
        (["variants", "full", "history"], 10**9, "variants.full.history: must be at most"),
        (["variants", "full", "training.weight_decay"], float("nan"), "must be a finite number"),
        (["benchmarks", "synthetic", "inherits"], "smoke", "inherits: "),
        (["variants", "full", "depth"], 1, "variants.full.depth: unknown key"),
        (["variants", "full", "spatial.placement"], "behind", "allowed: after, between, before, none"),
        (["variants", "full", "history"], "eight", "variants.full.history: must be a whole number, not 'eight'"),
        (["variants", "full", "history"], True, "history: must be a whole number, not True"),
        (["variants", "full", "history"], 1, "history: must be at least 2, not 1"),
        (["variants", "full", "training.learning_rate"], -1.0, "learning_rate: must be above 0"),
        (["variants", "full", "training.learning_rate"], "1e-4", "write 1.0e-04 with a point"),
        (["variants", "full", "tracker.id_threshold"], 1.5, "id_threshold: must be at most 1"),
        (["variants", "full", "detector.width"], 30, "width 30"),
        (["variants", "full", "clip.intervals"], [1, 2, 3], "clip.intervals: must be 2 values"),
        (["variants", "full"], [1], "variants.full: expected names with values"),
        (["variants", "detector"], {}, "variants.detector: the name is taken"),
        (["variants", "sort"], {}, "variants.sort: the name is taken"),
        (["variants", "wide bins"], {}, "variants.'wide bins': use letters"),
        (["seeds"], [], "seeds: must be a list of at least 1, not []"),
        (["seeds"], [0, 0], "seeds [0, 0] must be different"),
        (["seeds"], [-1], "seeds.0: must be at least 0"),
        (["benchmarks", "synthetic", "datasets", "dance", "counterpart"], "Dancetrack", "no table shows 'Dancetrack'"),
        (["tables", "table-4", "rows", "base"], "bass", "tables.table-4.rows.base"),
        (["benchmarks", "synthetic", "datasets", "dance", "render", "scene"], "opera", "render.scene: 'opera'"),
        (["benchmarks", "synthetic", "datasets", "dance", "splits"], {"train": 0}, "splits.train: must be at least 1"),
        (["benchmarks", "synthetic", "datasets", "dance", "detector_start"], "nowhere", "detector_start: 'nowhere'"),
        (["benchmarks", "synthetic", "noise_seeds"], {"ghost": [1]}, "noise_seeds.ghost: no such variant"),
        (["benchmarks", "synthetic", "variants"], {"ghost": {"history": 3}}, "variants.ghost: no such variant"),
    ],
)
def test_bad_values_are_refused_with_their_place(changed, keys, value, told):
    path = changed(keys, value)
    with pytest.raises(ParamsError) as error:
        Experiment(path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_broken_yaml_names_the_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("benchmark: synthetic\nseeds: [0\n")
    with pytest.raises(ParamsError, match="line 3 is no valid YAML"):
        Experiment(path)


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text() + "variants:\n  wide: {}\n")
    with pytest.raises(ParamsError, match="key 'variants' is in lines"):
        Experiment(path)


@pytest.mark.parametrize("number", ["1:30", "010", "-012"])
def test_numbers_that_yaml_reads_in_two_ways_are_refused(changed, tmp_path, number):
    path = changed(["benchmarks", "synthetic", "settings", "history"], 4321)
    path.write_text(path.read_text().replace("4321", number))
    with pytest.raises(ParamsError, match=f"history: must be a whole number, not '{number}'"):
        Experiment(path)


@pytest.mark.parametrize("file", ["", "workflow", "a{x}.pth", "a\nb.pth", "models/bft/full/seed-0/model.pt"])
def test_weights_are_names_of_checkpoints(changed, file):
    path = changed(["benchmarks", "published", "datasets", "bft", "weights", "full"], file)
    with pytest.raises(ParamsError, match=r"weights\.full: .* must be a checkpoint file, .pth or .pt, outside models/"):
        Experiment(path, "published")


def test_run_names():
    assert str(Run.parse("dance/full/seed-3")) == "dance/full/seed-3"
    with pytest.raises(ParamsError, match="DATASET/VARIANT/seed-N"):
        Run.parse("dance/full")
    assert Run.parse("dance/full/seed-2147483648").seed == 2**31
    for seed in ("2147483649", "9" * 5000):
        with pytest.raises(ParamsError, match="a seed is at most 2147483648"):
            Run.parse(f"dance/full/seed-{seed}")


@pytest.mark.parametrize(("dataset", "weight"), [("dancetrack", 6.0), ("sportsmot", 7.0), ("bft", 10.0)])
def test_preset_published_changes_every_departure_under_the_variant(changed, dataset, weight):
    plain = Experiment(ROOT / "params.yaml", "paper")
    path = changed(["preset"], "published")
    preset = Experiment(path, "paper")
    loss = preset.settings(dataset, "full").loss
    assert (loss.association_matching, loss.depth_smoothing, loss.foreground_weight) == ("last-but-one", 1e-6, weight)
    before, after = (flat(to_plain(params.settings(dataset, "full"))) for params in (plain, preset))
    differing = {key for key in after if before[key] != after[key]}
    assert differing <= {"loss.association_matching", "loss.depth_smoothing", "loss.foreground_weight"}
    assert {"loss.association_matching", "loss.depth_smoothing"} <= differing
    variant = preset.settings(dataset, "no-foreground-weight").loss
    assert variant.foreground_weight == plain.settings(dataset, "no-foreground-weight").loss.foreground_weight != weight


def flat(settings, prefix=""):
    if not isinstance(settings, dict):
        return {prefix.removesuffix("."): settings}
    return {key: value for name, part in settings.items() for key, value in flat(part, f"{prefix}{name}.").items()}


def test_an_unknown_preset_is_refused_by_name(changed):
    path = changed(["preset"], "publishd")
    with pytest.raises(ParamsError) as error:
        Experiment(path, "smoke")
    (line,) = str(error.value).splitlines()
    assert "preset" in line and "publishd" in line and "published" in line and "params.yaml" in line


def test_a_benchmark_chooses_data_sets_and_tables(tmp_path):
    params = Experiment(ROOT / "params.yaml", "published-bft")
    assert list(params.benchmark.datasets) == ["bft"] and list(params.tables) == ["table-3"]
    assert params.variants_of("bft") == ("full", "base")
    assert Experiment.from_document(params.document(), tmp_path).document() == params.document()
    every = Experiment(ROOT / "params.yaml", "published")
    assert list(every.tables) == ["table-1", "table-2", "table-3", "table-8"]
    assert "ours-extra" in every.all_tables["table-1"].rows and "ours-extra" not in every.tables["table-1"].rows
    shown = every.document(("bft",), ("base", "full"))
    assert Experiment.from_document(shown, tmp_path).benchmark.datasets["bft"] == every.benchmark.datasets["bft"]


def test_chosen_data_sets_keep_those_that_their_detectors_start_from(changed):
    params = Experiment(changed(["benchmarks", "synthetic", "only"], ["dance"]), "synthetic")
    assert list(params.benchmark.datasets) == ["appearance", "dance"] and "table-2" not in params.tables


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (["only"], ["brids"], "benchmarks.published.only.brids: no such data set"),
        (["tables"], ["table-12"], "benchmarks.published.tables.table-12: no such table"),
        (
            ["datasets", "bft", "weights", "fulll"],
            "x.pth",
            "datasets.bft.weights.fulll: no such variant; did you mean full?",
        ),
        (["datasets", "bft", "weights"], {"full": "x.pth"}, "weights must name the checkpoint of the detector alone"),
        (["seeds"], [0, 1], ".weights: a checkpoint is one run; give one seed"),
        (["datasets", "bft", "detector_start"], "x.pth", "datasets.bft: weights: nothing is trained"),
    ],
)
def test_wrong_choices_are_refused(changed, keys, value, told):
    with pytest.raises(ParamsError) as raised:
        Experiment(changed(["benchmarks", "published", *keys], value), "published")
    assert told in str(raised.value)
