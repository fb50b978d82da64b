from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_weights import fill_seeded, golden_files, load_golden, published_settings
from helpers.recorded_graphs import record_graphs
from torch import Tensor

from fdta.experiment.settings import Settings
from fdta.model.fdta import FDTA
from fdta.model.settings import BackboneSettings
from fdta.settings import read_settings
from fdta.track.settings import TrackerSettings
from fdta.track.tracker import ASSIGNMENTS, OnlineTracker, Tracks

torch.set_num_threads(1)


def similarity(labels: int):
    """Label logits of the golden trackers: cosine with the mean of a track's embeddings."""

    def id_scores(
        features: Tensor,
        missing: Tensor,
        rows: Tensor,
        times: Tensor,
        current: Tensor,
        current_missing: Tensor | None = None,
        time: Tensor | None = None,
    ) -> Tensor:
        assert features.shape[:2] == missing.shape == (len(times), len(rows))
        assert torch.equal(features.any(dim=-1), ~missing)
        if time is None:
            assert not missing.all(0).any()
        else:
            assert missing[time:].all() and current_missing.shape == (len(current),)
        means = features.sum(0) / (~missing).sum(0).clamp(min=1)[:, None]
        logits = torch.full((len(current), labels + 1), -10.0, device=current.device)
        logits[:, -1] = 5
        logits[:, rows] = 10 * torch.cosine_similarity(current[:, None], means[None], dim=-1)
        return logits

    return id_scores


def golden_run(name: str) -> tuple[dict[str, Any], Settings]:
    golden = load_golden(name)
    thresholds = json.loads(str(golden["thresholds"]))
    tracker = TrackerSettings(
        detection_threshold=thresholds["det_thresh"],
        newborn_threshold=thresholds["newborn_thresh"],
        id_threshold=thresholds["id_thresh"],
        assignment=str(golden["protocol"]),
    )
    return golden, Settings(history=thresholds["miss_tolerance"], tracker=tracker)


def assert_golden_tracks(tracker: OnlineTracker, golden: dict[str, Any], device: torch.device) -> None:
    height, width = golden["image_hw"]
    rows = []
    frames = zip(golden["pred_logits"], golden["pred_boxes"], golden["embeddings"], strict=True)
    for frame, (logits, boxes, embeddings) in enumerate(frames):
        scores, boxes = torch.from_numpy(logits[:, 0]).sigmoid().to(device), torch.from_numpy(boxes).to(device)
        tracks = tracker.update(scores, boxes, torch.from_numpy(embeddings).float().to(device))
        center, size = np.split(tracks.boxes_cxcywh * np.array([width, height] * 2), 2, axis=1)
        number = np.full(len(size), frame)
        rows.append(np.column_stack((number, tracks.identities, center - size / 2, size, tracks.scores)))
    found = np.concatenate(rows)
    assert np.array_equal(found[:, :2], golden["tracks"][:, :2])
    np.testing.assert_allclose(found[:, 2:6], golden["tracks"][:, 2:6], atol=1e-3, rtol=0)
    np.testing.assert_allclose(found[:, 6], golden["tracks"][:, 6], atol=1e-6, rtol=0)


# None: as the device has it. 4: one transfer, and too few candidates at first.
@pytest.mark.parametrize("candidates", [None, 4])
@pytest.mark.parametrize("name", golden_files("tracker_*"))
def test_tracks_are_the_published_ones(name: str, candidates: int | None, device: torch.device) -> None:
    golden, settings = golden_run(name)
    labels = int(golden["num_id_vocabulary"])
    if str(golden["id_scores"]) == "similarity":
        width = golden["embeddings"].shape[-1]
        tracker = OnlineTracker(
            similarity(labels), labels, width, settings.history, settings.tracker, device, candidates
        )
    else:
        assert str(golden["id_scores"]) == "id_decoder"
        published = published_settings(str(golden["config"]))
        assert labels == published.association.labels
        small = dataclasses.replace(published.detector, encoder_layers=1, decoder_layers=1, queries=1)
        model = FDTA(dataclasses.replace(published, backbone=BackboneSettings(blocks=(1, 1, 1, 1)), detector=small))
        model.detector = None
        fill_seeded(model, str(golden["config"]), int(golden["seed"]))
        settings = dataclasses.replace(published, history=settings.history, tracker=settings.tracker)
        tracker = OnlineTracker.from_model(model.eval().to(device), settings, candidates)
    assert_golden_tracks(tracker, golden, device)


@pytest.mark.parametrize(
    ("assignment", "missing", "recorded"),
    [
        ("object-max", "mask", False),
        ("object-max", "mask", True),
        ("object-max", "zero-vector", False),
        ("object-max", "zero-vector", True),
        ("hungarian", "mask", False),
        ("id-max", "mask", False),
    ],
)
def test_one_transfer_gives_the_same_tracks(
    assignment: str, missing: str, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects that come and go, and more than labels; also as a graph, which repeats what it once did."""
    if recorded:
        record_graphs(monkeypatch)
    settings = read_settings(
        Settings,
        {
            "history": 5,
            "backbone": {"blocks": [1, 1, 1, 1]},
            "detector": {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "queries": 1}
            | {"norm_groups": 4},
            "spatial": {"enabled": False},
            "temporal": {"layers": 2, "heads": 2, "feedforward": 16, "missing": missing},
            "association": {"labels": 6, "label_width": 16, "layers": 2, "heads": 2},
            "tracker": {"assignment": assignment, "id_threshold": 0.1},
        },
        "",
        "test",
    )
    torch.manual_seed(0)
    model = FDTA(settings).eval()
    model.detector = None
    counting, guessing = (OnlineTracker.from_model(model, settings, candidates) for candidates in (0, 2))
    generator = np.random.default_rng(0)
    kinds = torch.randn(12, 16)
    continued = 0
    for frame in range(30):
        scores, boxes = generator.uniform(0, 1, 12), generator.uniform(-0.1, 1, (12, 4))
        scores *= frame not in (7, 8)  # frames without objects
        there = generator.permutation(12)
        embeddings = kinds[there] + 0.1 * torch.randn(12, 16)
        given = torch.from_numpy(scores).float(), torch.from_numpy(boxes).float(), embeddings
        before = counting._next_identity
        expected, actual = counting.update(*given), guessing.update(*given)
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(actual, name), value)
        continued += (expected.identities < before).sum()
    assert continued > 20 and counting._next_identity > 20


def people(identities: list[int], score: float | list[float] = 0.9) -> tuple[Tensor, Tensor, Tensor]:
    """Detections whose embeddings (one-hot of 16) tell the people apart."""
    scores = torch.tensor(score if isinstance(score, list) else [score] * len(identities))
    boxes = torch.full((len(identities), 4), 0.1)
    boxes[:, 0] = torch.tensor(identities) / 16
    return scores, boxes, torch.eye(16)[identities]


def tracker_of_people(labels: int = 8, history: int = 4, **settings: Any) -> OnlineTracker:
    return OnlineTracker(similarity(labels), labels, 16, history, TrackerSettings(**settings))


@pytest.mark.parametrize("candidates", [0, 2])
def test_after_a_reset_a_tracker_is_as_a_new_one_and_keeps_its_graphs(candidates: int) -> None:
    tracker = OnlineTracker(similarity(8), 8, 16, 4, TrackerSettings(), candidates=candidates)
    frames = [people([1, 2]), people([3, 2, 1, 5, 6]), people([2])]
    runs, graphs = [], []
    for _ in range(2):
        first = tracker._candidates
        runs.append([tracker.update(*frame) for frame in frames])
        graphs.append((first, tracker._candidates))
        tracker.reset()
    for before, after in zip(*runs, strict=True):
        for name, value in vars(before).items():
            np.testing.assert_array_equal(getattr(after, name), value)
    assert graphs[0] == graphs[1]
    assert len(set(graphs[0])) == (2 if candidates else 1)


def identities(tracks: Tracks) -> list[int]:
    return tracks.identities.tolist()


def test_result_keeps_boxes_and_scores_of_its_detections() -> None:
    tracker = tracker_of_people()
    scores, boxes, embeddings = people([3, 1, 2], [0.9, 0.2, 0.7])
    tracks = tracker.update(scores, boxes, embeddings)
    assert identities(tracks) == [0, 1]
    np.testing.assert_array_equal(tracks.boxes_cxcywh, boxes[[0, 2]].numpy())
    np.testing.assert_array_equal(tracks.scores, scores[[0, 2]].numpy())


def test_weak_detections_continue_tracks_and_start_none() -> None:
    tracker = tracker_of_people()
    assert identities(tracker.update(*people([1], 0.5))) == []
    assert identities(tracker.update(*people([1], 0.9))) == [0]
    assert identities(tracker.update(*people([1, 2], 0.5))) == [0]


def test_boxes_without_area_are_no_objects() -> None:
    scores, boxes, embeddings = people([1, 2])
    boxes[0, 2] = 0
    assert tracker_of_people().update(scores, boxes, embeddings).boxes_cxcywh[:, 0].tolist() == [2 / 16]


@pytest.mark.parametrize(("history", "absent", "same"), [(2, 0, True), (2, 1, False), (4, 2, True), (4, 3, False)])
def test_track_ends_when_absent_in_the_whole_history(history: int, absent: int, same: bool) -> None:
    tracker = tracker_of_people(history=history)
    tracker.update(*people([1, 2]))
    for _ in range(absent):
        tracker.update(*people([2]))
    assert identities(tracker.update(*people([1, 2]))) == [0 if same else 2, 1]


def test_frames_without_objects_count_as_history() -> None:
    tracker = tracker_of_people(history=3)
    tracker.update(*people([1]))
    assert identities(tracker.update(*people([]))) == []
    assert identities(tracker.update(*people([1]))) == [0]
    tracker.update(*people([], []))
    tracker.update(*people([], []))
    assert identities(tracker.update(*people([1]))) == [1]


def test_history_is_passed_in_the_order_of_time() -> None:
    seen = []

    def id_scores(features: Tensor, missing: Tensor, rows: Tensor, times: Tensor, current: Tensor) -> Tensor:
        seen.append((features[:, 0, 0].tolist(), missing[:, 0].tolist(), rows.tolist(), times.tolist()))
        return torch.tensor([[9.0, 0.0]])

    tracker = OnlineTracker(id_scores, 1, 1, 4, TrackerSettings())
    for value, score in ((1, 0.9), (2, 0.9), (3, 0.1), (4, 0.9), (5, 0.9), (6, 0.9)):
        tracker.update(torch.tensor([score]), torch.full((1, 4), 0.5), torch.tensor([[float(value)]]))
    assert seen == [
        ([1], [False], [0], [0]),
        ([1, 2, 0], [False, False, True], [0], [0, 1, 2]),
        ([2, 0, 4], [False, True, False], [0], [0, 1, 2]),
        ([0, 4, 5], [True, False, False], [0], [0, 1, 2]),
    ]


def test_newborn_takes_the_label_unused_longest_and_ends_its_track() -> None:
    tracker = tracker_of_people(labels=3, history=8)
    assert identities(tracker.update(*people([1, 2, 3]))) == [0, 1, 2]
    assert identities(tracker.update(*people([2]))) == [1]
    assert identities(tracker.update(*people([4]))) == [3]  # takes the label of 1
    assert identities(tracker.update(*people([2, 3]))) == [1, 2]
    assert identities(tracker.update(*people([1, 2, 3]))) == [4, 1, 2]  # and 1 takes that of 4


def test_of_labels_used_in_one_frame_the_first_detections_goes_first() -> None:
    tracker = tracker_of_people(labels=3, history=8)
    tracker.update(*people([1, 2, 3]))
    tracker.update(*people([3, 1, 2]))
    assert identities(tracker.update(*people([4]))) == [3]
    assert identities(tracker.update(*people([1, 2]))) == [0, 1]  # so 4 took the label of 3


def test_a_label_passes_no_embeddings_on() -> None:
    tracker = tracker_of_people(labels=1, history=8)
    tracker.update(*people([1]))
    tracker.update(*people([2]))
    assert identities(tracker.update(*people([1]))) == [2]


def test_more_objects_than_labels_for_many_frames() -> None:
    tracker = tracker_of_people(labels=4, history=4)
    generator = np.random.default_rng(0)
    names: dict[int, int] = {}
    for _ in range(200):
        here = generator.permutation(16)[: generator.integers(5, 17)].tolist()
        tracks = tracker.update(*people(here, generator.uniform(0.61, 1, len(here)).tolist()))
        who = np.rint(tracks.boxes_cxcywh[:, 0] * 16).astype(int).tolist()
        assert len(who) == len(set(who)) == len(set(identities(tracks))) == 4
        for identity, person in zip(identities(tracks), who, strict=True):
            assert names.setdefault(identity, person) == person
    assert len(names) > 20


def test_surest_newborns_go_first_and_the_others_wait() -> None:
    tracker = tracker_of_people(labels=2, history=3)
    tracks = tracker.update(*people([1, 2, 3, 4], [0.7, 0.8, 0.65, 0.9]))
    assert tracks.boxes_cxcywh[:, 0].tolist() == [2 / 16, 4 / 16]
    assert identities(tracks) == [0, 1]  # numbered in the order of the detections all the same
    tracks = tracker.update(*people([1, 2, 3], [0.7, 0.9, 0.65]))
    assert tracks.boxes_cxcywh[:, 0].tolist() == [1 / 16, 2 / 16]
    assert identities(tracks) == [2, 0]


# Rows: objects. Columns: labels 0 to 3 and newborn (4).
PROBABILITIES = np.array(
    [
        [0.50, 0.30, 0.10, 0.05, 0.05],
        [0.60, 0.25, 0.05, 0.05, 0.05],
        [0.10, 0.10, 0.35, 0.05, 0.40],
        [0.01, 0.01, 0.30, 0.53, 0.15],
        [0.00, 0.00, 0.05, 0.05, 0.90],
    ]
)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("object-max", [4, 0, 4, 4, 4]),  # 0 loses label 0 to 1
        ("hungarian", [1, 0, 4, 4, 4]),  # 0.3 + 0.6 for the first two, and two may be newborn
        ("id-max", [1, 0, 2, 4, 4]),  # newborn prefers 4, so 2 may have the label that prefers it
    ],
)
def test_assignment(assignment: str, expected: list[int]) -> None:
    alive = np.array([True, True, True, False, False])  # 3 prefers label 3, which has no track
    assert ASSIGNMENTS[assignment](PROBABILITIES, alive, 0.2).tolist() == expected


@pytest.mark.parametrize("assignment", list(ASSIGNMENTS))
@pytest.mark.parametrize(("threshold", "expected"), [(0.5, [4, 0, 4, 3, 4]), (0.55, [4, 0, 4, 4, 4])])
def test_assignment_respects_the_id_threshold(assignment: str, threshold: float, expected: list[int]) -> None:
    alive = np.array([True, True, True, True, False])
    assert ASSIGNMENTS[assignment](PROBABILITIES, alive, threshold).tolist() == expected


@pytest.mark.parametrize("assignment", list(ASSIGNMENTS))
def test_a_label_goes_to_one_object_at_most(assignment: str) -> None:
    generator = np.random.default_rng(1)
    for objects in (1, 2, 7, 20):
        # Few different values, so that many are equal.
        probabilities = generator.integers(0, 3, (objects, 7)) / 2
        labels = ASSIGNMENTS[assignment](probabilities, np.arange(7) < 6, 0.2)
        assert labels.shape == (objects,)
        known = labels[labels < 6]
        assert len(known) == len(set(known.tolist()))
