"""A trained run as an MLflow model: ``mlflow.pyfunc.load_model(uri).predict(frames)``.

The model is our checkpoint and the name of this module, which reads it (``weights_only``); no pickled Python objects.
Whoever loads it needs this package.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fdta
from fdta.boxes import xyxy_to_xywh
from fdta.files import link_or_copy

if TYPE_CHECKING:
    import pandas

COLUMNS = {"frame": "long", "identity": "long", "left": "double", "top": "double", "width": "double"}
COLUMNS |= {"height": "double", "score": "float"}
"""What `TrackingModel.predict` returns, with MLflow's types: MOTChallenge's first seven columns."""


class TrackingModel:
    """What MLflow loads."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._tracker: fdta.Tracker | None = None
        self._device = ""

    def predict(self, frames: np.ndarray, params: dict[str, Any] | None = None) -> pandas.DataFrame:
        """Tracks of one video; the next call is the next video.

        Args:
            frames: (frames, height, width, 3) uint8.
            params: ``channels``, "RGB" unless "BGR"; ``device``, "cpu", "cuda" or "auto".

        Returns:
            `COLUMNS`, a row an object and frame; frames and identities count from 1, boxes are in pixels of the image
            and (0, 0) is its top left corner.

        Raises:
            InputError: the frames are of another kind, or the checkpoint cannot track.
        """
        import pandas

        chosen = {"channels": "RGB", "device": "auto"} | (params or {})
        tracker = self.get_raw_model(chosen["device"])
        tracker.reset()
        rows = []
        for number, frame in enumerate(frames, start=1):
            found = tracker.update(frame, chosen["channels"])
            boxes_xywh = xyxy_to_xywh(found.boxes_xyxy)
            columns = np.full(len(found), number), found.identities + 1, *boxes_xywh.T, found.scores
            rows.append(pandas.DataFrame(dict(zip(COLUMNS, columns, strict=True))))
        if not rows:
            rows = [pandas.DataFrame({name: [] for name in COLUMNS})]
        types = {
            name: {"long": "int64", "double": "float64", "float": "float32"}[kind] for name, kind in COLUMNS.items()
        }
        return pandas.concat(rows, ignore_index=True).astype(types)

    def get_raw_model(self, device: str = "auto") -> fdta.Tracker:
        """The `fdta.Tracker` itself, for videos that arrive frame by frame.

        Raises:
            InputError: the checkpoint cannot track.
        """
        if self._tracker is None or device != self._device:
            self._tracker, self._device = fdta.Tracker.from_checkpoint(self._checkpoint, device), device
        return self._tracker


def _load_pyfunc(path: str) -> TrackingModel:
    """MLflow calls this with the path of the checkpoint."""
    model = TrackingModel(Path(path))
    model.get_raw_model()
    return model


def write_model(folder: Path, checkpoint: Path, model_id: str, run_id: str) -> None:
    """Write the MLflow model of `checkpoint` into `folder`, which is made; the checkpoint is linked, not copied.

    Args:
        folder: on the file system of `checkpoint`, if it is to be linked.
        checkpoint: of a run, not of a detector.
        model_id: MLflow's id of the model.
        run_id: MLflow's id of the run.
    """
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    frames = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))
    columns = [ColSpec(kind, name) for name, kind in COLUMNS.items()]
    params = [ParamSpec("channels", "string", "RGB"), ParamSpec("device", "string", "auto")]
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in ("torch", "numpy")}
    requirements = [f"fdta=={fdta.__version__}", *(f"{name}=={version}" for name, version in versions.items())]
    with warnings.catch_warnings(action="ignore"):  # It wants an input example, which would be a video.
        mlflow.pyfunc.save_model(
            folder,
            loader_module=__name__,
            data_path=str(checkpoint),
            mlflow_model=Model(model_id=model_id, run_id=run_id),
            signature=ModelSignature(Schema([frames]), Schema([*columns]), ParamSchema(params)),
            pip_requirements=requirements,
        )
    link_or_copy(checkpoint, folder / "data" / checkpoint.name)
