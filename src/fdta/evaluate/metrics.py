"""One list of metrics: for the tables, the page, the figures, MLflow and the console."""

from __future__ import annotations

from dataclasses import dataclass

from fdta.experiment.paper import COMPARED


@dataclass(frozen=True)
class Metric:
    """What a number measures, and how it is printed."""

    name: str
    """In files: scores, paper.yaml, columns of CSV files."""
    label: str
    """In the title of a column."""
    unit: str
    decimals: int
    higher_is_better: bool = False
    """Whether a table marks the highest value of its column."""
    two_digits_below: float = 0.0
    """Smaller values are printed with two significant digits."""

    def text(self, value: float, sign: bool = False) -> str:
        """`value` as tables print it, with a proper minus; `sign`: with a plus too."""
        digits = "#.2g" if abs(value) < self.two_digits_below else f".{self.decimals}f"
        return f"{value:{'+' if sign else ''}{digits}}".replace("-", "−")  # noqa: RUF001


METRICS = {
    metric.name: metric
    for metric in (
        Metric("HOTA", "HOTA", "%", 1, higher_is_better=True),
        Metric("IDF1", "IDF1", "%", 1, higher_is_better=True),
        Metric("AssA", "AssA", "%", 1, higher_is_better=True),
        Metric("MOTA", "MOTA", "%", 1, higher_is_better=True),
        Metric("DetA", "DetA", "%", 1, higher_is_better=True),
        Metric("AP50", "AP50", "%", 1, higher_is_better=True),
        Metric("milliseconds", "ms", "ms", 2),
        Metric("percent", "%", "%", 1),
        Metric("history", "history", "frames", 0),
        Metric("hours_per_epoch", "h/epoch", "h", 1, two_digits_below=0.1),
        Metric("hours_paper", "hours paper", "h", 1),
        Metric("hours_here", "hours here", "h", 1, two_digits_below=10),
        Metric("gigabytes_paper", "GB paper", "GB", 1),
        Metric("gigabytes_here", "GB here", "GB", 1, two_digits_below=10),
        Metric("mebibytes", "peak memory (MiB)", "MiB", 0),
        Metric("mean", "mean", "", 3),
        Metric("minutes", "min", "min", 1, two_digits_below=0.1),
        Metric("seconds", "s", "s", 1),
        Metric("results", "results", "", 0),
        Metric("sequences", "sequences", "", 0),
        Metric("frames", "frames", "", 0),
    )
}
SCORES = tuple(METRICS[name] for name in COMPARED)
"""The scores that trackers are compared by, the main one first."""
HOTA = METRICS["HOTA"]
