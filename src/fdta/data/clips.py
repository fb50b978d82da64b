"""Training samples: clips of a data set's sequences, each frame with boxes, identities and depth."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from fdta.boxes import xywh_to_xyxy, xyxy_to_cxcywh
from fdta.data.augmentation import Frame, draw_augmentation, pan
from fdta.data.images import statistics
from fdta.data.motchallenge import Sequence, read_split
from fdta.data.rendered import ATTRIBUTES
from fdta.data.settings import ClipSettings
from fdta.data.targets import Targets
from fdta.distributed import rank
from fdta.errors import InputError
from fdta.settings import named, read_json

if TYPE_CHECKING:
    from fdta.experiment.settings import Settings

_logger = logging.getLogger(__name__)
_MOST_IDENTITIES = 1_000_000
"""Of a sequence whose identities have attributes."""
_LEFT_OUT = -1
"""In the place of a step: such a clip has a frame that is not usable."""


@dataclass(frozen=True)
class ClipBatch:
    """Clips of T frames each; the B * T frames of a batch follow one another clip by clip."""

    images: Tensor
    """(B * T, 3, H, W): uint8 RGB as read; from `to` on float32, normalized, zero where padded."""
    padding: Tensor
    """(B * T, H, W) bool, True where padded."""
    depth: Tensor | None
    """(B * T, H, W) uint8, larger is nearer."""
    targets: list[Targets]
    seeds: tuple[int, ...]
    """Of the random numbers that the objective draws for each clip, so that they do not depend on the other clips of
    the batch."""

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self.seeds)

    def to(self, device: torch.device) -> ClipBatch:
        """The batch on `device`, with its images normalized: bytes are a quarter of what there would be to carry."""
        batch = self._each(lambda x: x.to(device, non_blocking=True))
        images = batch.images
        if images.dtype == torch.uint8:
            deviation, mean = statistics(device)
            images = (
                images.float()
                .sub_(mean[:, None, None])
                .div_(deviation[:, None, None])
                .masked_fill_(batch.padding[:, None], 0)
            )
        return replace(batch, images=images)

    def pin_memory(self) -> ClipBatch:
        """The batch in memory from which a GPU copies while the CPU goes on."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> ClipBatch:
        def optional(x: Tensor | None) -> Tensor | None:
            return None if x is None else change(x)

        boxes, identities, attributes, counts = _joined(self.targets)
        targets = _split(change(boxes), change(identities), optional(attributes), counts)
        return ClipBatch(change(self.images), change(self.padding), optional(self.depth), targets, self.seeds)

    def __reduce__(self) -> tuple[Any, ...]:
        # From a worker, every tensor travels as a file of shared memory of its own: let there be few.
        return _batch, (self.images, self.padding, self.depth, _joined(self.targets), self.seeds)


_Joined = tuple[Tensor, Tensor, Tensor | None, list[int]]


def _joined(targets: list[Targets]) -> _Joined:
    """Boxes, identities and attributes of all frames, and how many objects each has."""
    attributes = [t.attributes for t in targets if t.attributes is not None]
    return (
        torch.cat([t.boxes_cxcywh for t in targets]),
        torch.cat([t.identities for t in targets]),
        torch.cat(attributes) if attributes else None,
        [len(t.identities) for t in targets],
    )


def _split(boxes: Tensor, identities: Tensor, attributes: Tensor | None, counts: list[int]) -> list[Targets]:
    parts = [None] * len(counts) if attributes is None else attributes.split(counts)
    return [Targets(*part) for part in zip(boxes.split(counts), identities.split(counts), parts, strict=True)]


def _batch(images: Tensor, padding: Tensor, depth: Tensor | None, joined: _Joined, seeds: tuple[int, ...]) -> ClipBatch:
    return ClipBatch(images, padding, depth, _split(*joined), seeds)


class ClipSampler:
    """Draws the clips of training: each is (sequence index, frames from 1).

    A clip of one of the sequences `stills` (by index) is one frame `length` times. Any other has `length` frames at one
    step drawn from `intervals`, or the largest that its sequence is long enough for if that is less. A clip with a
    frame that is not usable is left out, and the next one takes its place (docs/model.md, Clips and augmentation). The
    draw depends on seed, epoch and position alone, so that a resumed training sees the same clips.

    Args:
        usable: (n,) bool for each sequence, False for the frames that no clip may have.
        length: frames of a clip.
        intervals: smallest and largest step.
        clips_per_epoch: clips of an epoch; None: as many as frames can start one.
        seed: of all draws.
        stills: indices of the sequences of still images.
    """

    def __init__(
        self,
        usable: list[np.ndarray],
        length: int,
        intervals: tuple[int, int],
        clips_per_epoch: int | None,
        seed: int,
        stills: Collection[int] = (),
    ) -> None:
        self.length, self.seed = length, seed
        starts: list[tuple[int, int]] = []
        steps: list[np.ndarray] = []
        for index, frames in enumerate(usable):
            drawn = np.arange(intervals[0], intervals[1] + 1)
            still = index in stills
            for start in range(len(frames) if still else max(0, len(frames) - (length - 1) * intervals[0])):
                longest = 0 if still else (len(frames) - 1 - start) // max(1, length - 1)
                taken = np.minimum(drawn, longest)
                whole = frames[start + taken[:, None] * np.arange(length)].all(axis=1)
                starts.append((index, start + 1))
                steps.append(np.where(whole, taken, _LEFT_OUT))
        self.possible = len(starts)
        """Frames that start a clip if every frame is usable."""
        kept = [place for place, each in enumerate(steps) if (each != _LEFT_OUT).any()]
        self._starts, self._steps = [starts[place] for place in kept], [steps[place].tolist() for place in kept]
        self.starts = len(kept)
        """Frames that start a clip."""
        self.clips = clips_per_epoch or self.starts

    def epoch(self, epoch: int) -> list[tuple[int, tuple[int, ...]]]:
        """Clips of one epoch, in order."""
        generator = np.random.default_rng([self.seed, epoch])
        clips: list[tuple[int, tuple[int, ...]]] = []
        while len(clips) < self.clips:
            order = generator.permutation(self.starts)
            drawn = generator.integers(len(self._steps[0]), size=self.starts)
            for place, choice in zip(order.tolist(), drawn.tolist(), strict=True):
                (sequence, start), step = self._starts[place], self._steps[place][choice]
                if step != _LEFT_OUT:
                    clips.append((sequence, tuple(start + step * i for i in range(self.length))))
        return clips[: self.clips]


class ClipDataset:
    """Reads and augments clips of the splits of one data set.

    Raises:
        InputError: a split cannot be read, no sequence is long enough for a clip, or depth or attributes are missing.
    """

    def __init__(
        self,
        folder: Path,
        splits: tuple[str, ...],
        settings: Settings,
        length: int,
        with_depth: bool,
        with_attributes: bool,
        clips_per_epoch: int | None,
        seed: int,
    ) -> None:
        self.settings, self.seed, self.with_depth = settings, seed, with_depth
        self.sequences = [s for split in splits for s in read_split(folder / split)]
        shortest = (length - 1) * settings.clip.intervals[0] + 1
        short = [s.name for s in self.sequences if s.frames < shortest]
        if short and rank() == 0:
            _logger.warning(
                "%s: %d of %d sequences have fewer than the %d frames of a clip and are left out (%s); lower history "
                "or clip.intervals to train on them",
                folder,
                len(short),
                len(self.sequences),
                shortest,
                named(short[:5]) + (", ..." if len(short) > 5 else ""),
            )
        self.sequences = [s for s in self.sequences if s.frames >= shortest]
        stills = [s for name in settings.clip.stills for s in read_split(folder.parent / name)]
        if not self.sequences and not stills:
            raise InputError(
                f"{folder}: no sequence has the {shortest} frames of a clip; lower history or clip.intervals"
            )
        self.stills = range(len(self.sequences), len(self.sequences) + len(stills))
        self.sequences += stills
        self.truth = [_truth(s, settings.clip) for s in self.sequences]
        self.attributes = (
            [
                _attributes(s, np.concatenate([identities for _, identities in truth]))
                for s, truth in zip(self.sequences, self.truth, strict=True)
            ]
            if with_attributes
            else None
        )
        most = settings.detector.queries
        usable = [np.array([0 < len(boxes) <= most for boxes, _ in truth[1:]]) for truth in self.truth]
        self.sampler = ClipSampler(usable, length, settings.clip.intervals, clips_per_epoch, seed, self.stills)
        if self.sampler.starts < self.sampler.possible and rank() == 0:
            _logger.warning(
                "%s: %d of the %d frames that could start a clip are left out: all their clips have a frame without a "
                "box, or with more than the %d that the detector can find (detector.queries)",
                folder,
                self.sampler.possible - self.sampler.starts,
                self.sampler.possible,
                most,
            )
        if not self.sampler.starts:
            raise InputError(f"{folder}: no clip has 1 to {most} boxes in every frame; lower history, or add boxes")

    def digest(self) -> str:
        """Digest of what is trained on: the annotation as read, and the sizes of some image files."""
        digest = hashlib.sha256()
        for sequence, truth in zip(self.sequences, self.truth, strict=True):
            some = sorted({1, (1 + sequence.frames) // 2, sequence.frames})
            sizes = [sequence.image_path(frame).stat().st_size for frame in some]
            digest.update(f"{sequence.name} {sequence.frames} {sequence.width} {sequence.height} {sizes}".encode())
            for arrays in truth:
                for array in arrays:
                    digest.update(array.tobytes())
        for table in self.attributes or ():
            digest.update(table.tobytes())
        return digest.hexdigest()

    def clip(self, epoch: int, position: int, sequence: int, frames: tuple[int, ...]) -> ClipBatch:
        """Clip number `position` of an epoch as a batch of one, augmented."""
        generator = np.random.default_rng([self.seed, epoch, position])
        source = self.sequences[sequence]
        panned: list[Frame] = []
        if sequence in self.stills:
            # Parts of it are enlarged, so that all its pixels are needed.
            still = self._read(sequence, frames[0], None)
            panned = pan(still, len(frames), self.settings.clip.still_shift, generator)
        boxes = [frame.boxes_xyxy for frame in panned] or [self.truth[sequence][number][0] for number in frames]
        augmentation = draw_augmentation(self.settings.augmentation, source.width, source.height, boxes, generator)
        read = panned or (self._read(sequence, number, augmentation.enough) for number in frames)
        changed = map(augmentation, read)
        first = next(changed)
        shape = first.image.shape[:2]
        images = torch.empty(len(frames), 3, *shape, dtype=torch.uint8)
        depth = torch.empty(len(frames), *shape, dtype=torch.uint8) if first.depth is not None else None
        targets = []
        for place, frame in enumerate(itertools.chain([first], changed)):
            cv2.split(frame.image, list(images[place].numpy()))
            if depth is not None:
                depth[place] = torch.from_numpy(frame.depth)
            targets.append(self._targets(sequence, frame))
        padding = torch.zeros(len(frames), *shape, dtype=torch.bool)
        return ClipBatch(images, padding, depth, targets, (int(generator.integers(2**62)),))

    def _read(self, sequence: int, number: int, enough: tuple[int, int] | None) -> Frame:
        source = self.sequences[sequence]
        depth = source.depth(number) if self.with_depth else None
        image = source.image(number, enough)
        boxes, identities = self.truth[sequence][number]
        reduction = source.width // image.shape[1]
        if depth is not None and depth.shape[1] > image.shape[1]:
            depth = cv2.resize(depth, image.shape[1::-1], interpolation=cv2.INTER_AREA)
        return Frame(image, depth, boxes / reduction, identities)

    def _targets(self, sequence: int, frame: Frame) -> Targets:
        height, width = frame.image.shape[:2]
        boxes = xyxy_to_cxcywh(frame.boxes_xyxy / np.array([width, height, width, height])).astype(np.float32)
        attributes = None
        if self.attributes is not None:
            attributes = torch.from_numpy(self.attributes[sequence][frame.identities])
        return Targets(torch.from_numpy(boxes), torch.from_numpy(frame.identities), attributes)


def collate(clips: list[ClipBatch]) -> ClipBatch:
    """One batch of several, padded to the largest image. Identities of different clips stay apart."""
    if len(clips) == 1:
        return clips[0]
    height = max(c.images.shape[2] for c in clips)
    width = max(c.images.shape[3] for c in clips)
    total = sum(len(c.targets) for c in clips)
    images = torch.zeros(total, 3, height, width, dtype=torch.uint8)
    padding = torch.ones(total, height, width, dtype=torch.bool)
    depth = torch.zeros(total, height, width, dtype=torch.uint8) if clips[0].depth is not None else None
    targets: list[Targets] = []
    offset = 0
    for clip in clips:
        place = slice(len(targets), len(targets) + len(clip.targets))
        h, w = clip.images.shape[2:]
        images[place, :, :h, :w] = clip.images
        padding[place, :h, :w] = False
        if depth is not None and clip.depth is not None:
            depth[place, :h, :w] = clip.depth
        highest = max((int(t.identities.max()) for t in clip.targets if len(t.identities)), default=-1)
        targets += [Targets(t.boxes_cxcywh, t.identities + offset, t.attributes) for t in clip.targets]
        offset += highest + 1
    return ClipBatch(images, padding, depth, targets, tuple(seed for clip in clips for seed in clip.seeds))


def _truth(sequence: Sequence, settings: ClipSettings) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per frame (index 0 unused): boxes_xyxy (n, 4) and identities (n,) of what is learned."""
    rows = sequence.ground_truth()
    if not settings.uncounted_boxes:
        rows = rows.select(rows.scores.astype(int) != 0)
    frames, boxes, identities = rows.frames, xywh_to_xyxy(rows.boxes_xywh), rows.identities
    if settings.cut_boxes:
        boxes = np.clip(boxes, 0, np.array([sequence.width, sequence.height] * 2))
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        frames, boxes, identities = frames[inside], boxes[inside], identities[inside]
    borders = np.searchsorted(frames, np.arange(1, sequence.frames + 1))
    return list(zip(np.split(boxes, borders), np.split(identities, borders), strict=True))


def _attributes(sequence: Sequence, identities: np.ndarray) -> np.ndarray:
    """(largest identity + 1, A) int64, class of each attribute, -1 where it is not told."""
    path = sequence.folder / "attributes.json"
    told = read_json(dict[str, dict[str, int]], path)
    if told is None:
        raise InputError(f"{path}: no such file; set loss.attributes to 0 for data without appearance attributes")
    if identities.min(initial=0) < 0 or identities.max(initial=0) > _MOST_IDENTITIES:
        raise InputError(f"{path.parent / 'gt' / 'gt.txt'}: identities must be in 0..{_MOST_IDENTITIES}; renumber them")
    table = np.full((identities.max(initial=0) + 1, len(ATTRIBUTES)), -1, np.int64)
    for identity in np.unique(identities).tolist():
        classes = told.get(str(identity), {})
        for column, (name, count) in enumerate(ATTRIBUTES.items()):
            found = classes.get(name, -1)
            if not -1 <= found < count:
                raise InputError(f"{path}: {identity}.{name}: must be in 0..{count - 1}; render the sequence again")
            table[identity, column] = found
    return table
