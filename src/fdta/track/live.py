"""Tracking image by image: `fdta.Tracker`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from fdta.boxes import cxcywh_to_xyxy
from fdta.data.images import resized_size, to_network
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.model.fdta import FDTA
from fdta.model.inference import optimized, precision
from fdta.track.sequence import watching
from fdta.track.tracker import OnlineTracker
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

    def to_supervision(self) -> supervision.Detections:
        """As `supervision.Detections`: xyxy, confidence and tracker_id.

        Raises:
            ImportError: the package supervision is not installed.
        """
        import supervision

        return supervision.Detections(xyxy=self.boxes_xyxy, confidence=self.scores, tracker_id=self.identities)


class Tracker:
    """Detector and online tracker for one video; `reset` starts the next."""

    def __init__(self, model: FDTA, settings: Settings) -> None:
        """Before the first image.

        Args:
            model: its device is where everything is computed; put into evaluation mode. Its weights stay as they are:
                on CUDA, graphs read them.
            settings: of the model.
        """
        self._model = model.eval()
        self._settings = settings
        self._detect = watching(self._model.detector)
        self.reset()

    @classmethod
    def from_checkpoint(
        cls,
        weights: str | Path,
        device: str | torch.device = "auto",
        root: str | Path = ".",
        dtype: str = "float32",
    ) -> Tracker:
        """Tracker of a checkpoint file or of a run.

        Args:
            weights: path of a checkpoint (model.pt), or a run (``dance/full/seed-0``).
            device: "cpu", "cuda", ... or "auto": CUDA where there is any.
            root: of a run: the folder of models/ and params.yaml.
            dtype: what the detector multiplies in: "float32", or less precise and on some machines faster "bfloat16",
                and on CUDA "float16".

        Raises:
            InputError: no such checkpoint, or it cannot track, or the device has no such numbers.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        root, device = Path(root), torch.device(device)
        numbers = precision(dtype, device)
        model, settings, _ = load_run(str(weights), root, device)
        return cls(optimized(model, numbers), settings)

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return next(self._model.parameters()).device

    def reset(self) -> None:
        """Forget every track; identities start at 0 again."""
        self._tracker = OnlineTracker.from_model(self._model, self._settings)

    @torch.inference_mode()
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
        settings = self._settings.tracker
        size = resized_size(width, height, settings.short_side, settings.long_side)
        images = to_network([frame if channels == "RGB" else frame[..., ::-1]], size, self.device)
        found = self._tracker.update(*(tensor[0] for tensor in self._detect(images)))
        order = np.argsort(found.identities)
        boxes_xyxy = cxcywh_to_xyxy(found.boxes_cxcywh[order].astype(np.float64)) * np.array([width, height] * 2)
        return FrameTracks(boxes_xyxy, found.identities[order], found.scores[order])
