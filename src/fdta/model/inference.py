"""A copy of a model that only infers: what is constant is computed beforehand, in the precision that is asked for."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdta.errors import InputError
from fdta.model.backbone import Block, FrozenBatchNorm
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.model.layers import Attention, Linear, one_dnn

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISE = ("reference_points", "class_heads", "box_heads")
"""Parts of the detector that stay in single precision: few numbers, and all of the boxes."""


def precision(name: str, device: torch.device) -> torch.dtype:
    """The numbers of `PRECISIONS` called `name`.

    Raises:
        InputError: no such numbers, or `device` is slow in them.
    """
    if name not in PRECISIONS:
        raise InputError(f"dtype: {name!r} is unknown; give one of {', '.join(PRECISIONS)}")
    if name == "float16" and device.type == "cpu":
        raise InputError("dtype: float16 is for CUDA; give float32 or bfloat16 on a CPU")
    return PRECISIONS[name]


def optimized(model: FDTA, dtype: torch.dtype = torch.float32) -> FDTA:
    """A copy of `model` for inference alone, on the same device; `model` is left as it is.

    Frozen batch norms, ReLUs and residual sums become part of the convolutions before them, whose weights lie with the
    channels last. With a lower precision, matrices and convolutions of the detector multiply in it, and the rest and
    the association stay in single precision.

    Args:
        model: any.
        dtype: torch.float32, torch.bfloat16 or torch.float16.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    _optimize(model.detector, dtype)
    return model


def optimized_detector(detector: DeformableDetector, dtype: torch.dtype = torch.float32) -> DeformableDetector:
    """As `optimized`, of the detector alone, and in its mode: dropout is that of training where it trains."""
    detector = copy.deepcopy(detector).requires_grad_(False)
    _optimize(detector, dtype)
    return detector


@torch.no_grad()
def _optimize(detector: DeformableDetector, dtype: torch.dtype) -> None:
    _fuse(detector)
    if dtype == torch.float32:
        return
    for name, part in detector.named_children():
        if name not in PRECISE:
            for module in part.modules():
                if isinstance(module, Linear | Attention | FusedConvolution):
                    module.to(dtype)


class FusedConvolution(nn.Module):
    """Convolution, the frozen batch norm after it if any, the sum with a shortcut if any, and ReLU if wanted."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight = convolution.weight
        bias = convolution.bias if convolution.bias is not None else weight.new_zeros(len(weight))
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weight.to(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.stride: list[int] = list(convolution.stride)
        self.padding: list[int] = [int(side) for side in convolution.padding]
        self.relu = False

    def normalize(self, norm: FrozenBatchNorm) -> None:
        """Let `norm` follow the convolution."""
        scale, shift = norm.affine()
        self.weight, self.bias = self.weight * scale[:, None, None, None], self.bias * scale + shift

    def forward(self, features: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and a shortcut of the output's shape -> the output."""
        features = features.to(self.weight.dtype, memory_format=torch.channels_last)
        if not one_dnn(features):
            output = F.conv2d(features, self.weight, self.bias, self.stride, self.padding)
            output = output if shortcut is None else output.add_(shortcut)
            return output.relu_() if self.relu else output
        activation = "relu" if self.relu else "none"
        geometry = self.padding, self.stride, [1, 1], 1
        if shortcut is None:
            return torch.ops.mkldnn._convolution_pointwise(
                features, self.weight, self.bias, *geometry, activation, [], ""
            )
        return torch.ops.mkldnn._convolution_pointwise.binary(
            features, shortcut, self.weight, self.bias, *geometry, "add", 1.0, activation, [], ""
        )


class FusedBlock(nn.Module):
    """A residual block of fused convolutions; input and output as of `Block`."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        branch: list[Any] = _fused(block.branch)
        branch[-1].relu = True
        self.branch = nn.ModuleList(branch)
        self.shortcut: nn.Module = nn.Identity()
        if isinstance(block.shortcut, nn.Sequential):
            (self.shortcut,) = _fused(block.shortcut)

    def forward(self, features: Tensor) -> Tensor:
        *first, last = self.branch
        branch = features
        for convolution in first:
            branch = convolution(branch)
        return last(branch, self.shortcut(features))


def _fuse(module: nn.Module) -> None:
    """Replace what can be fused anywhere in `module`."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            setattr(module, name, nn.Sequential(*_fused(child)))
        elif isinstance(child, Block) and any(isinstance(part, FrozenBatchNorm) for part in child.branch):
            setattr(module, name, FusedBlock(child))
            continue
        elif isinstance(child, nn.Conv2d):
            setattr(module, name, FusedConvolution(child))
            continue
        _fuse(getattr(module, name))


def _fused(layers: nn.Sequential) -> list[nn.Module]:
    """`layers` with each convolution joined by the frozen batch norm and the ReLU that follow it."""
    fused: list[nn.Module] = []
    for layer in layers:
        last = fused[-1] if fused else None
        if isinstance(layer, nn.Conv2d):
            fused.append(FusedConvolution(layer))
        elif isinstance(layer, FrozenBatchNorm) and isinstance(last, FusedConvolution):
            last.normalize(layer)
        elif isinstance(layer, nn.ReLU) and isinstance(last, FusedConvolution):
            last.relu = True
        else:
            fused.append(layer)
    return fused
