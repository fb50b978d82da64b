"""FDTA: from detection to association, multi-object tracking with discriminative object embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fdta.track.pipeline import Tracker

__all__ = ["Tracker", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch takes seconds to load: only whoever tracks waits for it.
    if name == "Tracker":
        from fdta.track.pipeline import Tracker

        return Tracker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
