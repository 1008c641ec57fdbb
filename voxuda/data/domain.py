"""Samples of one domain in memory, and their split for training and testing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass
class Domain:
    """Samples of one domain."""

    volumes: torch.Tensor  #: ``(N, 1, D, H, W)`` float32, each with mean 0 and variance 1.
    masks: torch.Tensor | None  #: ``(N, 1, D, H, W)`` bool.
    classes: list[str]  #: Class of each sample, for scores by class.
    groups: list[str] | None = None  #: Specimen of each sample; samples of one specimen stay together in a split.

    def __len__(self) -> int:
        return len(self.volumes)

    def subset(self, index: torch.Tensor) -> Domain:
        """Return the samples at ``index``, a ``(K,)`` tensor of integers."""
        masks = None if self.masks is None else self.masks[index]
        groups = None if self.groups is None else [self.groups[i] for i in index.tolist()]
        return Domain(self.volumes[index], masks, [self.classes[i] for i in index.tolist()], groups)

    def to(self, device: torch.device) -> Domain:
        """Return the same samples on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Domain(self.volumes.to(device), masks, self.classes, self.groups)

    def split(self, share: float, seed: int) -> tuple[Domain, Domain]:
        """Split at random into two parts, the first with ``share`` of every class, or of the groups if there are any."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        grouped = len(set(self.groups or ())) > 1  # a single specimen cannot be kept together
        units: Sequence[str | int] = self.groups if grouped and self.groups else range(len(self))
        sizes = Counter(self.classes)
        # Each class is a pot to draw from. The pot None holds the groups, and the classes with a single sample, which would
        # otherwise all end up in one part. A dictionary keeps the order of the draw, and each unit once.
        pots: dict[str | None, dict[str | int, None]] = defaultdict(dict)
        for i in order:
            shared = grouped or sizes[self.classes[i]] == 1
            pots[None if shared else self.classes[i]][units[i]] = None
        taken: set[str | int] = set()
        for pot in pots.values():
            count = min(max(1, round(share * len(pot))), max(1, len(pot) - 1))  # at least one for each part
            taken |= set(list(pot)[:count])
        first = torch.tensor([unit in taken for unit in units], dtype=torch.bool)
        return self.subset(first.nonzero()[:, 0]), self.subset((~first).nonzero()[:, 0])
