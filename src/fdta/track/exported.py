"""Trackers in the ONNX form: a folder of two networks and their settings, written and run by onnxruntime.

`fdta.track.pipeline` does not import this module, so that results do not depend on it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fdta.data.images import resized_size
from fdta.device import is_small
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.files import whole_folder, write_json
from fdta.machine import cores
from fdta.model.fdta import FDTA
from fdta.model.onnx import Sampling, association_onnx, detector_onnx, require_packages, session
from fdta.names import check_run_name
from fdta.settings import read_settings, to_plain
from fdta.track.detect import Objects
from fdta.track.pipeline import Networks, Tracker
from fdta.track.tracker import IDScores

if TYPE_CHECKING:
    import onnxruntime

FORMAT = 1
SETTINGS, DETECTOR, ASSOCIATION = "settings.json", "detector.onnx", "association.onnx"
SIZES = 16, 8192
"""Smallest and largest side of an image of fixed size."""
MEANINGS = {
    DETECTOR: {
        "inputs": {
            "images": "(1, 3, height, width) float32, RGB, (value / 255 - mean) / deviation with the mean "
            "(0.485, 0.456, 0.406) and the deviation (0.229, 0.224, 0.225)"
        },
        "outputs": {
            "scores": "(1, queries), 0..1",
            "boxes_cxcywh": "(1, queries, 4), center, width and height in 0..1 of the image",
            "embeddings": "(1, queries, d), object embeddings of the last decoder layer",
        },
    },
    ASSOCIATION: {
        "inputs": {
            "history_features": "(frames, tracks, d) float32, embeddings in the frames before, 0 where missing",
            "history_missing": "(frames, tracks) bool, true where a track was not seen",
            "history_labels": "(tracks) int64, the ID label of each track, 0..K-1",
            "history_times": "(frames) int64, 0..frames-1",
            "current_features": "(objects, d) float32, embeddings of the objects of this frame",
            "current_missing": "(objects) bool, true where there is no object, only padding",
            "current_time": "() int64, the number of frames; a smaller one hides the history from there on",
        },
        "outputs": {"logits": "(objects, K + 1), of the K ID labels and, last, of a newborn object"},
    },
}
"""Of the two files, what their inputs and outputs are."""

logger = logging.getLogger(__name__)


def write_exported(
    model: FDTA,
    settings: Settings,
    run: str,
    folder: Path,
    size: tuple[int, int] | None = None,
    sampling: Sampling = "gather",
) -> dict[str, dict[str, float]]:
    """Write the networks of `model` and their settings to `folder`, if onnxruntime computes with them what torch does.

    Args:
        model: on a CPU; put into evaluation mode.
        settings: of the model.
        run: its name.
        folder: what to make; see `fdta.files.whole_folder`.
        size: height and width of all images in the network; None: any.
        sampling: how deformable attention samples.

    Returns:
        For each file the largest difference of its outputs from torch.

    Raises:
        InputError: a package is missing, the numbers differ, or `folder` may not be replaced.
    """
    require_packages("onnx", "onnxscript", "onnxruntime")
    model.eval()
    tracker = settings.tracker
    width, height = resized_size(1920, 1080, tracker.short_side, tracker.long_side)
    with whole_folder(folder) as temporary:
        logger.info("%s: exporting and comparing with torch", DETECTOR)
        detector, of_detector = detector_onnx(model, size, (height, width), sampling)
        logger.info("%s: exporting and comparing with torch", ASSOCIATION)
        association, of_association = association_onnx(model)
        files = {DETECTOR: detector, ASSOCIATION: association}
        for name, file in files.items():
            (temporary / name).write_bytes(file)
        described = {
            "format": FORMAT,
            "run": run,
            "size": "dynamic" if size is None else list(size),
            "sampling": sampling,
            "small": is_small(model, tracker.short_side * tracker.long_side),
            "files": {name: {"sha256": _digest(file)} | MEANINGS[name] for name, file in files.items()},
            "settings": to_plain(settings),
        }
        write_json(temporary / SETTINGS, described)
    return {DETECTOR: of_detector, ASSOCIATION: of_association}


@dataclass(frozen=True)
class Exported:
    """What `write_exported` wrote."""

    folder: Path
    run: str
    settings: Settings
    size: tuple[int, int] | None
    """Height and width of all images in the network; None: any."""
    small: bool
    detector: bytes
    association: bytes

    @classmethod
    def read(cls, folder: Path) -> Exported:
        """Read `folder`.

        Raises:
            InputError: it is no such folder, or one of its files is missing or changed.
        """
        path = folder / SETTINGS
        if not path.is_file():
            raise InputError(f"{folder}: no exported tracker, {SETTINGS} is missing; make it with `fdta export`")
        try:
            value = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            raise InputError(f"{path}: no JSON; export again") from None
        version = value.get("format") if isinstance(value, dict) else None
        if version != FORMAT:
            raise InputError(f"{path}: its format is {version!r}, not {FORMAT}; export again with this version of fdta")
        size, files = value.get("size"), value.get("files")
        if size != "dynamic" and not _is_size(size):
            raise InputError(f"{path}: size {size!r} is neither dynamic nor two sides; export again")
        if not isinstance(value.get("run"), str) or not isinstance(value.get("small"), bool):
            raise InputError(f"{path}: run or small is missing; export again")
        check_run_name(value["run"], path)
        settings = read_settings(Settings, value.get("settings"), "settings", path)
        detector, association = (_network(folder / name, files, path) for name in (DETECTOR, ASSOCIATION))
        fixed = None if size == "dynamic" else (size[0], size[1])
        return cls(folder, value["run"], settings, fixed, value["small"], detector, association)

    def tracker(self, device: str = "auto", threads: int | None = None) -> Tracker:
        """Tracker whose networks onnxruntime runs.

        Args:
            device: "cpu", "cuda" or "auto": CUDA where onnxruntime has it.
            threads: CPU threads of onnxruntime and torch; None: one for a small model, else one per core.

        Raises:
            InputError: as of `networks`.
        """
        threads = threads or (1 if self.small else cores())
        return Tracker(self.networks(device, threads), self.settings, threads)

    def _session(self, name: str, file: bytes, threads: int, cuda: bool) -> onnxruntime.InferenceSession:
        """The network `name`, if it is the one that the settings describe."""
        try:
            made = session(file, threads, cuda)
        except InputError as error:
            raise InputError(f"{self.folder / name}: {error}") from None
        shapes = {value.name: value.shape for value in (*made.get_inputs(), *made.get_outputs())}
        labels, width = self.settings.association.labels, self.settings.detector.width
        if name == DETECTOR:
            size = self.size or ("height", "width")
            wanted = {"images": [1, 3, *size], "embeddings": [1, self.settings.detector.queries, width]}
        else:
            wanted = {"current_features": ["objects", width], "logits": ["objects", labels + 1]}
        names = {*MEANINGS[name]["inputs"], *MEANINGS[name]["outputs"]}
        if shapes.keys() != names or any(shapes[value] != shape for value, shape in wanted.items()):
            raise InputError(f"{self.folder / name}: is not the network that {SETTINGS} describes; export again")
        return made

    def networks(self, device: str, threads: int) -> Networks:
        """The networks, run by onnxruntime; what they take and return is on the CPU.

        Args:
            device: as of `tracker`.
            threads: CPU threads of onnxruntime.

        Raises:
            InputError: onnxruntime is missing, cannot read the files, or has no such device.
        """
        require_packages("onnxruntime")
        import onnxruntime

        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"device: {device!r} is unknown; give 'auto', 'cpu' or 'cuda'")
        has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "cuda" and not has_cuda:
            raise InputError("--device cuda: this onnxruntime has no CUDA; install onnxruntime-gpu, or use cpu")
        cuda = has_cuda and device != "cpu"
        detector = self._session(DETECTOR, self.detector, threads, cuda)
        association = self._session(ASSOCIATION, self.association, threads, cuda)

        def detect(images: Tensor) -> Objects:
            size = images.shape[2], images.shape[3]
            if self.size is not None and self.size != size:
                made, found = (f"{height}x{width}" for height, width in (self.size, size))
                raise InputError(
                    f"{self.folder}: made for images of {made} in the network, these have {found}; give fdta export "
                    f"{self.run} --format onnx --size {found} --output FOLDER"
                )
            found_in = [detector.run(None, {"images": image[None].numpy()}) for image in images]
            return Objects(*(torch.from_numpy(np.concatenate(parts)) for parts in zip(*found_in, strict=True)))

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
                current_missing = torch.zeros(len(current_features), dtype=torch.bool)
            if current_time is None:
                current_time = torch.tensor(len(history_times))
            given = {
                "history_features": history_features,
                "history_missing": history_missing,
                "history_labels": history_labels,
                "history_times": history_times,
                "current_features": current_features,
                "current_missing": current_missing,
                "current_time": current_time,
            }
            (logits,) = association.run(None, {name: tensor.numpy() for name, tensor in given.items()})
            return torch.from_numpy(logits)

        scores: IDScores = id_scores
        return Networks(detect, scores, torch.device("cpu"), self.small)


def exported_tracker(folder: str | Path, device: str = "auto", threads: int | None = None) -> Tracker:
    """Tracker of a folder that `fdta export` wrote, run by onnxruntime; arguments as of `Exported.tracker`.

    Raises:
        InputError: as of `Exported.read` and `Exported.tracker`.
    """
    return Exported.read(Path(folder)).tracker(device, threads)


def is_exported(path: Path) -> bool:
    """Whether `path` is a folder with the settings of an exported tracker."""
    return (path / SETTINGS).is_file()


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def _network(path: Path, files: Any, described: Path) -> bytes:
    entry = files.get(path.name) if isinstance(files, dict) else None
    digest = entry.get("sha256") if isinstance(entry, dict) else None
    if not isinstance(digest, str):
        raise InputError(f"{described}: the sha256 of {path.name} is missing; export again")
    if not path.is_file():
        raise InputError(f"{path}: missing, or no file; export again")
    file = path.read_bytes()
    if _digest(file) != digest:
        raise InputError(f"{path}: changed since it was exported, its sha256 is another; export again")
    return file


def _digest(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()
