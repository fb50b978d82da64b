from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import yaml

from fdta.acquire.catalogue import Place, catalogue_beside, read_catalogue
from fdta.acquire.convert import is_part_of
from fdta.experiment.params import Experiment
from fdta.experiment.steps import Steps
from fdta.settings import ParamsError

ROOT = Path(__file__).parents[2]
MINE = {"title": "Mine", "licence": "MIT", "splits": {"train": {"sequences": 2}}, "folder": "/disk/mine"}


def params_with(tmp_path: Path, catalogue: object, **data: object) -> Experiment:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["benchmarks"]["paper"]["datasets"]["mine"] = {"title": "Mine"} | data
    raw |= {"catalogue": catalogue, "benchmark": "paper"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    return Experiment(tmp_path / "params.yaml")


def test_the_shipped_entries():
    shipped = read_catalogue()
    counts = {
        name: {split: (s.sequences, s.ground_truth) for split, s in source.splits.items()}
        for name, source in shipped.datasets.items()
    }
    assert counts == {
        "dancetrack": {"train": (40, True), "val": (25, True), "test": (35, False)},
        "sportsmot": {"train": (45, True), "val": (45, True), "test": (150, False)},
        "bft": {"train": (45, True), "val": (25, True), "test": (36, True)},
    }
    assert {str(place) for place in shipped.datasets["sportsmot"].archives.values()} == {
        "https://huggingface.co/datasets/MCG-NJU/SportsMOT"
    }
    assert list(shipped.datasets["dancetrack"].split_archives("train")) == ["train1.zip", "train2.zip"]
    small = shipped.checkpoints["video_depth_anything_vits.pth"]
    assert str(small) == "https://huggingface.co/depth-anything/Video-Depth-Anything-Small"
    assert small.licence == "Apache-2.0"


def test_the_benchmark_names_checkpoints_that_the_catalogue_has():
    params = Experiment(ROOT / "params.yaml", "paper")
    for dataset in params.benchmark.datasets.values():
        for path in (dataset.teacher_weights, dataset.detector_start):
            assert Path(path).name in params.checkpoints


def test_splits_come_from_the_catalogue(tmp_path):
    params = params_with(tmp_path, {"datasets": {"mine": MINE}}, test_split="train", validation_split="train")
    assert params.dataset("mine").splits == {"train": 2}
    assert params.source("mine") is params.catalogue["mine"]
    assert params.source("dancetrack").title == "DanceTrack"
    params = params_with(tmp_path, {}, source="bft")
    assert params.dataset("mine").splits == {"train": 45, "val": 25, "test": 36}
    assert Experiment(ROOT / "params.yaml", "smoke").source("smoke-dance") is None


def test_entries_replace_shipped_ones(tmp_path):
    entry = MINE | {"splits": {"train": {"sequences": 3}, "val": {"sequences": 1}}}
    params = params_with(tmp_path, {"datasets": {"dancetrack": entry}}, splits={"val": 1, "test": 1})
    assert params.source("dancetrack").title == "Mine" and params.source("mine") is None
    assert params.dataset("dancetrack").splits == {"train": 3, "val": 1}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colour": 1}, "catalogue.datasets.mine.colour: unknown key"),
        ({"licence": None}, "catalogue.datasets.mine.licence: must be text"),
        ({"splits": {}}, "splits must name at least one split"),
        ({"splits": {"train": {"sequences": 0}}}, "mine.splits.train: sequences must be above 0"),
        ({"splits": {"train": {"sequences": 1, "archives": ["a.zip"]}}}, "'a.zip' is not among the archives"),
        ({"splits": {"train": {"sequences": 1, "folders": ["../x"]}}}, "folders are paths within"),
        ({"splits": {"../x": {"sequences": 1}}}, "'../x' names a file"),
        ({"folder": None}, "give archives or folder"),
        ({"archives": {"a.zip": {"url": "http://x/a.zip"}}}, "give archives or folder"),
        ({"folder": None, "archives": {"a.zip": {}}}, "mine.archives.a.zip: give one of hub, drive"),
        ({"folder": None, "archives": {"a.zip": {"url": "file:///a"}}}, "url starts with https://"),
        ({"folder": None, "archives": {"a.zip": {"hub": "dancetrack"}}}, "hub: OWNER/NAME"),
        ({"folder": None, "archives": {"a.zip": {"drive": "https://drive.google.com/x"}}}, "are ids, not links"),
        ({"folder": None, "archives": {"a.zip": {"url": "http://x/a", "sha256": "12"}}}, "sha256: 64 hex digits"),
        ({"folder": None, "archives": {"a.zip": {"url": "http://x/a", "size": -1}}}, "size must be above 0"),
        ({"form": {"annotation": "{video}.txt"}}, "annotation may hold {sequence} and {split}"),
        ({"form": {"rate": 0.0}}, "rate must be above 0"),
    ],
)
def test_wrong_entries_are_refused_with_their_place(tmp_path, change, told):
    entry = {key: value for key, value in (MINE | change).items() if value is not None or key == "licence"}
    with pytest.raises(ParamsError) as error:
        params_with(tmp_path, {"datasets": {"mine": entry}})
    assert told in str(error.value) and "\n" not in str(error.value)


def test_data_sets_without_an_entry(tmp_path):
    with pytest.raises(ParamsError, match=r"datasets\.mine: splits must name .* the catalogue has no"):
        params_with(tmp_path, {})
    with pytest.raises(ParamsError, match=r"mine\.source: the catalogue has no 'min'; allowed: dancetrack"):
        params_with(tmp_path, {}, source="min")
    with pytest.raises(ParamsError, match=r"catalogue\.sets: unknown key; did you mean datasets"):
        params_with(tmp_path, {"sets": {}}, source="bft")


@pytest.mark.parametrize(
    ("file", "entry", "told"),
    [
        ("../a.pth", {}, "catalogue.checkpoints.../a.pth: names a file"),
        ("a.pth", {"name": "a/b"}, "name: letters, digits"),
        ("a.pth", {"name": "a.pth"}, "name: letters, digits"),
        ("a.pth", {"name": "a", "kind": "depth"}, "only one file of a whole tracker has a name"),
        ("a.pth", {"name": "a", "kind": "YOLO"}, "'YOLO' is not allowed"),
        ("a.pth", {"name": "bft"}, "fdta_bft.pth has the name 'bft' already"),
        ("a.pth", {"url": None, "hub": "a/b", "file": "x", "pattern": "*"}, "give file or pattern"),
        ("a.pth", {"pattern": "*"}, "file, pattern and revision go with hub"),
    ],
)
def test_wrong_checkpoints_are_refused_with_their_place(file, entry, told):
    entry = {"url": "http://x/a.pth", "licence": "MIT"} | entry
    entry = {key: value for key, value in entry.items() if value is not None}
    with pytest.raises(ParamsError) as error:
        read_catalogue({"checkpoints": {file: entry}})
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_settings_file_may_be_absent_or_have_nothing_else(tmp_path):
    path = tmp_path / "params.yaml"
    assert catalogue_beside(path) == read_catalogue()
    path.write_text("learning_rate: 3\n")
    assert catalogue_beside(path) == read_catalogue()
    path.write_text("catalogue: {checkpoints: {b.pth: {url: http://x/b.pth, licence: MIT, name: b}}}\n")
    assert catalogue_beside(path).checkpoints["b.pth"].name == "b"


def test_what_commands_call_a_checkpoint_makes_no_other_job():
    params = Experiment(ROOT / "params.yaml", "paper")
    job = Steps(params).checkpoint("pretrained/r50_deformable_detr_motip_bft.pth").job
    assert job.place.url == params.checkpoints["r50_deformable_detr_motip_bft.pth"].url
    assert job.place.name is None and job.place.kind is None


def test_what_belongs_to_a_split():
    bft, dancetrack = (read_catalogue().datasets[name] for name in ("bft", "dancetrack"))
    belongs = [("BFT/train/a/1.jpg", True), ("BFT/annotations_mot/train/a.txt", True), ("train/readme.txt", True)]
    for path, expected in [*belongs, ("BFT/val/a/1.jpg", False), ("BFT/annotations_mot/val/train.txt", False)]:
        assert is_part_of(bft, "train", PurePosixPath(path)) == expected
    assert is_part_of(dancetrack, "train", PurePosixPath("train2/a/img1/1.jpg"))
    assert not is_part_of(dancetrack, "train", PurePosixPath("test2/a/img1/1.jpg"))


def test_places_in_words():
    assert str(Place(drive="abc")) == "https://drive.google.com/file/d/abc"
    assert str(Place(drive_folder="abc")) == "https://drive.google.com/drive/folders/abc"


def test_a_wheel_holds_the_catalogue(tmp_path):
    pytest.importorskip("setuptools", "77")
    code = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(tmp_path / 'wheel')!r}))"
    source = tmp_path / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    (source / "src").mkdir()
    (source / "src" / "fdta").symlink_to(ROOT / "src" / "fdta")
    result = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    names = zipfile.ZipFile(tmp_path / "wheel" / result.stdout.split()[-1]).namelist()
    assert {"fdta/acquire/catalogue.yaml", "fdta/experiment/paper.yaml", "fdta/py.typed"} <= set(names)
