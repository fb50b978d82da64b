"""FDTA: from detection to association, multi-object tracking with discriminative object embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fdta.track.exported import exported_tracker
    from fdta.track.pipeline import Tracker

__all__ = ["Tracker", "__version__", "exported_tracker"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch takes seconds to load: only whoever tracks waits for it.
    if name == "Tracker":
        from fdta.track.pipeline import Tracker

        return Tracker
    if name == "exported_tracker":
        from fdta.track.exported import exported_tracker

        return exported_tracker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
