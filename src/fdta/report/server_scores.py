"""Scores that an evaluation server returned, entered by hand in ``server-scores.yaml``."""

from __future__ import annotations

from pathlib import Path

from fdta.experiment.paper import COMPARED
from fdta.experiment.params import Experiment
from fdta.names import BASELINES, Run
from fdta.settings import ParamsError, named, read_settings, read_yaml, require, settings

FILE = "server-scores.yaml"


@settings
class ServerScores:
    """What the server said of one submission, in per cent."""

    HOTA: float
    IDF1: float
    AssA: float
    MOTA: float
    DetA: float
    submission: str | None = None
    """Digest of the zip, as `fdta submission` prints it; null: not noted."""

    def __post_init__(self) -> None:
        for name in COMPARED:
            require(getattr(self, name) <= 100, f"{name} is a percentage, not {getattr(self, name)}")


def read_server_scores(params: Experiment, root: Path) -> dict[Run, ServerScores]:
    """The entries of the benchmark's data sets in the file in `root`; none where there is no file.

    Raises:
        ParamsError: a name is no run of the benchmarks, the data set has ground truth for all splits, or a score is
            missing or wrong.
    """
    path = root / FILE
    if not path.is_file():
        return {}
    found = {}
    for name, value in read_yaml(path).items():
        try:
            run = Run.parse(name)
        except ParamsError as error:
            raise ParamsError(f"{path}: {error}") from None
        scores = read_settings(ServerScores, value, name, path)
        if run.dataset not in params.all_datasets:
            raise ParamsError(f"{path}: {name}: no such data set; there are {named(params.all_datasets)}")
        if run.variant not in (*params.variants, *BASELINES):
            raise ParamsError(f"{path}: {name}: no such variant; there are {named((*params.variants, *BASELINES))}")
        if run.dataset not in params.benchmark.datasets:
            continue
        if params.submission_split(run.dataset) is None:
            raise ParamsError(f"{path}: {name}: no server keeps ground truth of {run.dataset}; remove the entry")
        found[run] = scores
    return found
