"""FDTA: from detection to association, multi-object tracking with discriminative object embeddings."""

__version__ = "0.1.0"
