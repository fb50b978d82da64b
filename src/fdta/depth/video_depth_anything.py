"""Video Depth Anything: inverse depth that is consistent over a clip (docs/model.md, Pseudo depth and depth bins).

A DINOv2 transformer sees every frame alone; a DPT head fuses four of its layers from coarse to fine, and four temporal
modules in the head let each position attend to itself in the other frames. Parameters have the published names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdta.errors import InputError

PATCH = 14
"""Side of a patch in pixels; both sides of an input image are multiples of it."""
WINDOW = 32
"""Most frames of one clip: the length of the temporal position tables."""
Size = Literal["small", "base", "large"]

_POSITIONS = 37
"""Patches along each side of the image that the learned positions belong to."""
_CHUNK = 4
"""Frames at once through the finest part of the head; bounds memory and changes no number."""


@dataclass(frozen=True)
class _Variant:
    """What tells the published sizes apart."""

    width: int
    layers: int
    heads: int
    taken: tuple[int, ...]
    """Layers whose output the head reads."""
    head_width: int
    head_channels: tuple[int, int, int, int]
    file: str
    repository: str
    licence: str


VARIANTS: dict[Size, _Variant] = {
    "small": _Variant(
        *(384, 12, 6, (2, 5, 8, 11), 64, (48, 96, 192, 384)),
        *("video_depth_anything_vits.pth", "depth-anything/Video-Depth-Anything-Small", "Apache-2.0"),
    ),
    "base": _Variant(
        *(768, 12, 12, (2, 5, 8, 11), 128, (96, 192, 384, 768)),
        *("video_depth_anything_vitb.pth", "depth-anything/Video-Depth-Anything-Base", "CC BY-NC 4.0"),
    ),
    "large": _Variant(
        *(1024, 24, 16, (4, 11, 17, 23), 256, (256, 512, 1024, 1024)),
        *("video_depth_anything_vitl.pth", "depth-anything/Video-Depth-Anything-Large", "CC BY-NC 4.0"),
    ),
}


class VideoDepthAnything(nn.Module):
    """The whole network of one published size."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        variant = VARIANTS[size]
        self.pretrained = _VisionTransformer(variant)
        self.head = _TemporalHead(variant)

    def forward(self, clip: Tensor) -> Tensor:
        """Inverse depth (B, T, H, W), not negative, of normalized clips (B, T, 3, H, W).

        H and W are multiples of `PATCH`, T is at most `WINDOW`.
        """
        batch, frames, _, height, width = clip.shape
        layers = self.pretrained(clip.flatten(0, 1))
        return self.head(layers, (height // PATCH, width // PATCH), frames).view(batch, frames, height, width)


def check_weights(weights: Path | None, size: Size) -> Path:
    """`weights`, where there is such a file.

    Raises:
        InputError: there is none; tells where to get it and under which licence.
    """
    if weights is None or not weights.is_file():
        where = "teacher_weights: not set" if weights is None else f"{weights}: no such file"
        raise InputError(f"{where}; {_remedy(size)} and name it in teacher_weights or --weights")
    return weights


def load_video_depth_anything(weights: Path | None, size: Size, device: torch.device) -> VideoDepthAnything:
    """Network of `size` with the published weights, ready for inference.

    Raises:
        InputError: no such file, or it is no checkpoint of this size.
    """
    weights = check_weights(weights, size)
    wrong = f"{weights}: no checkpoint of Video Depth Anything, size {size}"
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception:  # what is raised depends on the byte at which the file breaks
        raise InputError(f"{wrong} (broken, or it wants to run code); {_remedy(size)}") from None
    with torch.device("meta"):
        network = VideoDepthAnything(size)
    expected = {name: value.shape for name, value in network.state_dict().items()}
    tensors = state.items() if isinstance(state, dict) else ()
    found = {name: value.shape for name, value in tensors if isinstance(value, Tensor)}
    if found != expected:
        differing = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        raise InputError(f"{wrong} ({differing[0]} differs); choose another teacher_size, or {_remedy(size)}")
    network.load_state_dict(state, assign=True)
    return network.float().to(device).eval().requires_grad_(False)


def _remedy(size: Size) -> str:
    variant = VARIANTS[size]
    return f"get {variant.file} from huggingface.co/{variant.repository} (licence {variant.licence})"


class _VisionTransformer(nn.Module):
    """DINOv2 without registers; gives the patch tokens of the taken layers."""

    def __init__(self, variant: _Variant) -> None:
        super().__init__()
        width = variant.width
        self.taken = variant.taken
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, _POSITIONS**2 + 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of its pre-training; the checkpoints carry it
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(_Block(width, variant.heads) for _ in range(variant.layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalized tokens (N, h w, d) of each taken layer, for images (N, 3, 14 h, 14 w)."""
        patches = self.patch_embed["proj"](images)
        tokens = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self._positions(*patches.shape[2:])
        layers = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taken:
                layers.append(self.norm(x)[:, 1:])
        return layers

    def _positions(self, rows: int, columns: int) -> Tensor:
        if (rows, columns) == (_POSITIONS, _POSITIONS):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (_POSITIONS, _POSITIONS)).permute(0, 3, 1, 2)
        # DINOv2 was trained with a tenth of a patch too much in the scale: sampling points follow the scale, not the
        # size, so they must be given.
        scale = ((rows + 0.1) / _POSITIONS, (columns + 0.1) / _POSITIONS)
        resized = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    """Pre-norm transformer layer whose branches are scaled by channel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.ls1 = _Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls2 = _Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.attn["qkv"](self.norm1(x)).chunk(3, dim=-1)
        x = x + self.ls1(self.attn["proj"](_attend(queries, keys, values, self.heads)))
        return x + self.ls2(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))


class _TemporalHead(nn.Module):
    """DPT head with temporal modules on the two coarsest maps and after the first two fusions."""

    def __init__(self, variant: _Variant) -> None:
        super().__init__()
        channels, width = variant.head_channels, variant.head_width
        self.projects = nn.ModuleList(nn.Conv2d(variant.width, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, 4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, 2, 1),
            ]
        )
        self.motion_modules = nn.ModuleList(
            nn.ModuleDict({"temporal_transformer": _TemporalModule(w)}) for w in (*channels[2:], width, width)
        )
        parts: dict[str, nn.Module] = {}
        for level, c in enumerate(channels, start=1):
            parts[f"layer{level}_rn"] = nn.Conv2d(c, width, 3, 1, 1, bias=False)
            parts[f"refinenet{level}"] = _Fusion(width)
        parts["output_conv1"] = nn.Conv2d(width, width // 2, 3, 1, 1)
        parts["output_conv2"] = nn.Sequential(
            nn.Conv2d(width // 2, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.ReLU()
        )
        self.scratch = nn.ModuleDict(parts)

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int], frames: int) -> Tensor:
        """Inverse depth (B T, 1, 14 h, 14 w) of tokens (B T, h w, d), `grid` = (h, w), `frames` = T."""
        maps = []
        for tokens, project, resize in zip(layers, self.projects, self.resize_layers, strict=True):
            maps.append(resize(project(tokens.transpose(1, 2).unflatten(2, grid))))
        motion: Any = self.motion_modules
        over_time = [module["temporal_transformer"] for module in motion]
        maps[2], maps[3] = over_time[0](maps[2], frames), over_time[1](maps[3], frames)
        first, second, third, fourth = (self.scratch[f"layer{i}_rn"](x) for i, x in enumerate(maps, start=1))
        fused = over_time[2](self.scratch["refinenet4"](fourth, None, third.shape[2:]), frames)
        fused = over_time[3](self.scratch["refinenet3"](fused, third, second.shape[2:]), frames)
        chunks = zip(fused.split(_CHUNK), first.split(_CHUNK), second.split(_CHUNK), strict=True)
        return torch.cat([self._finest(*chunk, grid) for chunk in chunks])

    def _finest(self, fused: Tensor, first: Tensor, second: Tensor, grid: tuple[int, int]) -> Tensor:
        rows, columns = first.shape[2:]
        fused = self.scratch["refinenet2"](fused, second, (rows, columns))
        fused = self.scratch["refinenet1"](fused, first, (2 * rows, 2 * columns))
        fused = _resize(self.scratch["output_conv1"](fused), (PATCH * grid[0], PATCH * grid[1]))
        with torch.autocast(fused.device.type, enabled=False):
            return self.scratch["output_conv2"](fused.float())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class _Fusion(nn.Module):
    """Add the finer map, refine, resize. The coarsest level has no finer map, though its checkpoint has the weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resConfUnit1 = _Residual(width)
        self.resConfUnit2 = _Residual(width)
        self.out_conv = nn.Conv2d(width, width, 1)

    def forward(self, coarse: Tensor, fine: Tensor | None, size: Sequence[int]) -> Tensor:
        x = coarse if fine is None else coarse + self.resConfUnit1(fine)
        return self.out_conv(_resize(self.resConfUnit2(x), size))


class _TemporalModule(nn.Module):
    """Transformer layer over the frames of each position, added to the map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([_TemporalBlock(width)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, maps: Tensor, frames: int) -> Tensor:
        """Maps (B T, C, h, w) -> the same."""
        height, width = maps.shape[2:]
        # (B T, C, h, w) -> (B h w, T, C)
        x = self.norm(maps).unflatten(0, (-1, frames)).permute(0, 3, 4, 1, 2).flatten(0, 2)
        x = self.proj_in(x)
        for block in self.transformer_blocks:
            x = block(x)
        x = self.proj_out(x).unflatten(0, (-1, height, width))
        return maps + x.permute(0, 3, 4, 1, 2).flatten(0, 1)


class _TemporalBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(_TemporalAttention(width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.ff = nn.ModuleDict({"net": nn.Sequential(_GatedGELU(width), nn.Identity(), nn.Linear(4 * width, width))})
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            x = x + attention(norm(x))
        return x + self.ff["net"](self.ff_norm(x))


class _TemporalAttention(nn.Module):
    """Self-attention of 8 heads with the sine position of the frame in queries, keys and values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))
        self.pos_encoder = _Positions(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_encoder(x)
        return self.to_out(_attend(self.to_q(x), self.to_k(x), self.to_v(x), heads=8))


class _Positions(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        angles = torch.arange(WINDOW)[:, None] * rates
        self.pe: Tensor
        self.register_buffer("pe", torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]]


class _GatedGELU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Multi-head attention within tokens (N, L, d)."""
    split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values)]
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)
