"""Random ID labels for the identities of a clip, with simulated occlusions and identity switches.

docs/model.md, ID labels in training: the same clip serves in G groups, each with other labels, occlusions and switches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fdta.data.settings import ClipSettings

IGNORED = -100
"""Target of what the ID loss leaves out: objects that are missing, and the first frame of a clip."""


@dataclass(frozen=True)
class IdentityGroups:
    """G label assignments of a clip of T frames and N identities.

    A slot is a column of the history: it keeps its label, also where a switch fills it with another object.
    """

    labels: Tensor
    """(G, N) long: label of each slot, distinct within a group, in 0..K-1; K for slots without one."""
    missing_history: Tensor
    """(G, T, N) bool: True where the slot holds no history token."""
    missing_current: Tensor
    """(G, T, N) bool: True where the object is absent, occluded or without label."""
    source: Tensor
    """(G, T, N) long: the object (column of the clip) whose embedding stands in the history slot."""

    def padded(self, width: int, unlabelled: int) -> IdentityGroups:
        """The same with `width` columns; the further ones have no object, and `unlabelled` for a label."""
        more = width - self.labels.shape[-1]
        further = torch.arange(width - more, width).expand(*self.source.shape[:2], more)
        return IdentityGroups(
            F.pad(self.labels, (0, more), value=unlabelled),
            F.pad(self.missing_history, (0, more), value=True),
            F.pad(self.missing_current, (0, more), value=True),
            torch.cat([self.source, further], dim=-1),
        )


def assign_identities(
    present: Tensor, settings: ClipSettings, labels: int, generator: torch.Generator
) -> IdentityGroups:
    """Draw the label assignments of a clip.

    Labels: distinct and random within a group. Of more than K identities K random ones, the same in every group, get
    a label and the others are missing throughout. Columns that are never present are padding and get none.

    Occlusion: with probability `settings.occlusion` per trajectory and group a run of frames is missing in history and
    current alike; it starts at a uniform frame b and takes ceil(u (T - 1 - b)) frames, u uniform in 0..1, so it never
    reaches the last frame.

    Switch: in every frame of every group each labelled object is chosen with probability `settings.switch`, absent or
    not, and the chosen ones exchange their embeddings at random. Being missing travels with the embedding: a present
    object may land in the slot of an absent one. The current side is not switched.

    Args:
        present: (T, N) bool, True where the identity has a box.
        settings: groups and probabilities.
        labels: K, the number of ID labels.
        generator: source of all randomness, on the CPU.

    Returns:
        The groups, on the CPU.
    """
    frames, identities = present.shape
    groups = settings.groups
    shape = (groups, frames, identities)

    seen = present.any(dim=0)
    rank = (torch.rand(identities, generator=generator) + ~seen).argsort().argsort()
    labelled = seen & (rank < labels)
    shuffled = torch.rand(groups, labels, generator=generator).argsort(dim=-1)
    drawn = torch.where(labelled, shuffled[:, rank.clamp(max=labels - 1)], labels)

    occluded = torch.rand(groups, 1, identities, generator=generator) < settings.occlusion
    start = torch.randint(frames, (groups, 1, identities), generator=generator)
    length = torch.ceil((frames - 1 - start) * torch.rand(groups, 1, identities, generator=generator))
    time = torch.arange(frames)[:, None]
    missing = ~(present & labelled) | (occluded & (time >= start) & (time < start + length))

    chosen = (torch.rand(shape, generator=generator) < settings.switch) & labelled
    # Both orders list the chosen first, one by index and one at random, and then the others by index.
    others = 1 + torch.arange(identities, dtype=torch.float32)
    by_index = torch.where(chosen, others - 1 - identities, others).argsort(dim=-1)
    at_random = torch.where(chosen, torch.rand(shape, generator=generator), others).argsort(dim=-1)
    source = torch.empty(shape, dtype=torch.long).scatter_(-1, by_index, at_random)

    return IdentityGroups(drawn, missing.gather(-1, source), missing, source)


def target_labels(groups: IdentityGroups, newborn: int) -> Tensor:
    """What the ID decoder should answer for each current object.

    Args:
        groups: label assignments.
        newborn: K, the index of the label "newborn".

    Returns:
        (G, T, N) long: the object's label if its slot holds a history token in an earlier frame, else `newborn`;
        `IGNORED` where the object is missing. In the first frame all are newborn.
    """
    tokens = (~groups.missing_history).cumsum(dim=1)
    earlier = tokens - (~groups.missing_history).long() > 0
    target = torch.where(earlier, groups.labels[:, None], newborn)
    return target.masked_fill(groups.missing_current, IGNORED)
