"""The online tracker: detections of one frame after the other get identities (docs/model.md, Online tracker).

It knows embeddings, scores and normalized boxes, no images; `fdta.track.pipeline` feeds it from a detector.

Decisions are made on the CPU. Where the embeddings are on another device, all that the CPU needs of a frame comes in
one transfer: a fixed number of detections, more than there are objects as a rule, is shown to the ID decoder, those
that are none as missing. So nothing before the transfer depends on the number of objects, and it can be a CUDA graph.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fdta.experiment.settings import Settings
from fdta.model.graphs import Graphed
from fdta.track.settings import TrackerSettings

CANDIDATES = 64
"""Detections that are looked at in one transfer from a GPU at first; doubled while there are more objects."""

if TYPE_CHECKING:
    from fdta.model.fdta import FDTA


@dataclass(frozen=True)
class Tracks:
    """The tracked objects of one frame, in the order of its detections."""

    identities: np.ndarray
    """(n,) int64, numbered from 0 in the order of birth."""
    boxes_cxcywh: np.ndarray
    """(n, 4) as the detections had them: 0..1 of the image."""
    scores: np.ndarray
    """(n,) of the detections, 0..1."""


class IDScores(Protocol):
    """Tells which ID labels the objects of a frame may have."""

    def __call__(
        self,
        history_features: Tensor,
        history_missing: Tensor,
        history_labels: Tensor,
        history_times: Tensor,
        current_features: Tensor,
        current_missing: Tensor | None = None,
        current_time: Tensor | None = None,
    ) -> Tensor:
        """Logits of the K ID labels and, last, of "newborn".

        The tracker leaves the last two out where it gives tracks and objects that exist, and no others. With them, it
        gives all of the K labels, whether they have a track or not, and T is always the longest history.

        Args:
            history_features: (T, N, d) embeddings of N tracks in the T frames before this one, zero where missing.
            history_missing: (T, N) bool, True where a track was not seen.
            history_labels: (N,) long, the label of each track, 0..K-1, rising.
            history_times: (T,) long, 0..T-1.
            current_features: (M, d) embeddings of the current objects, M at least 1.
            current_missing: (M,) bool, True where there is no object; None: nowhere.
            current_time: () long, of the current frame; all is missing in the history from there on. None: T.

        Returns:
            (M, K + 1) logits; of a missing object they mean nothing.
        """
        ...


class OnlineTracker:
    """Tracks the objects of one sequence; K labels bound how many at a time.

    Every track holds one of the K ID labels, and the history keeps one row a label. A track ends when it is missing in
    all frames of the history, or when a newborn takes its label while it is missing.
    """

    def __init__(
        self,
        id_scores: IDScores,
        labels: int,
        width: int,
        history: int,
        settings: TrackerSettings,
        device: torch.device | str = "cpu",
        candidates: int | None = None,
        graphs: bool = True,
    ) -> None:
        """Before the first frame.

        Args:
            id_scores: the label logits; on `device`.
            labels: K, the number of ID labels.
            width: d, the length of the embeddings.
            history: `Settings.history`: the frames of a clip, of which the current one is the last, so that
                ``history - 1`` frames are remembered; at least 2.
            settings: thresholds and assignment.
            device: where the embeddings are.
            candidates: detections that are looked at in one transfer, more once there are more objects; 0: objects are
                counted first, which is faster where nothing is transferred. None: 0 on a CPU, else `CANDIDATES`.
            graphs: whether what comes before the transfer becomes a CUDA graph, on CUDA.
        """
        self.id_scores = id_scores
        self.settings = settings
        self.labels = labels
        self._assign = ASSIGNMENTS[settings.assignment]
        # Frame t (from 0) is in row t modulo `history - 1`.
        self._features = torch.zeros(history - 1, labels, width, device=device)
        self._missing = np.ones((history - 1, labels), dtype=bool)
        if candidates is None:
            candidates = 0 if self._features.device.type == "cpu" else CANDIDATES
        self._first_candidates = candidates
        self._graphs = graphs
        self._looks: dict[int, Graphed] = {}
        self.reset()

    @classmethod
    def from_model(
        cls, model: FDTA, settings: Settings, candidates: int | None = None, graphs: bool = True
    ) -> OnlineTracker:
        """Tracker with the Temporal Adapter, trajectory features and ID decoder of `model`, on the model's device."""
        device = next(model.parameters()).device
        return cls.from_scores(cls.scores_of(model), settings, device, candidates, graphs)

    @classmethod
    def from_scores(
        cls,
        id_scores: IDScores,
        settings: Settings,
        device: torch.device | str,
        candidates: int | None = None,
        graphs: bool = True,
    ) -> OnlineTracker:
        """Tracker of a model with `settings`; arguments as of `OnlineTracker`."""
        k, width = settings.association.labels, settings.detector.width
        return cls(id_scores, k, width, settings.history, settings.tracker, device, candidates, graphs)

    @torch.inference_mode()
    def reset(self) -> None:
        """Forget every track, for the next sequence; identities start at 0 again."""
        # In place: CUDA graphs, which are kept, read this memory.
        self._features.zero_()
        self._missing[:] = True
        self._frame = 0
        self._queue = np.arange(self.labels)  # the labels, least recently used first
        self._identities = np.zeros(self.labels, dtype=np.int64)
        self._next_identity = 0
        # A sequence has the same results whichever was tracked before it.
        self._look_at(self._first_candidates)

    @staticmethod
    def scores_of(model: FDTA) -> IDScores:
        """The label logits that `model` gives."""

        def id_scores(
            history_features: Tensor,
            history_missing: Tensor,
            history_labels: Tensor,
            history_times: Tensor,
            current_features: Tensor,
            current_missing: Tensor | None = None,
            current_time: Tensor | None = None,
        ) -> Tensor:
            if current_missing is None:
                current_missing = torch.zeros_like(current_features[:, 0], dtype=torch.bool)
            if current_time is None:
                now = torch.full_like(current_missing, len(history_times), dtype=torch.long)
            else:
                now = current_time.expand(current_missing.shape)
            logits = model.id_logits(
                history_features[None, None],
                history_missing[None, None],
                history_labels.expand(history_missing.shape)[None, None],
                history_times[:, None].expand(history_missing.shape)[None, None],
                current_features[None, None, None],
                current_missing[None, None, None],
                now[None, None, None],
            )
            return logits[0, 0, 0]

        return id_scores

    @torch.inference_mode()
    def update(self, scores: Tensor, boxes_cxcywh: Tensor, embeddings: Tensor) -> Tracks:
        """Track the objects of the next frame.

        Detections above `detection_threshold` are assigned to tracks. Those that get none are born if above
        `newborn_threshold`; each takes the least recently used label that no object of this frame holds. If these run
        out, the surest newborns go first and the others wait, untracked, for a later frame.

        Args:
            scores: (Q,) of the detections, 0..1, on the tracker's device.
            boxes_cxcywh: (Q, 4), 0..1 of the image; likewise.
            embeddings: (Q, d) object embeddings; likewise.
        """
        look = self._count_first if self._candidates is None else self._guess_first
        score, box, features, labels = look(scores, boxes_cxcywh, embeddings)
        waiting = np.flatnonzero((labels == self.labels) & (score > self.settings.newborn_threshold))
        labels = self._give_birth(labels, waiting, score)
        tracked = np.flatnonzero(labels < self.labels)
        labels = labels[tracked]
        self._remember(labels, features[self._on_device(tracked)])
        return Tracks(self._identities[labels], box[tracked], score[tracked])

    def _count_first(
        self, scores: Tensor, boxes_cxcywh: Tensor, embeddings: Tensor
    ) -> tuple[np.ndarray, np.ndarray, Tensor, np.ndarray]:
        """Scores (M,), boxes (M, 4) and embeddings (M, d) of the objects, and labels (M,) of the tracks that they
        continue, K where there is none."""
        score, box = scores.numpy(force=True), boxes_cxcywh.numpy(force=True)
        chosen = np.flatnonzero((score > self.settings.detection_threshold) & (box[:, 2:] > 0).all(axis=1))
        features = embeddings[self._on_device(chosen)]
        score, box = score[chosen], box[chosen]
        alive = self._alive()
        rows = np.flatnonzero(alive)
        if not len(rows) or not len(chosen):
            return score, box, features, np.full(len(chosen), self.labels)
        length = min(self._frame, len(self._missing))
        slots = np.arange(self._frame - length, self._frame) % len(self._missing)
        place = slots[:, None], rows
        logits = self.id_scores(
            self._features[self._on_device(slots)[:, None], self._on_device(rows)],
            self._on_device(self._missing[place]),
            self._on_device(rows),
            torch.arange(length, device=self._features.device),
            features,
        )
        return score, box, features, self._assigned(logits.float().softmax(dim=-1).numpy(force=True), alive)

    def _look_at(self, candidates: int) -> None:
        """Look at so many detections from now on; 0: count the objects first."""
        if candidates and candidates not in self._looks:
            look = functools.partial(self._look, candidates)
            self._looks[candidates] = Graphed(look, "association", enabled=self._graphs)
        self._candidates = self._looks.get(candidates)

    def _guess_first(
        self, scores: Tensor, boxes_cxcywh: Tensor, embeddings: Tensor
    ) -> tuple[np.ndarray, np.ndarray, Tensor, np.ndarray]:
        """As `_count_first`, with one transfer where there are not more objects than were guessed, and else two."""
        state = self._on_device(self._state())
        while True:
            assert self._candidates is not None
            found, features = self._candidates(state, scores, boxes_cxcywh, embeddings)
            fetched = found.numpy(force=True)
            objects = int(fetched[0, 0]) if len(fetched) else 0
            if objects > len(fetched):
                self._look_at(2 ** (objects - 1).bit_length())
                continue
            fetched = fetched[:objects]
            labels = np.full(objects, self.labels)
            if objects:
                labels = self._assigned(fetched[:, 6:], self._alive())
            return fetched[:, 1], fetched[:, 2:6], features, labels

    def _alive(self) -> np.ndarray:
        """(K,) bool: the labels that an object in the history has."""
        return np.asarray(~self._missing.all(axis=0))

    def _assigned(self, probabilities: np.ndarray, alive: np.ndarray) -> np.ndarray:
        return self._assign(probabilities, np.append(alive, False), self.settings.id_threshold)

    def _state(self) -> np.ndarray:
        """What `_look` reads of the history, as one array: rows in the order of time, the time now, what is missing."""
        frames = len(self._missing)
        slots = np.arange(frames) + max(self._frame - frames, 0)
        slots %= frames
        return np.concatenate((slots, [min(self._frame, frames)], self._missing[slots].ravel()))

    def _look(
        self, candidates: int, state: Tensor, scores: Tensor, boxes_cxcywh: Tensor, embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first objects, in their order, and then others, as many as `candidates` or as there are detections.

        It becomes a CUDA graph: what changes from frame to frame is in the arguments and in the memory of `_features`.

        Returns:
            (C, 6 + K + 1) number of all objects, score, box and label probabilities; and (C, d) embeddings.
        """
        frames, labels = self._missing.shape
        slots, now, missing = state.split((frames, 1, frames * labels))
        objects = (scores > self.settings.detection_threshold) & (boxes_cxcywh[:, 2:] > 0).all(dim=-1)
        chosen = (~objects).int().argsort(stable=True)[:candidates]
        features = embeddings[chosen]
        logits = self.id_scores(
            self._features[slots],
            missing.view(frames, labels).bool(),
            torch.arange(labels, device=state.device),
            torch.arange(frames, device=state.device),
            features,
            ~objects[chosen],
            now[0],
        )
        number = objects.sum().to(scores.dtype).expand(len(chosen), 1)
        probabilities = logits.float().softmax(dim=-1)
        return torch.cat((number, scores[chosen, None], boxes_cxcywh[chosen], probabilities), dim=-1), features

    def _give_birth(self, labels: np.ndarray, newborns: np.ndarray, score: np.ndarray) -> np.ndarray:
        """`labels` (M,) with free labels for as many of `newborns` (indices into them) as there are."""
        held = np.zeros(self.labels + 1, dtype=bool)
        held[labels] = True
        free = self._queue[~held[self._queue]]
        if len(newborns) > len(free):
            surest = np.argsort(-score[newborns], kind="stable")[: len(free)]
            newborns = newborns[np.sort(surest)]
        if not len(newborns):
            return labels
        taken = free[: len(newborns)]
        self._features.index_fill_(1, self._on_device(taken), 0)
        self._missing[:, taken] = True
        self._identities[taken] = self._next_identity + np.arange(len(taken))
        self._next_identity += len(taken)
        labels = labels.copy()
        labels[newborns] = taken
        return labels

    def _remember(self, labels: np.ndarray, features: Tensor) -> None:
        """Put the current frame into the history: `features` (n, d) of the tracks that hold `labels` (n,)."""
        slot = self._frame % len(self._missing)
        self._features[slot].zero_().index_copy_(0, self._on_device(labels), features)
        self._missing[slot] = True
        self._missing[slot, labels] = False
        self._frame += 1
        self._queue = np.concatenate((self._queue[self._missing[slot, self._queue]], labels))

    def _on_device(self, array: np.ndarray) -> Tensor:
        """`array`, for whose way the CPU does not wait."""
        tensor, device = torch.from_numpy(array), self._features.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def object_max(probabilities: np.ndarray, alive: np.ndarray, threshold: float) -> np.ndarray:
    """Each object takes its most probable label, if no other object claims it with more; the first of equals has it.

    Args:
        probabilities: (M, K + 1), M at least 1; the last column is "newborn".
        alive: (K + 1,) bool, labels that have a track; the last is False.
        threshold: smallest probability.

    Returns:
        (M,) int64 labels; K for objects that continue no track. A label appears at most once.
    """
    labels, best = probabilities.argmax(axis=1), probabilities.max(axis=1)
    surest_first = np.argsort(-best, kind="stable")
    winners = surest_first[np.unique(labels[surest_first], return_index=True)[1]]
    winners = winners[alive[labels[winners]] & (best[winners] >= threshold)]
    result = np.full(len(labels), len(alive) - 1)
    result[winners] = labels[winners]
    return result


def hungarian(probabilities: np.ndarray, alive: np.ndarray, threshold: float) -> np.ndarray:
    """Largest sum of probabilities; any number of objects may be newborn. Arguments and result as `object_max`."""
    objects = len(probabilities)
    several_newborns = np.repeat(probabilities[:, -1:], objects - 1, axis=1)
    _, columns = linear_sum_assignment(np.hstack((probabilities, several_newborns)), maximize=True)
    return _continuing(np.minimum(columns, len(alive) - 1), probabilities, alive, threshold)


def id_max(probabilities: np.ndarray, alive: np.ndarray, threshold: float) -> np.ndarray:
    """Each label, "newborn" too, takes its most probable object; an object taken by several has the most probable.

    Arguments and result as `object_max`.
    """
    objects = probabilities.argmax(axis=0)
    surest_last = np.argsort(probabilities.max(axis=0), kind="stable")
    labels = np.full(len(probabilities), len(alive) - 1)
    labels[objects[surest_last]] = surest_last  # of several values for one object the last stays
    return _continuing(labels, probabilities, alive, threshold)


ASSIGNMENTS = {"object-max": object_max, "hungarian": hungarian, "id-max": id_max}


def _continuing(labels: np.ndarray, probabilities: np.ndarray, alive: np.ndarray, threshold: float) -> np.ndarray:
    """`labels` (M,), K where no track has the label or its probability is below `threshold`."""
    probable = probabilities[np.arange(len(labels)), labels] >= threshold
    return np.where(alive[labels] & probable, labels, len(alive) - 1)
