"""Deformable DETR with iterative box refinement and depth attention.

See docs/model.md, Detector, and docs/model.md, Spatial Adapter.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdta.model.backbone import ResNet
from fdta.model.deformable_attention import DeformableAttention, Shapes, kept
from fdta.model.layers import Attention, GroupNorm, Linear, recorded
from fdta.model.settings import BackboneSettings, DetectorSettings, SpatialSettings
from fdta.model.spatial_adapter import SpatialAdapter

DEPTH_PARTS = ("spatial_adapter", "depth_attention", "depth_norm")
"""Parts of the names of the tensors that a detector without depth does not have."""
PIECE = 1024
"""Tokens that go through an encoder layer at once without gradient on a CPU, so that they stay in its cache."""


@dataclass
class LayerOutput:
    """Predictions of one decoder layer."""

    logits: Tensor
    """(B, Q, C) class logits."""
    boxes_cxcywh: Tensor
    """(B, Q, 4) in 0..1 of the image without its padding."""
    embeddings: Tensor
    """(B, Q, d)."""


@dataclass
class DetectorOutput(LayerOutput):
    """Predictions of the last decoder layer, and what else the losses read."""

    auxiliary: list[LayerOutput]
    """Decoder layers 0..L-2."""
    depth_logits: Tensor | None
    """(B, D+1, h, w) at stride 8; None without the Spatial Adapter."""
    depth: Tensor | None
    """(B, h, w) expected depth at stride 8; None without the Spatial Adapter."""


class DeformableDetector(nn.Module):
    """Objects of single frames: class logits, boxes and object embeddings."""

    def __init__(self, backbone: BackboneSettings, detector: DetectorSettings, spatial: SpatialSettings) -> None:
        super().__init__()
        width = detector.width
        self.backbone = ResNet(backbone)
        self.projections = nn.ModuleList()
        for level in range(detector.levels):
            width_in = self.backbone.widths[level] if level < 3 else self.backbone.widths[-1] if level == 3 else width
            convolution = nn.Conv2d(width_in, width, 1) if level < 3 else nn.Conv2d(width_in, width, 3, 2, padding=1)
            self.projections.append(nn.Sequential(convolution, GroupNorm(detector.norm_groups, width)))
        self.level_embedding = nn.Parameter(torch.randn(detector.levels, width))
        self.encoder = nn.ModuleList(EncoderLayer(detector) for _ in range(detector.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(detector, spatial) for _ in range(detector.decoder_layers))
        self.queries = nn.Parameter(torch.randn(detector.queries, 2 * width))
        self.reference_points = Linear(width, 2)
        self.class_heads = _copies(Linear(width, detector.classes), detector.decoder_layers)
        self.box_heads = _copies(_box_head(width), detector.decoder_layers)
        self.spatial_adapter = None
        if spatial.enabled:
            self.spatial_adapter = SpatialAdapter(width, detector.heads, detector.norm_groups, spatial)
        self.unpadded: tuple[tuple[int, int, torch.device], Geometry] | None = None
        """Size and device of the last batch without padding, and its geometry, which is only ever replaced."""
        self._initialize(detector)

    def _initialize(self, settings: DetectorSettings) -> None:
        projection: Any
        for projection in self.projections:
            nn.init.xavier_uniform_(projection[0].weight)
            nn.init.zeros_(projection[0].bias)
        head: Any
        for head in self.class_heads:
            nn.init.constant_(head.bias, math.log(0.01 / 0.99))
        # A box starts at its reference point, a little over a tenth of the image in width and height.
        for head in self.box_heads:
            nn.init.zeros_(head[-1].weight)
            nn.init.zeros_(head[-1].bias)
        first: Any = self.box_heads[0]
        nn.init.constant_(first[-1].bias[2:], -2.0)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)
        if settings.reference_initialization == "grid":
            # The smallest change of the drawn positions that the linear layer maps to the grid.
            with torch.no_grad():
                position = self.queries[:, : settings.width]
                change = torch.logit(_grid(settings.queries)) - self.reference_points(position)
                position += change @ torch.linalg.pinv(self.reference_points.weight).T

    def forward(self, images: Tensor, padding: Tensor | None = None) -> DetectorOutput:
        """Detect the objects of each image.

        Args:
            images: (B, 3, H, W), normalized; zero where padded.
            padding: (B, H, W), True on padding, which lies right of and below the image; None: nowhere, known without
                looking.
        """
        features = self.backbone(images)
        maps = [projection(feature) for projection, feature in zip(self.projections, features, strict=False)]
        for projection in self.projections[3:]:
            maps.append(projection(features[-1] if len(maps) == 3 else maps[-1]))
        shapes: Shapes = [tuple(m.shape[-2:]) for m in maps]
        if padding is not None and bool(padding.any()):
            geometry = _geometry(padding, shapes, self.level_embedding.shape[1], padded=True)
        else:
            geometry = self._unpadded_geometry(images, shapes)

        depth = None
        if self.spatial_adapter is not None:
            depth = self.spatial_adapter(maps[:3], geometry.positions[0], geometry.depth_padding)
        memory = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        token_positions = torch.cat([p + e for p, e in zip(geometry.positions, self.level_embedding, strict=True)], 1)
        for layer in self.encoder:
            memory = layer(memory, token_positions, geometry)
        outputs = self._decode(memory, depth.memory if depth else None, geometry)
        last = outputs[-1]
        return DetectorOutput(
            logits=last.logits,
            boxes_cxcywh=last.boxes_cxcywh,
            embeddings=last.embeddings,
            auxiliary=outputs[:-1],
            depth_logits=depth.logits if depth else None,
            depth=depth.depth if depth else None,
        )

    def _unpadded_geometry(self, images: Tensor, shapes: Shapes) -> Geometry:
        """Of images that share it because none is padded, as in a batch of one clip; the last one is kept."""
        key = images.shape[-2], images.shape[-1], images.device
        if self.unpadded is None or self.unpadded[0] != key:
            # What is kept may be needed in training too, where tensors of the inference mode are refused.
            with torch.inference_mode(False), torch.no_grad():
                nowhere = torch.zeros(1, *images.shape[-2:], dtype=torch.bool, device=images.device)
                self.unpadded = key, _geometry(nowhere, shapes, self.level_embedding.shape[1], padded=False)
        return self.unpadded[1]

    def constants(self) -> object:
        """What `forward` read of the last batch without padding and of its size, and a later one may replace.

        A CUDA graph of that batch reads their memory (`fdta.model.graphs`).
        """
        if self.unpadded is None:
            return None
        key, geometry = self.unpadded
        return geometry, kept(geometry.shapes, key[-1])

    def _decode(self, memory: Tensor, depth_memory: Tensor | None, geometry: Geometry) -> list[LayerOutput]:
        position, tokens = self.queries.expand(len(memory), -1, -1).chunk(2, -1)
        references = self.reference_points(position).sigmoid()
        outputs = []
        for layer, class_head, box_head in zip(self.decoder, self.class_heads, self.box_heads, strict=True):
            # Predictions are relative to the image, sampling to the padded batch.
            scaled = references[:, :, None] * geometry.valid[:, None].repeat(1, 1, 1, references.shape[-1] // 2)
            tokens = layer(tokens, position, scaled, memory, depth_memory, geometry)
            start = F.pad(torch.logit(references, eps=1e-5), (0, 4 - references.shape[-1]))
            boxes_cxcywh = (box_head(tokens) + start).sigmoid()
            outputs.append(LayerOutput(class_head(tokens), boxes_cxcywh, tokens))
            references = boxes_cxcywh.detach()
        return outputs


@dataclass
class Geometry:
    """Where the images lie in the levels of a batch; B is 1 where nothing is padded, which broadcasts."""

    shapes: Shapes
    """(height, width) of each of the L levels."""
    valid: Tensor
    """(B, L, 2) shares of a level's width and height that the image fills."""
    padding: Tensor | None
    """(B, S) of all levels' cells, True on padding; None: no padding."""
    positions: list[Tensor]
    """(B, h*w, d) sine positions of each level's cells."""
    references: Tensor
    """(B, S, L, 2) centers of all levels' cells, as places in every (padded) level."""

    @property
    def depth_padding(self) -> Tensor | None:
        """(B, h*w) of stride 8."""
        height, width = self.shapes[0]
        return None if self.padding is None else self.padding[:, : height * width]


class EncoderLayer(nn.Module):
    """Deformable self-attention and feed-forward network, each with residual and layer norm."""

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__()
        width = settings.width
        self.attention = DeformableAttention(width, settings.heads, settings.levels, settings.encoder_points)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, settings.feedforward, settings.dropout)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, tokens: Tensor, positions: Tensor, geometry: Geometry) -> Tensor:
        """Tokens and positions (B, S, d) of all levels -> tokens (B, S, d)."""
        values = self.attention.values(tokens, geometry.shapes, geometry.padding)
        whole = tokens.device.type != "cpu" or recorded(tokens, self.feedforward.linear1.weight)
        piece = tokens.shape[1] if whole else max(1, PIECE // len(tokens))
        parts = []
        for part, place, reference in zip(
            tokens.split(piece, 1), positions.split(piece, 1), geometry.references.split(piece, 1), strict=True
        ):
            attended = self.attention.attend(part + place, reference, values)
            parts.append(self.feedforward(self.attention_norm(part + self.dropout(attended))))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class DecoderLayer(nn.Module):
    """Self-attention, deformable visual attention and feed-forward network, each with residual and layer norm.

    The attention to depth comes `after` the visual attention, `between` self- and visual attention, `before` both, or
    nowhere (`none`) (paper Tab. 9).
    """

    def __init__(self, settings: DetectorSettings, spatial: SpatialSettings) -> None:
        super().__init__()
        width = settings.width
        self.depth_placement = spatial.placement if spatial.enabled else "none"
        self.self_attention = Attention(width, settings.heads, settings.dropout)
        self.self_norm = nn.LayerNorm(width)
        self.visual_attention = DeformableAttention(width, settings.heads, settings.levels, settings.decoder_points)
        self.visual_norm = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.self_attention.out_proj.weight)
        if self.depth_placement != "none":
            self.depth_attention = Attention(width, settings.heads, settings.dropout)
            self.depth_norm = nn.LayerNorm(width)
            if spatial.output_initialization == "xavier":
                nn.init.xavier_uniform_(self.depth_attention.out_proj.weight)
            else:
                nn.init.zeros_(self.depth_attention.out_proj.weight)
        self.feedforward = FeedForward(width, settings.feedforward, settings.dropout)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        references: Tensor,
        memory: Tensor,
        depth_memory: Tensor | None,
        geometry: Geometry,
    ) -> Tensor:
        """Tokens and positions (B, Q, d), references (B, Q, L, 2 or 4), memory (B, S, d), depth memory (B, h*w, d) of
        stride 8 -> tokens (B, Q, d)."""
        if self.depth_placement == "before":
            tokens = self._attend_depth(tokens, depth_memory, geometry.depth_padding)
        query = tokens + positions
        attended = self.self_attention(query, query, tokens)
        tokens = self.self_norm(tokens + self.dropout(attended))
        if self.depth_placement == "between":
            tokens = self._attend_depth(tokens, depth_memory, geometry.depth_padding)
        attended = self.visual_attention(tokens + positions, references, memory, geometry.shapes, geometry.padding)
        tokens = self.visual_norm(tokens + self.dropout(attended))
        if self.depth_placement == "after":
            tokens = self._attend_depth(tokens, depth_memory, geometry.depth_padding)
        return self.feedforward(tokens)

    def _attend_depth(self, tokens: Tensor, memory: Tensor | None, padding: Tensor | None) -> Tensor:
        assert memory is not None
        attended = self.depth_attention(tokens, memory, memory, key_padding_mask=padding)
        return self.depth_norm(tokens + self.dropout(attended))


class FeedForward(nn.Module):
    """Two linear layers with residual and layer norm. (..., d) -> (..., d)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = Linear(width, hidden)
        self.linear2 = Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.dropout(self.linear1(tokens, "relu"))
        return self.norm(tokens + self.dropout(self.linear2(hidden)))


def sine_positions(padding: Tensor, width: int) -> Tensor:
    """Sine positions (B, h*w, width) of the cells: rows first, columns second, in shares of the image times 2 pi.

    Args:
        padding: (B, h, w), True outside the image.
        width: a multiple of 4.
    """
    inside = ~padding
    rows = inside.cumsum(1, dtype=torch.get_default_dtype())
    columns = inside.cumsum(2, dtype=torch.get_default_dtype())
    rows = (rows - 0.5) / (rows[:, -1:] + 1e-6) * (2 * math.pi)
    columns = (columns - 0.5) / (columns[:, :, -1:] + 1e-6) * (2 * math.pi)
    frequencies = 10000 ** (-torch.arange(0, width // 2, 2, device=padding.device) / (width // 2))
    angles = torch.stack([rows, columns], -1)[..., None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(3).flatten(1, 2)


def _copies(module: nn.Module, number: int) -> nn.ModuleList:
    """`module` and copies of it, which start with the same weights."""
    return nn.ModuleList([module, *(copy.deepcopy(module) for _ in range(number - 1))])


def _box_head(width: int) -> nn.Sequential:
    return nn.Sequential(Linear(width, width), nn.ReLU(), Linear(width, width), nn.ReLU(), Linear(width, 4))


def _resize_mask(mask: Tensor, shape: tuple[int, int]) -> Tensor:
    return F.interpolate(mask[:, None].float(), size=shape)[:, 0].bool()


def _valid_share(padding: Tensor) -> Tensor:
    """Shares (B, 2) of a level's width and height that the image fills."""
    return torch.stack([(~padding[:, 0]).float().mean(1), (~padding[:, :, 0]).float().mean(1)], -1)


def _geometry(padding: Tensor, shapes: Shapes, width: int, padded: bool) -> Geometry:
    """Of images (B, H, W) that are padded, or not, at levels of `shapes`."""
    paddings = [_resize_mask(padding, shape) for shape in shapes]
    valid = torch.stack([_valid_share(p) for p in paddings], 1)
    return Geometry(
        shapes=shapes,
        valid=valid,
        padding=torch.cat([p.flatten(1) for p in paddings], 1) if padded else None,
        positions=[sine_positions(p, width) for p in paddings],
        references=_cell_centers(valid, shapes),
    )


def _cell_centers(valid: Tensor, shapes: Shapes) -> Tensor:
    """Centers (B, S, L, 2) of all levels' cells, as places in the image scaled to every (padded) level."""
    centers = []
    for level, (height, width) in enumerate(shapes):
        y = (torch.arange(height, device=valid.device) + 0.5) / height
        x = (torch.arange(width, device=valid.device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
        centers.append(grid / valid[:, None, level])
    return torch.cat(centers, 1)[:, :, None] * valid[:, None]


def _grid(points: int) -> Tensor:
    """Points (n, 2) spread over the unit square in rows of (nearly) equal number."""
    rows = torch.arange(points).tensor_split(math.isqrt(points))
    grid = [
        torch.stack([(torch.arange(len(row)) + 0.5) / len(row), torch.full((len(row),), (y + 0.5) / len(rows))], -1)
        for y, row in enumerate(rows)
    ]
    return torch.cat(grid)
