"""Published checkpoint files: what is read from them and written to them, and what is refused."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pickle
import tarfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_weights import (
    CONFIGURATIONS,
    assert_close_to_golden,
    golden_files,
    load_golden,
    names_and_shapes,
    seeded_state_dict,
)
from helpers.small_checkpoints import BASE, SMALL, detector_alone, published
from torch import Tensor

from fdta.cli import main
from fdta.depth.bins import bin_values
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.experiment.steps import imported_settings
from fdta.model import checkpoint
from fdta.model.detector import DeformableDetector
from fdta.model.exchange import import_checkpoint, import_run
from fdta.model.fdta import FDTA
from fdta.model.published import load_detector, read_published
from fdta.model.settings import (
    BackboneSettings,
    IdentitySettings,
    ModelSettings,
    SpatialSettings,
    TemporalSettings,
)
from fdta.settings import to_plain
from fdta.synthetic.render import render_split
from fdta.synthetic.settings import RenderSettings
from fdta.track.weights import load_tracker

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)


def saved(value: Any, name: str = "published.pth", **options: Any) -> Path:
    torch.save(value, name, **options)
    return Path(name)


def run(*arguments: str) -> int:
    return main(["weights", *arguments])


def seeds_of(configuration: str) -> dict[str, int]:
    """Seed of the golden weights of the detector and of the association of `configuration`; 0 where there are none."""
    seeds = {"detr_*": 0, "id_inference*": 0}
    for pattern in seeds:
        for name in golden_files(pattern):
            golden = load_golden(name)
            if str(golden["config"]) == configuration:
                seeds[pattern] = int(golden["seed"])
    return seeds


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_file_of_published_names_and_shapes(configuration: str, capsys: pytest.CaptureFixture) -> None:
    listed, seeds = names_and_shapes(configuration), seeds_of(configuration)
    shapes = dict(listed)
    bins = shapes["detr.depth_predictor.depth_bin_values"][0] - 1
    state = {"detr.depth_predictor.depth_bin_values": bin_values(SpatialSettings(bins=bins))}
    state |= seeded_state_dict([item for item in listed if item[0].startswith("detr.")], seeds["detr_*"])
    state |= seeded_state_dict([item for item in listed if not item[0].startswith("detr.")], seeds["id_inference*"])
    assert state.keys() == shapes.keys()
    path = saved({"model": state, "optimizer": {"state": {}}, "scheduler": None, "states": {"start_epoch": 13}})
    assert run("import", str(path), "--output", "model.pt") == 0
    told = capsys.readouterr().out
    assert f"{path}: FDTA\n" in told and "missing: Identity Adapter" in told and "left out: optimizer, states" in told

    model, settings, name = load_tracker(Path("model.pt"), torch.device("cpu"))
    assert name == "imported/published"
    assert settings == Settings(
        history=shapes["id_decoder.rel_pos_embeds"][1],
        spatial=SpatialSettings(bins=bins),
        identity=IdentitySettings(feature_extractor=False),
    )
    # The benchmark `published` imports the file as this run.
    planned = imported_settings(Experiment(ROOT / "params.yaml", "published").settings(configuration, "full"))
    assert {field.name: getattr(settings, field.name) for field in dataclasses.fields(planned)} == vars(planned)
    with torch.no_grad():
        assert_golden_numbers(model, configuration, seeds)

    assert run("export", "model.pt", "--output", "again.pth") == 0
    again = torch.load("again.pth", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in again["model"].items()} == shapes
    assert "criterion" not in again
    assert run("import", "again.pth", "--output", "again.pt") == 0
    assert Path("again.pt").read_bytes() == Path("model.pt").read_bytes()
    for file in ("published.pth", "model.pt", "again.pth", "again.pt"):
        Path(file).unlink()


def assert_golden_numbers(model: FDTA, configuration: str, seeds: dict[str, int]) -> None:
    """Of the golden files of `configuration` with these seeds: one image at a time, and one frame against history."""
    for name in golden_files("detr_*"):
        golden = load_golden(name)
        key = str(golden["config"]), int(golden["seed"]), len(golden["sizes"])
        if key == (configuration, seeds["detr_*"], 1):
            shape = (1, 3, *golden["sizes"][0])
            image = np.random.default_rng([seeds["detr_*"], 0]).standard_normal(shape[1:], np.float32)
            output = model.detector(torch.from_numpy(image)[None], torch.zeros(1, *shape[2:], dtype=torch.bool))
            assert_close_to_golden(output.boxes_cxcywh, golden["pred_boxes"])
            assert_close_to_golden(output.embeddings, golden["embeddings"])
            assert_close_to_golden(output.depth, golden["depth"])
    for name in golden_files("id_inference*"):
        golden = load_golden(name)
        if (str(golden["config"]), int(golden["seed"])) == (configuration, seeds["id_inference*"]):
            features, missing, labels, times, current = (
                torch.from_numpy(golden[key]) for key in ("features", "missing", "id_labels", "times", "current")
            )
            shape = current.shape[:-1]
            present, now = torch.zeros(shape, dtype=torch.bool), torch.full(shape, times.shape[2])
            logits = model.id_logits(features, missing, labels, times, current, present, now)
            assert_close_to_golden(logits, golden["id_logits"])


def test_settings_are_read_from_shapes() -> None:
    found = read_published(saved({"model": published(SMALL)}))
    assert (found.kind, found.settings, found.left_out) == ("FDTA", SMALL, ())
    assert len(found.missing) == 1 and "Identity Adapter" in found.missing[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"spatial": SpatialSettings(enabled=False)},
        {"spatial": SpatialSettings(bins=11, placement="none", position_embedding=False)},
        {"spatial": SpatialSettings(bins=11, position_embedding=False)},
        {"temporal": TemporalSettings(enabled=False)},
        {"identity": IdentitySettings()},
        {"backbone": BackboneSettings("basic", "group", stem_width=4, widths=(4, 4, 6, 8), blocks=(1, 1, 2, 1))},
    ],
)
def test_adapters_and_backbone_are_read_from_names(changes: dict[str, Any]) -> None:
    settings = dataclasses.replace(SMALL, **changes)
    found = read_published(saved(published(settings)))
    assert found.settings == settings
    assert ("Identity Adapter" in " ".join(found.missing)) != settings.identity.feature_extractor


def test_motip_becomes_base(capsys: pytest.CaptureFixture) -> None:
    path = saved({"model": published(BASE), "optimizer": None})
    assert run("import", str(path), "--output", "model.pt") == 0
    told = capsys.readouterr().out
    assert f"{path}: MOTIP (the variant base)" in told and "missing: nothing" in told and "left out: nothing" in told
    model, settings, _ = load_tracker(Path("model.pt"), torch.device("cpu"))
    assert checkpoint.model_settings(to_plain(settings), Path()) == BASE
    assert model.temporal_adapter is None and model.detector.spatial_adapter is None


def test_imported_checkpoint_tracks(capsys: pytest.CaptureFixture) -> None:
    render_split(RenderSettings("dance", frames=1), "val", 1, Path("data/dance/val"))
    assert run("import", str(saved(published(SMALL), "some model.pth")), "--output", "model.pt") == 0
    assert main(["track", "data/dance/val", "--weights", "model.pt", "--device", "cpu"]) == 0
    (sequence,) = Path("tracks/imported/some model/val").glob("*.txt")
    assert Path("detections/imported/some model/val", f"{sequence.stem}.npz").is_file()


@pytest.mark.parametrize(("choice", "index"), [([], 1), (["--class", "bird"], 15), (["--class", "7"], 7)])
def test_detector_of_91_classes(choice: list[str], index: int, capsys: pytest.CaptureFixture) -> None:
    state = detector_alone(published(BASE), classes=91)
    # The published files are in the older form, and carry the arguments of their training.
    value = {"model": state, "epoch": 49, "args": argparse.Namespace(lr=1e-4)}
    path = saved(value, _use_new_zipfile_serialization=False)
    assert run("import", str(path), "--output", "detector.pt", *choice) == 0
    told = capsys.readouterr().out
    assert "Deformable DETR" in told
    assert f"left out: epoch, args, 90 of 91 classes (all but number {index})" in told
    value = checkpoint.load(Path("detector.pt"))
    assert value["run"] == "published/detector"
    settings = checkpoint.model_settings(value["settings"], path)
    assert settings == dataclasses.replace(BASE, history=30, **of_no_association())
    DeformableDetector(settings.backbone, settings.detector, settings.spatial).load_state_dict(value["model"])
    assert torch.equal(value["model"]["class_heads.1.weight"], state["class_embed.1.weight"][index : index + 1])


def of_no_association() -> dict[str, Any]:
    defaults = ModelSettings()
    return {name: getattr(defaults, name) for name in ("temporal", "association", "identity")}


def test_detector_of_one_class() -> None:
    path = saved(detector_alone(published(BASE)))
    found = read_published(path, kept_class=0)
    assert found.detector_alone and found.settings.detector.classes == 1 and found.left_out == ()
    with pytest.raises(InputError, match="class 15: the file has one class alone"):
        import_checkpoint(path, Path("never.pt"), kept_class=15)
    assert not Path("never.pt").exists()
    # A data set names a class for files that have several; others do without.
    assert load_detector(path, 15).keys() == read_published(path, kept_class=15).state.keys() == found.state.keys()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"model.module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {"model_state_dict": state}},
        lambda state: state | {"detr.backbone.0.body.bn1.num_batches_tracked": torch.tensor(3)},
        lambda state: {name: tensor for name, tensor in state.items() if not name.endswith("bin_values")},
    ],
)
def test_wrappers_are_taken_off(wrap: Callable[[dict[str, Tensor]], dict[str, Any]]) -> None:
    state = published(dataclasses.replace(SMALL, spatial=SpatialSettings(bins=11)))
    assert run("import", str(saved(state, "bare.pth")), "--output", "bare.pt") == 0
    assert run("import", str(saved(wrap(state), "wrapped.pth")), "--output", "wrapped.pt") == 0
    bare, wrapped = (checkpoint.load(Path(f"{name}.pt")) for name in ("bare", "wrapped"))
    assert bare["settings"] == wrapped["settings"]
    assert bare["model"].keys() == wrapped["model"].keys()
    assert all(torch.equal(wrapped["model"][name], tensor) for name, tensor in bare["model"].items())


@pytest.mark.parametrize("variant", ["full", "base", "ia", "contrastive-raw", "depth-between", "no-depth-position"])
def test_export_and_import_give_the_same_bytes(variant: str, capsys: pytest.CaptureFixture) -> None:
    name = f"smoke-dance/{variant}/seed-0"
    settings = Experiment(ROOT / "params.yaml", "smoke").settings("smoke-dance", variant)
    path = Path("models", name, "model.pt")
    checkpoint.save_model(path, FDTA(settings), settings, name)
    assert run("export", name, "--output", "exported.pth") == 0
    exported = torch.load("exported.pth", weights_only=True)
    assert exported["optimizer"] is None and exported["scheduler"] is None
    assert ("criterion" in exported) == (variant in ("full", "ia", "no-depth-position"))
    assert run("import", "exported.pth", "--output", "imported.pt") == 0
    assert f"({name})" in capsys.readouterr().out
    assert Path("imported.pt").read_bytes() == path.read_bytes()


def test_export_of_a_detector_and_its_import() -> None:
    settings = Experiment(ROOT / "params.yaml", "smoke").settings("smoke-dance", "detector")
    detector = DeformableDetector(settings.backbone, settings.detector, settings.spatial)
    path = Path("models/smoke-dance/detector/model.pt")
    checkpoint.save_model(path, detector, settings, "smoke-dance/detector")
    assert run("export", "smoke-dance/detector", "--output", "exported.pth") == 0
    # By this name the published code tells a detector alone.
    assert "bbox_embed.0.layers.0.weight" in torch.load("exported.pth", weights_only=True)["model"]
    assert run("import", "exported.pth", "--output", "imported.pt") == 0
    assert Path("imported.pt").read_bytes() == path.read_bytes()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch evil",))


class _AlsoEvil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("open('evil', 'w')",))


def _truncated(share: float, **options: Any) -> Callable[[], None]:
    def spoil() -> None:
        path = saved({"model": published(BASE)}, **options)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return spoil


def _without(part: str) -> Callable[[], None]:
    def spoil() -> None:
        saved({name: tensor for name, tensor in published(SMALL).items() if part not in name})

    return spoil


def _one_box_head() -> None:
    state = detector_alone(published(BASE))
    for name in state:
        if "bbox_embed.1" in name:
            state[name] = state[name.replace("bbox_embed.1", "bbox_embed.0")]
    saved(state)


def _first(change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    state = published(BASE)
    name = next(iter(state))
    return state | {name: change(state[name])}


def _flipped_bit() -> None:
    path = saved({"model": published(BASE)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _safetensors() -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    Path("published.pth").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def _torchscript() -> None:
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), "published.pth")


def _tar() -> None:
    Path("pickle").write_bytes(b"")
    with tarfile.open("published.pth", "w") as archive:
        archive.add("pickle")
    Path("pickle").unlink()


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda: None, "no such checkpoint"),
        (_truncated(0.0), "broken or no checkpoint"),
        (_truncated(0.001, _use_new_zipfile_serialization=False), "broken or no checkpoint"),
        (_truncated(0.5, _use_new_zipfile_serialization=False), "broken or no checkpoint"),
        (_truncated(0.5), "broken or no checkpoint"),
        (lambda: saved({"model": published(BASE), "hook": _Evil()}), "would load or run posix.system"),
        (lambda: saved(_AlsoEvil()), "would load or run exec"),
        (lambda: saved(_AlsoEvil(), pickle_protocol=4), "would load or run what torch cannot check"),
        (
            lambda: Path("published.pth").write_bytes(pickle.dumps(_Evil())),
            "would load or run what torch cannot check",
        ),
        (lambda: saved(_Evil(), _use_new_zipfile_serialization=False), "would load or run posix.system"),
        (lambda: saved(torch.nn.Linear(2, 2)), "would load or run torch.nn.modules.linear.Linear"),
        (lambda: saved({"conv1.weight": torch.zeros(2)}), "tensor 'conv1.weight' is of no published"),
        (lambda: saved({"model": {"epoch": 3}}), "holds no state dict"),
        (lambda: saved([torch.zeros(2)]), "holds no state dict"),
        (_without("level_embed"), "detector.level_embedding is missing"),
        (_without("encoder.layers.0.norm1.bias"), "detector.encoder.0.attention_norm.bias is missing"),
        (
            lambda: saved({"model": published(BASE), "fdta": {"run": "../x/y", "settings": {}}}),
            "'..' cannot name a run",
        ),
        (lambda: saved({"model": published(BASE), "fdta": {"run": "x", "settings": {}}}), "its entry 'fdta' is not"),
        (lambda: saved({"model": published(BASE), "fdta": {"run": "x/y", "settings": {"history": "x"}}}), "history"),
        (_one_box_head, "without iterative box refinement"),
        (lambda: saved(detector_alone(published(BASE), classes=5)), "5 classes apart, not COCO's 91"),
        (lambda: saved(defaultdict(int, epoch=3)), "collections.defaultdict; nothing in it was run. If you trust it"),
        (lambda: saved(_first(lambda tensor: torch.full_like(tensor, torch.inf))), "holds nan or inf"),
        (lambda: saved(_first(torch.Tensor.int)), "holds int32, weights are dense tensors of float"),
        (lambda: saved(_first(lambda x: x.to(torch.complex64))), "holds complex64"),
        (lambda: saved(_first(torch.Tensor.to_sparse)), "dense tensors"),
        (_flipped_bit, "damaged, its record published/data/"),
        (_safetensors, "a safetensors file, which is not read here; convert it"),
        (_tar, "torch's oldest form, a tar archive. If you trust it, convert it"),
        (
            lambda: torch.jit.save(torch.jit.script(torch.nn.ReLU()), "published.pth"),
            "a TorchScript archive; convert it",
        ),
    ],
)
def test_refused(spoil: Callable[[], Any], told: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    spoil()
    assert run("import", "published.pth", "--output", "model.pt") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("fdta: ") and "published.pth" in error and told in error and "\n" not in error
    assert {path.name for path in tmp_path.iterdir()} <= {"published.pth"}


def test_wrong_class_and_wrong_direction(capsys: pytest.CaptureFixture) -> None:
    saved(detector_alone(published(BASE), classes=91))
    assert run("import", "published.pth", "--output", "model.pt", "--class", "cat") == 2
    assert "--class cat: give person, bird or the number" in capsys.readouterr().err
    assert run("import", "published.pth", "--output", "model.pt", "--class", "91") == 2
    assert "published.pth: class 91 is not among its 91 classes" in capsys.readouterr().err
    assert run("export", "published.pth", "--output", "other.pth") == 2
    assert "not a checkpoint of this package" in capsys.readouterr().err
    assert run("import", "published.pth", "--output", "model.pt") == 0
    assert run("import", "model.pt", "--output", "other.pt") == 2
    assert "is a checkpoint of this package already" in capsys.readouterr().err
    checkpoint.save(Path("resume.pt"), {"format": checkpoint.FORMAT, "origin": "x"})
    assert run("export", "resume.pt", "--output", "other.pth") == 2
    assert "resume.pt: its entry 'run' is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("held", "settings", "run", "told"),
    [
        (
            BASE,
            SMALL,
            "bft/full/seed-0",
            "holds MOTIP, and bft/full/seed-0 is FDTA: spatial.enabled is false in the file",
        ),
        (
            SMALL,
            BASE,
            "bft/base/seed-0",
            "holds FDTA, and bft/base/seed-0 is MOTIP: spatial.enabled is true in the file",
        ),
        (SMALL, SMALL, "bft/detector", "holds FDTA, and bft/detector is Deformable DETR; name the right file"),
        (
            SMALL,
            dataclasses.replace(SMALL, history=60),
            "bft/full/seed-0",
            "file.pth: history is 7 in the file and 60 in the settings; name the right file under weights",
        ),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_for_a_run(
    held: ModelSettings, settings: ModelSettings, run: str, told: str, tmp_path: Path
) -> None:
    torch.save({"model": published(held)}, "file.pth")
    with pytest.raises(InputError) as raised:
        import_run(Path("file.pth"), Path("model.pt"), run, settings)
    assert told in str(raised.value) and "\n" not in str(raised.value)
    assert not Path("model.pt").exists()


def test_a_run_takes_from_its_settings_what_shapes_do_not_tell() -> None:
    settings = dataclasses.replace(
        SMALL,
        detector=dataclasses.replace(SMALL.detector, norm_groups=8),
        temporal=dataclasses.replace(SMALL.temporal, heads=4),
    )
    state = {name: tensor for name, tensor in published(settings).items() if not name.endswith("bin_values")}
    torch.save({"model": state}, "file.pth")
    import_run(Path("file.pth"), Path("model.pt"), "bft/full/seed-0", settings)
    model, read, run = load_tracker(Path("model.pt"), torch.device("cpu"))
    assert (run, read.temporal.heads, read.detector.norm_groups, read.spatial) == (
        "bft/full/seed-0",
        4,
        8,
        SMALL.spatial,
    )
    assert model.detector.spatial_adapter.bin_values.equal(bin_values(SMALL.spatial))


def test_what_trainers_put_beside_their_weights_is_taken() -> None:
    beside = {
        "args": argparse.Namespace(lr=1e-4, output=Path("x")),
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "when": [np.float32(1), Path("y")],
    }
    saved({"model": published(BASE), **beside})
    assert run("import", "published.pth", "--output", "model.pt") == 0
