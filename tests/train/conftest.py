from __future__ import annotations

import pytest
import torch
import yaml
from helpers.training_data import CHOICE, ROOT, RUN

from fdta.cli import main
from fdta.experiment.params import Experiment
from fdta.model import checkpoint
from fdta.model.detector import DeformableDetector


@pytest.fixture(scope="session")
def settings():
    return Experiment(ROOT / "params.yaml", "smoke").settings("smoke-dance", "full")


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Data with depth, and an untrained detector."""
    root = tmp_path_factory.mktemp("training")
    for split in ("train", "val"):
        assert main(["data", "render", "smoke-dance", split, "--root", str(root), *CHOICE]) == 0
    assert main(["depth", "smoke-dance", "train", "--root", str(root), *CHOICE]) == 0
    detector_settings = Experiment(ROOT / "params.yaml", "smoke").settings("smoke-dance", "detector")
    torch.manual_seed(0)
    detector = DeformableDetector(detector_settings.backbone, detector_settings.detector, detector_settings.spatial)
    path = root / "models/smoke-dance/detector/model.pt"
    checkpoint.save_model(path, detector, detector_settings, "smoke-dance/detector")
    return root


@pytest.fixture
def root(rendered, tmp_path):
    """A place of its own for the models of one test."""
    (tmp_path / "data").symlink_to(rendered / "data")
    (tmp_path / "models/smoke-dance").mkdir(parents=True)
    (tmp_path / "models/smoke-dance/detector").symlink_to(rendered / "models/smoke-dance/detector")
    return tmp_path


@pytest.fixture(scope="session")
def finished(rendered):
    """Bytes of the model of one uninterrupted training."""
    assert main(["train", RUN, "--root", str(rendered), *CHOICE]) == 0
    return (rendered / "models" / RUN / "model.pt").read_bytes()


@pytest.fixture
def params_with(tmp_path):
    """A params.yaml whose smoke benchmark has other settings."""

    def write(**settings):
        raw = yaml.safe_load((ROOT / "params.yaml").read_text())
        own = raw["benchmarks"]["smoke"]["settings"]
        for part, values in settings.items():
            own[part] = {**own.get(part, {}), **values}
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(raw))
        return ["--params", str(path), "--benchmark", "smoke"]

    return write
