"""AdamW with the paper's parameter groups and schedule (docs/model.md, Training)."""

from __future__ import annotations

import math

import torch
from torch import nn

from fdta.train.settings import TrainingSettings


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`, a detector or a whole FDTA, in groups by learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_rate_scale(name, settings), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, "lr": settings.learning_rate * scale} for scale, parameters in groups.items()],
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _rate_scale(name: str, settings: TrainingSettings) -> float:
    if "backbone" in name:
        return settings.backbone_scale
    if "sampling_offsets" in name or "reference_points" in name:
        return settings.projection_scale
    if name.startswith("detector."):
        return 1.0
    return settings.head_scale


def rate_factor(step: int, steps_per_epoch: int, settings: TrainingSettings) -> float:
    """Factor of the learning rates at `step` (from 0): linear warm-up, then milestones or a cosine."""
    warmup = max(1.0, settings.warmup_epochs * steps_per_epoch)
    factor = min(1.0, (step + 1) / warmup)
    if settings.schedule == "steps":
        return factor * 0.1 ** sum(step >= milestone * steps_per_epoch for milestone in settings.milestones)
    first = (settings.milestones[0] if settings.milestones else 0) * steps_per_epoch
    total = settings.epochs * steps_per_epoch
    progress = max(0.0, (step - first) / max(1, total - first))
    return factor * 0.5 * (1 + math.cos(math.pi * progress))


def clip_gradients(model: nn.Module, settings: TrainingSettings) -> bool:
    """Clip the gradient norm of the detector and of the rest apart, and leave that of the Identity Adapter as it is.

    See docs/model.md, Training.

    Returns:
        Whether all gradients are finite. If not, the step must not be taken.
    """
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            top = name.partition(".")[0]
            parts.setdefault(top if top in ("detector", "identity_adapter") else "rest", []).append(parameter)
    norms = [parameter.grad.norm() for parameter in parts.pop("identity_adapter", []) if parameter.grad is not None]
    norms += [nn.utils.clip_grad_norm_(part, settings.clip_norm, foreach=True) for part in parts.values()]
    return bool(torch.stack(norms).isfinite().all())
