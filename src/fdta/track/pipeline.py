"""From the images of a video to tracks: `fdta.Tracker`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fdta.acquire.pretrained import pretrained
from fdta.boxes import cxcywh_to_xyxy, xyxy_to_xywh
from fdta.data.motchallenge import Boxes
from fdta.device import is_small
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.machine import cores
from fdta.model.fdta import FDTA
from fdta.model.inference import optimized, precision
from fdta.settings import suggestion
from fdta.track.detect import BATCH, ImageDetector, Objects, graphed_detector
from fdta.track.detections import Detections
from fdta.track.tracker import IDScores, OnlineTracker
from fdta.track.weights import load_run

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class FrameTracks:
    """The tracked objects of one image, by identity."""

    boxes_xyxy: np.ndarray
    """(n, 4) float64, pixels of the image; (0, 0) is its top left corner."""
    identities: np.ndarray
    """(n,) int64, rising, numbered from 0 in the order of birth."""
    scores: np.ndarray
    """(n,) float32 of the detections, 0..1."""

    def __len__(self) -> int:
        return len(self.identities)

    def to_boxes(self, frame: int) -> Boxes:
        """As rows of a track file, of the frame with the number `frame`."""
        frames, scores = np.full(len(self), frame), self.scores.astype(np.float64)
        return Boxes(frames, self.identities, xyxy_to_xywh(self.boxes_xyxy), scores, np.ones_like(frames))

    def to_supervision(self) -> supervision.Detections:
        """As `supervision.Detections`: xyxy, confidence, tracker_id, and the only class 0, which annotators want.

        Raises:
            ImportError: the package supervision is not installed.
        """
        import supervision

        classes = np.zeros_like(self.identities)
        return supervision.Detections(
            xyxy=self.boxes_xyxy, confidence=self.scores, class_id=classes, tracker_id=self.identities
        )


class TrackedImage(NamedTuple):
    """What `Tracker.track` yields for one image."""

    image: np.ndarray
    tracks: FrameTracks
    detections: Detections | None
    """All above the record threshold; None if they are not asked for."""


@dataclass(frozen=True)
class Networks:
    """What a tracker computes with, whatever runs it."""

    detect: Callable[[Tensor], Objects]
    """Objects of images as of `fdta.data.images.to_network`."""
    id_scores: IDScores
    device: torch.device
    """Of the tensors that both take and return."""
    small: bool
    """Whether they compute so little on an image that one CPU thread is fastest (`fdta.device.is_small`)."""

    @classmethod
    def of(cls, model: FDTA, settings: Settings) -> Networks:
        """The networks of `model`, which is put into evaluation mode, run by torch on its device."""
        model.eval()
        device = next(model.parameters()).device
        small = is_small(model, settings.tracker.short_side * settings.tracker.long_side)
        return cls(graphed_detector(model.detector), OnlineTracker.scores_of(model), device, small)


class Tracker:
    """Detector and online tracker for one video; `reset` starts the next.

    A copy, also one that is pickled for another process, is before its first image.
    """

    def __init__(self, model: FDTA | Networks, settings: Settings, threads: int | None = None) -> None:
        """Before the first image.

        Args:
            model: its device is where everything is computed; put into evaluation mode. Its weights must not change:
                on CUDA, graphs read them. Or its networks, as something else than torch runs them.
            settings: of the model.
            threads: CPU threads of torch while `update` computes; None: one for a small model, else one per core.
        """
        self._made_from = model, settings, threads
        networks = model if isinstance(model, Networks) else Networks.of(model, settings)
        self.threads = threads or (1 if networks.small else cores())
        """CPU threads of torch that suit the model, or those given."""
        self.batch = BATCH if networks.small else 1
        """Images that go best through the detector at once, where none has to be waited for."""
        self._detector = ImageDetector(networks.detect, settings.tracker, networks.device)
        self._tracker = OnlineTracker.from_scores(networks.id_scores, settings, networks.device)

    def __reduce__(self) -> tuple[type[Tracker], tuple[FDTA | Networks, Settings, int | None]]:
        return type(self), self._made_from

    @classmethod
    def from_checkpoint(
        cls,
        weights: str | Path,
        device: str | torch.device = "auto",
        root: str | Path = ".",
        dtype: str = "float32",
        threads: int | None = None,
    ) -> Tracker:
        """Tracker of a checkpoint file, of a run or of a published tracker.

        Args:
            weights: path of a checkpoint (model.pt), a run (``dance/full/seed-0``), or a name as of `from_pretrained`.
            device: "cpu", "cuda", ... or "auto": CUDA where there is any.
            root: of a run: the folder of models/ and params.yaml.
            dtype: what the detector multiplies in: "float32", or less precise and on some machines faster "bfloat16",
                and on CUDA "float16".
            threads: as of `Tracker`.

        Raises:
            InputError: no such checkpoint, or it cannot track, or the device has no such numbers.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        root, device = Path(root), torch.device(device)
        numbers = precision(dtype, device)
        model, settings, _ = load_run(str(weights), root, device)
        return cls(optimized(model, numbers), settings, threads)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        threads: int | None = None,
    ) -> Tracker:
        """Tracker with published weights, which are downloaded the first time (`fdta weights list` prints the names).

        They are kept in the folder FDTA_CACHE, else fdta in XDG_CACHE_HOME, else ~/.cache/fdta. Progress and licence
        are logged at the level INFO. A params.yaml in the current folder may add names (its key ``catalogue``).

        Args:
            name: for example "dancetrack" or "motip-sportsmot".
            device: as of `from_checkpoint`.
            dtype: as of `from_checkpoint`.
            threads: as of `Tracker`.

        Raises:
            InputError: no such name; the file cannot be downloaded, is another one than the first time, or holds no
                tracker; the device has no such numbers.
        """
        known = pretrained(Path("params.yaml"))
        if name not in known:
            raise InputError(f"{name}: no published tracker has this name; {suggestion(name, known)}")
        return cls.from_checkpoint(name, device, dtype=dtype, threads=threads)

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self._detector.device

    def reset(self) -> None:
        """Forget every track; identities start at 0 again. CUDA graphs are kept."""
        self._tracker.reset()

    def update(self, frame: np.ndarray, channels: Literal["RGB", "BGR"] = "RGB") -> FrameTracks:
        """Track the objects of the next image of the video.

        Args:
            frame: (H, W, 3) uint8.
            channels: order of its colours; OpenCV's images are "BGR".

        Raises:
            InputError: the image or the order is of another kind.
        """
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            kind = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise InputError(f"frame: {kind} instead of a uint8 array (height, width, 3); convert it")
        if channels not in ("RGB", "BGR"):
            raise InputError(f"channels: {channels!r} is unknown; give 'RGB' or 'BGR'")
        height, width = frame.shape[:2]
        if not height or not width:
            raise InputError(f"frame: {width} x {height} pixels, it is empty; give an image")
        image = frame if channels == "RGB" else frame[..., ::-1]
        with _torch_threads(self.threads):
            (found,) = self._track([image], self._detector([image]))
        return found

    def track(
        self, images: Iterator[np.ndarray], batch: int = 1, record: bool = False
    ) -> Generator[TrackedImage, None, None]:
        """Track the objects of the next images of the video, one result per image.

        Another thread reads `batch` images ahead. Closing the generator waits for that thread, but does not close
        `images`.

        Args:
            images: (H, W, 3) uint8 RGB, all of one size.
            batch: images that go through the detector at once. Results do not depend on it (but for rounding).
            record: also yield the detections; their frames are counted from 1 in `images`.
        """
        with closing(self._detector.batches(images, batch)) as batches:
            for first, taken, objects in batches:
                recorded = self._detector.recorded(objects, taken[0].shape, first) if record else [None] * len(taken)
                yield from map(TrackedImage, taken, self._track(taken, objects), recorded)

    def _track(self, images: list[np.ndarray], objects: Objects) -> list[FrameTracks]:
        """Tracks of `images`, in which the detector found `objects`."""
        scale = np.array(images[0].shape[1::-1] * 2)
        tracked = []
        for one in zip(*objects, strict=True):
            found = self._tracker.update(*one)
            order = np.argsort(found.identities)
            boxes_xyxy = cxcywh_to_xyxy(found.boxes_cxcywh[order].astype(np.float64)) * scale
            tracked.append(FrameTracks(boxes_xyxy, found.identities[order], found.scores[order]))
        return tracked


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    """A block in which torch computes with so many threads."""
    before = torch.get_num_threads()
    if number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
