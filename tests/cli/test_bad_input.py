"""Bad input: one line that names the place, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from fdta.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """data/ of a small rendered data set with depth."""
    root = tmp_path_factory.mktemp("rendered")
    for split in ("train", "val"):
        assert _smoke("data", "render", "smoke-dance", split, "--root", str(root)) == 0
        assert _smoke("depth", "smoke-dance", split, "--root", str(root)) == 0
    return root


@pytest.fixture
def root(rendered, tmp_path):
    """A copy to spoil."""
    shutil.copytree(rendered, tmp_path / "root")
    return tmp_path / "root"


def _smoke(*arguments: str) -> int:
    return main([*arguments, "--benchmark", "smoke", "--params", str(ROOT / "params.yaml")])


def _refused(capsys, *told: str) -> None:
    error = capsys.readouterr().err.strip()
    assert error.startswith("fdta: ") and "\n" not in error and "Traceback" not in error
    for part in told:
        assert part in error


def _train(root: Path) -> int:
    return _smoke("train", "smoke-dance/full/seed-0", "--root", str(root))


def _sequence(root: Path) -> Path:
    return sorted((root / "data/smoke-dance/train").glob("dance*"))[0]


def _spoil_gt(line: str):
    def spoil(root: Path) -> None:
        path = _sequence(root) / "gt/gt.txt"
        path.write_text(path.read_text() + line + "\n")

    return spoil


def _duplicate_line(root: Path) -> None:
    path = _sequence(root) / "gt/gt.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")


def _break_jpeg(root: Path) -> None:
    for path in (_sequence(root) / "img1").iterdir():
        path.write_bytes(path.read_bytes()[:200])


def _empty_sequence(root: Path) -> None:
    path = _sequence(root) / "seqinfo.ini"
    path.write_text(path.read_text().replace("seqLength=12", "seqLength=0"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_spoil_gt("1,2,3"), ["gt.txt, line", "3 instead of 6 to 10 columns"]),
        (_spoil_gt("99,77,3,3,5,5,1,1,1"), ["gt.txt, line", "frame 99 is outside 1..12"]),
        (_spoil_gt("1,77,3,3,-5,5,1,1,1"), ["gt.txt, line", "above 0"]),
        (_spoil_gt("1,77,x,3,5,5,1,1,1"), ["gt.txt, line", "not a number"]),
        (_duplicate_line, ["gt.txt, line", "already in frame"]),
        (_empty_sequence, ["seqinfo.ini", "empty"]),
        (lambda root: shutil.rmtree(_sequence(root) / "img1"), ["train", "incomplete"]),
        (lambda root: (_sequence(root) / "img1/00000003.jpg").unlink(), ["train", "incomplete"]),
        (lambda root: shutil.rmtree(root / "data/smoke-dance/train"), ["data/smoke-dance/train: not there"]),
    ],
)
def test_bad_data_set(root, capsys, spoil, told):
    _make_detector(root)
    spoil(root)
    assert _train(root) == 2
    _refused(capsys, *told)
    assert not (root / "models/smoke-dance/full").exists()


def test_broken_jpeg(root, capsys):
    _make_detector(root)
    for sequence in (root / "data/smoke-dance/train").glob("dance*"):
        for path in (sequence / "img1").iterdir():
            path.write_bytes(path.read_bytes()[:200])
    assert _train(root) == 2
    _refused(capsys, ".jpg", "cut short")
    assert not list((root / "models/smoke-dance").glob("full/**/model.pt"))


def _make_detector(root: Path, **changes: object) -> None:
    """Untrained detector of the smoke benchmark, with other detector settings if asked."""
    import dataclasses

    from fdta.experiment.params import Experiment
    from fdta.model.checkpoint import save_model
    from fdta.model.detector import DeformableDetector

    settings = Experiment(ROOT / "params.yaml", "smoke").settings("smoke-dance", "detector")
    settings = dataclasses.replace(settings, detector=dataclasses.replace(settings.detector, **changes))
    torch.manual_seed(0)
    detector = DeformableDetector(settings.backbone, settings.detector, settings.spatial)
    save_model(root / "models/smoke-dance/detector/model.pt", detector, settings, "smoke-dance/detector")


def test_checkpoint_of_another_shape(root, capsys):
    _make_detector(root, queries=7)
    assert _train(root) == 2
    _refused(capsys, "detector/model.pt", "queries has shape (7, 128), the settings ask for (20, 128)")


def test_missing_checkpoint(root, capsys):
    assert _train(root) == 2
    _refused(capsys, "models/smoke-dance/detector/model.pt", "not there; make it first")


def test_truncated_checkpoint(root, capsys):
    _make_detector(root)
    path = root / "models/smoke-dance/detector/model.pt"
    path.write_bytes(path.read_bytes()[:5000])
    assert _train(root) == 2
    _refused(capsys, "detector/model.pt", "broken or no checkpoint")


class _Evil:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('evil').touch()",))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_malicious_checkpoint_is_not_run(root, capsys, save, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = root / "models/smoke-dance/detector/model.pt"
    path.parent.mkdir(parents=True)
    save({"format": 1, "model": _Evil()}, path)
    assert _train(root) == 2
    _refused(capsys, "detector/model.pt")
    assert not (tmp_path / "evil").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_no_cuda(root, capsys):
    assert _smoke("train", "smoke-dance/full/seed-0", "--root", str(root), "--device", "cuda") == 2
    _refused(capsys, "--device cuda", "--device cpu")


def test_unknown_key_in_params(tmp_path, capsys):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["variants"]["full"] = {"depth": 3}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert main(["params", "check", "--params", str(path)]) == 2
    _refused(capsys, "variants.full.depth: unknown key")


def test_full_disk(root, capsys, monkeypatch):
    """Writing a checkpoint fails as on a full disk: one line at the end, and no half file is left."""
    _make_detector(root)

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert _smoke("train", "smoke-dance/base/seed-0", "--root", str(root)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("fdta: ") and "No space left on device" in lines[-1]
    left = [path.name for path in (root / "models").rglob("*") if path.is_file()]
    assert sorted(left) == ["history.jsonl", "model.pt"]


def test_data_check_lists_every_defect(root, capsys):
    _spoil_gt("1,2,3")(root)
    (_sequence(root) / "img1/00000002.jpg").write_bytes(b"no image")
    assert main(["data", "check", str(root / "data/smoke-dance/train")]) == 2
    captured = capsys.readouterr()
    assert "3 instead of 6 to 10 columns" in captured.out and "00000002.jpg" in captured.out
    assert "2 defects" in captured.err


def test_depth_of_another_size(root, capsys):
    _make_detector(root)
    for path in (root / "data/smoke-dance/depth/train").glob("*/*.png"):
        cv2.imwrite(str(path), np.zeros((5, 5), np.uint8))
    assert _train(root) == 2
    _refused(capsys, "depth", "5 x 5 pixels")
