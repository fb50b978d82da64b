"""ResNet with features at strides 8, 16 and 32 (docs/model.md, Detector)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdta.model.layers import GroupNorm, linear
from fdta.model.settings import BackboneSettings

Norm = Callable[[int], nn.Module]


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine parameters are constants. (B, width, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("weight", torch.ones(width))
        self.register_buffer("bias", torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, (width,) each."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, features: Tensor) -> Tensor:
        scale, shift = self.affine()
        return features * scale[:, None, None] + shift[:, None, None]


def group_norm(width: int) -> GroupNorm:
    """Group norm of at most 8 groups, a number that divides `width`."""
    return GroupNorm(math.gcd(width, 8), width)


class Block(nn.Module):
    """Residual block: 1x1, 3x3 and 1x1 convolution (bottleneck) or two 3x3 convolutions (basic), plus a shortcut."""

    def __init__(self, kind: str, width_in: int, width: int, width_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        # (width, kernel size, stride) of each convolution; a bottleneck's 3x3 carries the stride.
        convolutions = [(width, 3, stride), (width_out, 3, 1)]
        if kind == "bottleneck":
            convolutions = [(width, 1, 1), (width, 3, stride), (width_out, 1, 1)]
        layers: list[nn.Module] = []
        before = width_in
        for after, kernel, step in convolutions:
            layers += [nn.Conv2d(before, after, kernel, step, padding=kernel // 2, bias=False), norm(after), nn.ReLU()]
            before = after
        self.branch: nn.Sequential = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Sequential | nn.Identity = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), norm(width_out))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, width_in, H, W) -> (B, width_out, ceil(H / stride), ceil(W / stride))."""
        layers = list(self.branch)
        *first, last = zip(layers[::3], layers[1::3], strict=True)
        branch = features
        for convolution, norm in first:
            branch = convolve(branch, convolution, norm).relu()
        shortcut = convolve(features, *self.shortcut) if isinstance(self.shortcut, nn.Sequential) else features
        return (convolve(branch, *last) + shortcut).relu_()


def convolve(features: Tensor, convolution: nn.Module, norm: nn.Module) -> Tensor:
    """`norm` of `convolution` of `features`; a frozen norm scales the kernels instead, which have fewer numbers."""
    if not isinstance(convolution, nn.Conv2d):
        return norm(convolution(features))
    weight, bias = convolution.weight, None
    if isinstance(norm, FrozenBatchNorm):
        scale, bias = norm.affine()
        weight = weight * scale[:, None, None, None]
    if convolution.kernel_size == (1, 1):
        step, _ = convolution.stride
        tokens = features[:, :, ::step, ::step].permute(0, 2, 3, 1)
        output = linear(tokens, weight.flatten(1), bias).permute(0, 3, 1, 2)
    else:
        output = F.conv2d(features, weight, bias, convolution.stride, convolution.padding)
    return norm(output) if bias is None else output


class ResNet(nn.Module):
    """Stem (7x7 convolution and max pool, stride 4) and four stages at strides 4, 8, 16, 32.

    Attributes:
        widths: channels of the three features that `forward` gives.
    """

    def __init__(self, settings: BackboneSettings) -> None:
        super().__init__()
        expansion = 4 if settings.block == "bottleneck" else 1
        norm = group_norm if settings.norm == "group" else FrozenBatchNorm
        self.stem = nn.Sequential(
            nn.Conv2d(3, settings.stem_width, 7, 2, padding=3, bias=False),
            norm(settings.stem_width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        )
        self.stages = nn.ModuleList()
        width_in = settings.stem_width
        for stage, (width, blocks) in enumerate(zip(settings.widths, settings.blocks, strict=True)):
            layers = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(Block(settings.block, width_in, width, width * expansion, stride, norm))
                width_in = width * expansion
            self.stages.append(nn.Sequential(*layers))
        self.widths = [width * expansion for width in settings.widths[1:]]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in [self.stem, *self.stages][: settings.frozen_stages]:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> features (B, width, ceil(H/s), ceil(W/s)) at strides s = 8, 16, 32."""
        features = self.stem(images.contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps[1:]
