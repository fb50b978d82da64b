"""Object embeddings of a sequence in the plane (paper Fig. 7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fdta.data.motchallenge import read_split
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.plan import BASE, FULL
from fdta.names import Run
from fdta.report.figures.observed import cosines, read_tracked
from fdta.report.figures.style import Drawing, identity_style, new_figure, row_label, say_in

SEED = 0
PERPLEXITY = 30
FEWEST = 8
"""Embeddings below which there is nothing to lay out."""


def embeddings(params: Experiment, root: Path, datasets: tuple[str, ...]) -> Drawing:
    """t-SNE of the embeddings of base and full in the same sequence, coloured by ground-truth identity."""
    figure, axes = new_figure(6.4, 2, len(datasets))
    told = []
    for column, dataset in enumerate(datasets):
        sequence = read_split(root / "data" / dataset / params.dataset(dataset).test_split)[0]
        names = np.unique(sequence.ground_truth().identities)
        axes[0, column].set_title(f"{dataset}: {sequence.name}")
        values = []
        for row, variant in enumerate((BASE, FULL)):
            panel = axes[row, column]
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(True)
            if column == 0:
                row_label(panel, variant)
            tracked = read_tracked(root, Run(dataset, variant, params.benchmark.seeds[0]), sequence)
            followed = tracked.matches.identities >= 0
            points, identities = tracked.embeddings[followed], tracked.matches.identities[followed]
            if len(points) < FEWEST or len(np.unique(identities)) < 2:
                say_in(panel, f"{len(points)} tracked objects have an identity: too few")
                continue
            plane = _plane(points)
            for index, identity in enumerate(names):
                of_identity = identities == identity
                style = identity_style(index)
                panel.scatter(
                    *plane[of_identity].T, s=17, color=style["color"], marker=style["marker"], lw=0.3, edgecolor="white"
                )
            alike = _alike(points, identities)
            panel.set_xlabel(f"nearest point of the same identity: {alike:.0f} %", fontsize=8)
            values.append(f"{variant} {alike:.1f} %")
        told.append(f"`{dataset}` {', '.join(values) or 'too few objects'}")
    numbers = "; ".join(told)
    caption = (
        "t-SNE of the object embeddings of one sequence, the first of the test split (paper Fig. 7); a point is a"
        " tracked object in a frame, colour and marker tell its ground-truth identity. Tight clusters of one colour,"
        " apart from the others, are what association needs. Above base, below full, same sequence and seed. Share of"
        f" the points whose most similar other point has the same identity: {numbers}. Distances between clusters"
        " mean nothing in t-SNE."
    )
    alt = f"Scatter plots of embeddings coloured by identity. Same identity next: {numbers}.".replace("`", "")
    return Drawing(figure, "Embeddings by identity", caption, alt)


def _plane(points: np.ndarray) -> np.ndarray:
    """(n, 2) places of embeddings (n, d)."""
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise InputError("scikit-learn is not installed; pip install scikit-learn") from None
    units = points / np.linalg.norm(points, axis=1, keepdims=True).clip(min=1e-12)
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    # Between unit vectors, squared Euclidean distance is twice the cosine distance.
    return TSNE(perplexity=perplexity, init="pca", random_state=SEED, n_jobs=1).fit_transform(units.astype(np.float64))


def _alike(points: np.ndarray, identities: np.ndarray) -> float:
    """Share in per cent of `points` (n, d) whose most similar other point has the same of `identities` (n,)."""
    similarity = cosines(points)
    np.fill_diagonal(similarity, -np.inf)
    return 100 * float((identities[similarity.argmax(axis=1)] == identities).mean())
