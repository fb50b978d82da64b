"""The paper's figures from what the runs left: a PNG and, beside it as .json, its title, caption and alt text.

The same files give the same bytes on the same machine. Where a run leaves nothing to show, the figure says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fdta.experiment.params import Experiment
from fdta.experiment.plan import figure_datasets
from fdta.report.figures import depth, embeddings, interactions, statistics, tracks
from fdta.report.figures.style import Drawing, styled, write_drawing
from fdta.settings import ParamsError

DRAWERS: dict[str, Callable[[Experiment, Path, tuple[str, ...]], Drawing]] = {
    "similarity": statistics.similarity,
    "depth": depth.depth,
    "tracks": tracks.tracks,
    "embeddings": embeddings.embeddings,
    "depth-attention": depth.depth_attention,
    "interactions": interactions.interactions,
    "training": statistics.training,
}


def draw(name: str, params: Experiment, root: Path, datasets: tuple[str, ...], output: Path) -> None:
    """Draw figure `name` (one of `fdta.experiment.plan.FIGURES`) of `datasets` to `output`, a .png or .webp file.

    Raises:
        ParamsError: a data set has no runs of `base` and `full`.
        InputError: a file that the figure is made from is missing or malformed.
    """
    possible = figure_datasets(params)
    for dataset in datasets if name == "training" else ():
        if params.dataset(dataset).weights:
            raise ParamsError(
                f"data set {dataset!r}: its models are published checkpoints, which have no training curves"
            )
    for dataset in datasets:
        if dataset not in possible:
            raise ParamsError(
                f"data set {dataset!r}: no table of benchmark {params.benchmark.name!r} has base and full on it; "
                f"choose among {', '.join(possible) or 'none'}"
            )
    with styled():
        write_drawing(DRAWERS[name](params, Path(root), datasets), Path(output))
