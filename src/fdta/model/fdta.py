"""The whole model: detector, adapters and association (paper Fig. 3)."""

from __future__ import annotations

from torch import Tensor, nn

from fdta.model.association import IDDecoder, TrajectoryFeatures
from fdta.model.detector import DeformableDetector
from fdta.model.identity_adapter import IdentityAdapter
from fdta.model.settings import ModelSettings
from fdta.model.temporal_adapter import TemporalAdapter


class FDTA(nn.Module):
    """Detector with its Spatial Adapter, Temporal Adapter, trajectory features, ID decoder and Identity Adapter.

    `temporal_adapter` is None where the settings switch it off; so is `identity_adapter`, and also where the
    contrastive loss reads the object embeddings themselves (Tab. 7).
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.detector.width
        self.detector = DeformableDetector(settings.backbone, settings.detector, settings.spatial)
        self.temporal_adapter = TemporalAdapter(width, settings.temporal) if settings.temporal.enabled else None
        self.trajectory_features = TrajectoryFeatures(width, settings.association.feedforward_ratio)
        self.id_decoder = IDDecoder(width, settings.history, settings.association)
        extracts = settings.identity.enabled and settings.identity.feature_extractor
        self.identity_adapter = IdentityAdapter(width) if extracts else None

    def trajectories(self, features: Tensor, missing: Tensor, times: Tensor) -> Tensor:
        """History features from object embeddings: Temporal Adapter, if any, and trajectory feed-forwards.

        Args:
            features: (..., T, N, d) object embeddings.
            missing: (..., T, N) bool, True where the object is absent.
            times: (T,) or (..., T, N) long, frame index counted from 0 at the first frame of the window.

        Returns:
            (..., T, N, d); rows of missing frames mean nothing.
        """
        if self.temporal_adapter is not None:
            features = self.temporal_adapter(features, missing, times)
        return self.trajectory_features(features)

    def id_logits(
        self,
        history_embeddings: Tensor,
        history_missing: Tensor,
        history_labels: Tensor,
        history_times: Tensor,
        current_embeddings: Tensor,
        current_missing: Tensor,
        current_times: Tensor,
    ) -> Tensor:
        """ID label logits (B, G, S, M, K + 1) from object embeddings; arguments as of `IDDecoder.forward`, except
        that the history (B, G, T, N, d) is raw and goes through `trajectories` first."""
        features = self.trajectories(history_embeddings, history_missing, history_times)
        return self.id_decoder(
            features,
            history_missing,
            history_labels,
            history_times,
            current_embeddings,
            current_missing,
            current_times,
        )
