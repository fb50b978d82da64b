from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.finished_project import write_model, write_similarity
from torch import nn

from fdta.cli import main
from fdta.data.motchallenge import Boxes, Sequence, read_split, write_boxes
from fdta.depth.teacher import make_depth
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.plan import FIGURES, figure_inputs, page_figures
from fdta.experiment.steps import Steps
from fdta.model.checkpoint import save_model
from fdta.model.fdta import FDTA
from fdta.names import DETECTOR, Run
from fdta.report.figures import draw
from fdta.report.figures.attention import attention_weights
from fdta.report.figures.observed import read_tracked
from fdta.settings import ParamsError
from fdta.synthetic.render import render_split
from fdta.track.detect import detect_split
from fdta.track.detections import Detections, read_detections, write_detections

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

PARAMS = """
benchmark: tiny
benchmarks:
  tiny:
    note: Made for a test.
    datasets:
      dance:
        title: made dancers
        counterpart: DanceTrack
        splits: {train: 1, val: 1, test: 2}
        render: {scene: dance, frames: 8, width: 80, height: 48, objects: [3, 3], object_height: [18, 24]}
        teacher: rendered
    settings:
      history: 6
      backbone: {block: basic, norm: group, stem_width: 8, widths: [8, 8, 8, 8], blocks: [1, 1, 1, 1], frozen_stages: 0}
      detector:
        {width: 16, heads: 2, norm_groups: 4, queries: 6, encoder_layers: 1, decoder_layers: 1, feedforward: 16}
      spatial: {bins: 10, feedforward: 16}
      temporal: {layers: 1, heads: 2, feedforward: 16}
      association: {labels: 5, label_width: 16, layers: 1, heads: 2}
      tracker: {short_side: 48, long_side: 80, detection_threshold: 0.001, record_threshold: 0.0}
variants:
  full: {}
  base: {spatial.enabled: false, temporal.enabled: false, identity.enabled: false}
tables:
  table-4: {title: Adapters, dataset: DanceTrack, rows: {base: base, full: full}}
"""


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(PARAMS)
    return Experiment(path)


def write_tracks(root: Path, run: Run, sequence: Sequence, tracks: np.ndarray, keep: np.ndarray) -> None:
    """The ground truth's boxes as tracks with the numbers `tracks` (n,), where `keep` (n,)."""
    truth = sequence.ground_truth()
    order = np.lexsort((tracks[keep], truth.frames[keep]))
    frames, boxes = truth.frames[keep][order], truth.boxes_xywh[keep][order]
    scores = np.ones(len(frames))
    found = Boxes(frames, tracks[keep][order], boxes, scores, np.ones(len(frames), np.int64))
    write_boxes(root / "tracks" / str(run) / "test" / f"{sequence.name}.txt", found)
    boxes_xyxy = np.hstack((boxes[:, :2], boxes[:, :2] + boxes[:, 2:])).astype(np.float32)
    # One direction an identity, and a little noise.
    noise = np.random.default_rng(0).normal(scale=0.1, size=(len(frames), 16))
    embeddings = (np.eye(16)[truth.identities[keep][order] % 16] + noise).astype(np.float16)
    detections = Detections(frames.astype(np.int32), boxes_xyxy, scores.astype(np.float32), embeddings)
    write_detections(root / "detections" / str(run) / "test" / f"{sequence.name}.npz", detections)


@pytest.fixture(scope="module")
def finished(params: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose models are random and whose tracks are the ground truth; base exchanges two in frame 5 of the
    second sequence, and full loses one for two frames."""
    root = tmp_path_factory.mktemp("finished")
    data = params.dataset("dance")
    for split in ("val", "test"):
        render_split(data.render, split, data.splits[split], root / "data" / "dance" / split)
    make_depth(root / "data" / "dance" / "val", "rendered")
    torch.manual_seed(0)
    full = Run("dance", "full")
    settings = params.settings("dance", "full")
    save_model(root / "models" / str(full) / "model.pt", FDTA(settings), settings, str(full))
    settings = params.settings("dance", DETECTOR)
    save_model(root / "models" / "dance" / "detector" / "model.pt", FDTA(settings).detector, settings, "dance/detector")
    for variant in (DETECTOR, "base", "full"):
        write_similarity(root / "scores" / "dance" / variant / "seed-0" / "test-similarity.json")
    for number, sequence in enumerate(read_split(root / "data" / "dance" / "test")):
        truth = sequence.ground_truth()
        one, two = np.unique(truth.identities)[:2]
        exchanged = truth.identities.copy()
        if number == 1:
            late = truth.frames >= 5
            exchanged[late & (truth.identities == one)], exchanged[late & (truth.identities == two)] = two, one
        everything = np.ones(len(truth.frames), dtype=bool)
        lost = (truth.identities == one) & np.isin(truth.frames, (3, 4))
        write_tracks(root, Run("dance", "base"), sequence, exchanged, everything)
        write_tracks(root, full, sequence, truth.identities, ~lost)
    for variant in ("base", "full"):
        folder = root / "models" / "dance" / variant / "seed-0"
        model = folder / "model.pt"
        weights = model.read_bytes() if model.is_file() else b""
        folder.mkdir(parents=True, exist_ok=True)
        write_model(model, folder / "history.jsonl")
        model.write_bytes(weights)
    write_model(root / "ignored.pt", root / "models" / "dance" / "detector" / "history.jsonl")
    return root


def drawn(name: str, params: Experiment, root: Path, output: Path) -> dict[str, str]:
    draw(name, params, root, ("dance",), output)
    assert output.read_bytes().startswith(b"\x89PNG")
    return json.loads(output.with_suffix(".json").read_text())


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_files_give_the_same_bytes(name: str, params: Experiment, finished: Path, tmp_path: Path):
    assert all(path.exists() for path in figure_inputs(params, finished, name, ("dance",)))
    words = drawn(name, params, finished, tmp_path / "one.png")
    assert words["title"] and words["alt"] and "Nothing to show" not in words["caption"]
    again = drawn(name, params, finished, tmp_path / "two.png")
    assert again == words and (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_captions_tell_what_was_measured(params: Experiment, finished: Path, tmp_path: Path):
    assert "`dance` 25.0 %, 25.0 %, 25.0 %" in drawn("similarity", params, finished, tmp_path / "a.png")["caption"]
    tracks = drawn("tracks", params, finished, tmp_path / "b.png")["caption"]
    assert "dance-test-0002 from frame 3, where base errs and full does not" in tracks
    assert "base switches 2 identities and full 0; 2 of base's have no switch of full" in tracks
    assert "missing for up to 2 frames" in drawn("interactions", params, finished, tmp_path / "c.png")["caption"]
    assert "base 100.0 %, full 100.0 %" in drawn("embeddings", params, finished, tmp_path / "d.png")["caption"]


def test_a_run_that_found_nothing_gives_figures_that_say_so(params: Experiment, finished: Path, tmp_path: Path):
    root = tmp_path / "project"
    shutil.copytree(finished, root)
    for sequence in read_split(root / "data" / "dance" / "test"):
        nothing = np.zeros(len(sequence.ground_truth().frames), dtype=bool)
        for variant in ("base", "full"):
            write_tracks(root, Run("dance", variant), sequence, sequence.ground_truth().identities, nothing)
    path = root / "scores" / "dance" / "full" / "seed-0" / "test-similarity.json"
    empty = json.loads(path.read_text()) | {"pairs": 0, "mean": None, "share_above_0.9": None}
    empty["histogram"]["counts"] = [0] * len(empty["histogram"]["counts"])
    path.write_text(json.dumps(empty))
    assert "no pair" in drawn("similarity", params, root, tmp_path / "a.png")["caption"]
    assert "neither errs anywhere" in drawn("tracks", params, root, tmp_path / "b.png")["caption"]
    assert "too few" in drawn("embeddings", params, root, tmp_path / "c.png")["caption"]
    assert "Nothing to show: no track" in drawn("interactions", params, root, tmp_path / "d.png")["caption"]


def test_no_detection_leaves_the_depth_attention_empty(params: Experiment, finished: Path, tmp_path: Path):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.replace("detection_threshold: 0.001", "detection_threshold: 1.0"))
    words = drawn("depth-attention", Experiment(path), finished, tmp_path / "a.png")
    assert "Share of the attention" not in words["caption"]


def test_detections_that_are_not_those_of_the_tracks_are_refused(params: Experiment, finished: Path, tmp_path: Path):
    root = tmp_path / "project"
    shutil.copytree(finished, root)
    path = root / "detections" / "dance" / "full" / "seed-0" / "test" / "dance-test-0001.npz"
    found = read_detections(path)
    write_detections(path, Detections(found.frames, found.boxes_xyxy + 1, found.scores, found.embeddings))
    sequence = read_split(root / "data" / "dance" / "test")[0]
    with pytest.raises(InputError, match=r"frame 1 has not the detections of the tracks; track dance/full/seed-0"):
        read_tracked(root, Run("dance", "full"), sequence)


def test_the_detector_alone_leaves_detections(params: Experiment, finished: Path, tmp_path: Path):
    root = tmp_path / "project"
    shutil.copytree(finished, root)
    job = Steps(params, root).track(Run("dance", DETECTOR), "test").job
    folder = tmp_path / "detections"
    detect_split(job, root, folder, torch.device("cpu"))
    found = read_detections(folder / "dance-test-0002.npz")
    assert found.embeddings.shape == (8 * 6, 16) and np.unique(found.frames).tolist() == list(range(1, 9))
    shutil.copy(root / "models" / "dance" / "full" / "seed-0" / "model.pt", root / job.model)
    with pytest.raises(InputError, match="not a detector"):
        detect_split(job, root, folder, torch.device("cpu"))


def test_watched_attention_has_its_weights_and_the_same_output():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    tokens = torch.randn(1, 3, 8)
    hidden = torch.ones(3, 3, dtype=torch.bool).triu(1)
    plain, _ = attention(tokens, tokens, tokens, attn_mask=hidden, need_weights=False)
    with attention_weights([attention]) as weights:
        watched, _ = attention(tokens, tokens, tokens, attn_mask=hidden, need_weights=False)
    attention(tokens, tokens, tokens)
    torch.testing.assert_close(watched, plain)
    assert len(weights) == 1 and weights[0].shape == (1, 3, 3)
    assert weights[0][0, 0].tolist() == [1, 0, 0] and torch.allclose(weights[0].sum(-1), torch.ones(1, 3))


def test_figures_of_the_page_and_wrong_names(params: Experiment, finished: Path, tmp_path: Path, capsys):
    figures = page_figures(params)
    assert {name for name, _ in figures.values()} == set(FIGURES) and figures["tracks-dance"] == ("tracks", ("dance",))
    with pytest.raises(ParamsError, match="'flock': no table of benchmark 'tiny' has base and full on it"):
        draw("depth", params, finished, ("flock",), tmp_path / "a.png")
    command = ["figures", "similarity", "--params", str(params.path), "--root", str(finished)]
    assert main([*command, "--output", str(tmp_path / "b.pdf")]) == 2
    assert "name a file that ends in .png or .webp" in capsys.readouterr().err
    assert main([*command, "--dataset", "dance", "--output", str(tmp_path / "c.png")]) == 0
    (finished / "scores" / "dance" / "base" / "seed-0" / "test-similarity.json").rename(tmp_path / "kept.json")
    try:
        with pytest.raises(InputError, match=r"base/seed-0/test-similarity\.json: no such file"):
            draw("similarity", params, finished, ("dance",), tmp_path / "d.png")
    finally:
        (tmp_path / "kept.json").rename(finished / "scores" / "dance" / "base" / "seed-0" / "test-similarity.json")
    assert not (tmp_path / "d.png").exists()
    assert not list(tmp_path.glob("*.pdf")) and (tmp_path / "c.json").is_file()
