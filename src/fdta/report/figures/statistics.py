"""Fig. 1 (similarity between objects) and the curves of the trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fdta.errors import InputError
from fdta.evaluate.metrics import HOTA, METRICS, Metric
from fdta.evaluate.similarity import HIGH
from fdta.experiment.params import Experiment
from fdta.experiment.plan import BASE, FULL, history_path, similarity_path
from fdta.names import DETECTOR, Run
from fdta.report.figures.style import DASHES, ERROR, MODELS, PALE, Drawing, listed, new_figure, say_in
from fdta.report.results import Epoch, Similarity, StepRecord, read_history
from fdta.settings import read_json

NAMES = {DETECTOR: "detector alone", BASE: "base (no adapters)", FULL: "full (SA + TA + IA)"}
STEPS = 40
"""Points of a loss curve; each is the mean of the steps around it."""


def similarity(params: Experiment, root: Path, datasets: tuple[str, ...]) -> Drawing:
    """Histograms of the cosine similarity between objects of one frame: detector, base and full (paper Fig. 1)."""
    figure, axes = new_figure(5.0, 3, len(datasets), sharex=True, sharey=True)
    lowest = 0.0
    shares: dict[str, list[str]] = {dataset: [] for dataset in datasets}
    for column, dataset in enumerate(datasets):
        axes[0, column].set_title(dataset, fontweight="bold")
        axes[-1, column].set_xlabel("cosine similarity")
        for row, (variant, name) in enumerate(NAMES.items()):
            panel = axes[row, column]
            run = Run(dataset, variant, _seed(params, variant))
            path = similarity_path(params, root, run)
            found = read_json(Similarity, path)
            if found is None:
                raise InputError(f"{path}: no such file; make it with `snakemake --cores all {path}`")
            if column == 0:
                panel.set_ylabel(f"{name}\nshare of pairs, %")
            if found.mean is None or found.high is None:
                say_in(panel, "no frame has two detections")
                shares[dataset].append("no pair")
                continue
            edges = np.array(found.histogram["edges"])
            percent = 100 * np.array(found.histogram["counts"]) / found.pairs
            lowest = min(lowest, edges[np.flatnonzero(percent >= 0.05)[0]])
            high = 100 * found.high
            colours = np.where(edges[:-1] >= HIGH - 1e-9, ERROR, MODELS[variant])
            panel.bar(edges[:-1], percent, np.diff(edges), align="edge", color=colours, edgecolor="white", lw=0.3)
            panel.axvline(HIGH, color=ERROR, lw=0.9, ls=":")
            panel.axvline(found.mean, color="#222222", lw=0.9)
            panel.text(0.03, 0.93, f"above {HIGH}: {high:.1f} %", color=ERROR, va="top", transform=panel.transAxes)
            text = f"mean {found.mean:.2f}\n{found.pairs:,} pairs"
            panel.text(0.03, 0.8, text, va="top", transform=panel.transAxes)
            shares[dataset].append(f"{high:.1f} %")
    axes[0, 0].set(xlim=(lowest, 1), xticks=np.arange(np.ceil(2 * lowest), 3) / 2)
    told = "; ".join(f"`{dataset}` {', '.join(values)}" for dataset, values in shares.items())
    caption = (
        "How alike the object embeddings of one frame are (paper Fig. 1): cosine similarity over all pairs of"
        " detections of a frame above the tracker's threshold, test split. Orange-red: pairs above 0.9, where the paper"
        " finds over 80 % of those of existing end-to-end methods; black line: mean. Share above 0.9 for the detector"
        f" alone, base and full: {told}. An adapter that separates objects moves the histogram to the left."
    )
    alt = f"Histograms of cosine similarity, three models by {len(datasets)} data sets. Shares above 0.9: {told}."
    return Drawing(figure, "Similarity between objects", caption, alt.replace("`", ""))


def training(params: Experiment, root: Path, datasets: tuple[str, ...]) -> Drawing:
    """Losses and validation scores of the detector, base and full."""
    figure, axes = new_figure(5.6, 3, len(datasets), sharey="row")
    told, ap50 = [], METRICS["AP50"]
    for column, dataset in enumerate(datasets):
        loss, score, detection = axes[:, column]
        loss.set_title(dataset, fontweight="bold")
        for variant in (BASE, FULL):
            seed = _seed(params, variant)
            path = history_path(root, Run(dataset, variant, seed))
            history = read_history(path)
            style = {"color": MODELS[variant], "linestyle": DASHES[variant], "label": variant}
            epochs, values = _curve(path, history, "association")
            loss.plot(epochs, values, **style)
            epochs, values = _validation(history, HOTA)
            score.plot(epochs, values, marker="o", ms=3.5, **style)
            if len(values):
                told.append(f"`{dataset}/{variant}` {HOTA.text(values[-1])}")
        path = history_path(root, Run(dataset, DETECTOR))
        history = read_history(path)
        style = {"color": MODELS[DETECTOR], "linestyle": "-"}
        detection.plot(*_curve(path, history, "total"), label="loss", **style)
        epochs, values = _validation(history, ap50)
        if len(values):
            beside = detection.twinx()
            beside.plot(epochs, values, color="#009e73", marker="s", ms=3.5, label=ap50.label)
            beside.set_ylim(0, 100)
            beside.spines["right"].set_visible(True)
            if column == len(datasets) - 1:
                beside.set_ylabel(f"{ap50.label}, {ap50.unit}", color="#009e73")
            else:
                beside.tick_params(labelright=False)
        score.set(ylim=(0, 100))
        for panel in axes[:, column]:
            panel.grid(axis="y", color=PALE, lw=0.6)
            panel.set_xlim(left=0)
            panel.xaxis.get_major_locator().set_params(integer=True)
        detection.set_xlabel("epoch")
    axes[0, 0].set_ylabel("association loss")
    axes[1, 0].set_ylabel(f"validation {HOTA.label}, {HOTA.unit}")
    axes[2, 0].set_ylabel("detector: loss")
    axes[0, 0].set_ylim(bottom=0)
    axes[2, 0].set_ylim(bottom=0)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    ended = f" Last validation HOTA: {listed(told)}." if told else ""
    caption = (
        "Training curves. Top: the association loss of base and full, which both have alike (mean over neighbouring"
        " steps). Middle: HOTA on the first sequences of the validation split, which is not the score of the tables."
        " Bottom: the detector that both start from, its loss (grey) and AP50 on the validation split (green squares)."
        f"{ended}"
    )
    alt = f"Curves of losses falling and validation scores over the epochs.{ended}".replace("`", "")
    return Drawing(figure, "Training", caption, alt)


def _seed(params: Experiment, variant: str) -> int:
    return 0 if variant == DETECTOR else params.benchmark.seeds[0]


def _curve(path: Path, history: list[StepRecord | Epoch], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (n,) and means (n,) of the loss `name` in the `history` of `path`, n at most `STEPS`."""
    steps = [record for record in history if isinstance(record, StepRecord) and name in record.losses]
    if not steps:
        raise InputError(f"{path}: no step with the loss {name!r}; train the run first")
    values = np.array([step.losses[name] for step in steps])
    # Steps of a half-finished epoch count as a share of the longest.
    by_epoch = np.bincount([step.epoch for step in steps]).max()
    epochs = np.arange(1, len(values) + 1) / by_epoch
    groups = min(STEPS, len(values))
    first, second = (np.array([part.mean() for part in np.array_split(array, groups)]) for array in (epochs, values))
    return first, second


def _validation(history: list[StepRecord | Epoch], metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (n,), counted from 1, and values (n,) of the validation score `metric`."""
    ends = [record for record in history if isinstance(record, Epoch) and metric.name in record.scores]
    return np.array([end.epoch + 1.0 for end in ends]), np.array([end.scores[metric.name] for end in ends])
