"""Samples of one domain in memory, and their split for training and testing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass
class Domain:
    """Samples of one domain.

    Parameters
    ----------
    volumes : Tensor
        ``(N, 1, D, H, W)`` float32, each with mean 0 and variance 1.
    masks : Tensor or None
        ``(N, 1, D, H, W)`` bool.
    classes : list of str
        Class of each sample, for scores by class.
    groups : list of str, optional
        Samples of one group, cut from one specimen, stay together in a split.
    """

    volumes: torch.Tensor
    masks: torch.Tensor | None
    classes: list[str]
    groups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.volumes)

    def subset(self, index: torch.Tensor) -> Domain:
        """The samples at ``index``, a ``(K,)`` tensor of integers."""
        masks = None if self.masks is None else self.masks[index]
        groups = None if self.groups is None else [self.groups[i] for i in index.tolist()]
        return Domain(self.volumes[index], masks, [self.classes[i] for i in index.tolist()], groups)

    def to(self, device: torch.device) -> Domain:
        """The same samples on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Domain(self.volumes.to(device), masks, self.classes, self.groups)

    def split(self, share: float, seed: int) -> tuple[Domain, Domain]:
        """Two parts, the first with ``share`` of every class, or of the groups if there are some, drawn by ``seed``."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator).tolist()
        units: Sequence[str | int] = self.groups or range(len(self))
        sizes = Counter(self.classes)
        strata: dict[str, list[str | int]] = {}
        for i in order:  # groups are drawn from one pot, and so are classes of one sample, lest one part take all of them
            alone = self.groups is not None or sizes[self.classes[i]] == 1
            members = strata.setdefault("" if alone else self.classes[i], [])
            if units[i] not in members:
                members.append(units[i])
        taken: set[str | int] = set()
        for members in strata.values():
            taken |= set(members[: min(max(1, round(share * len(members))), max(1, len(members) - 1))])
        parts = ([i for i, unit in enumerate(units) if (unit in taken) == chosen] for chosen in (True, False))
        first, second = (self.subset(torch.tensor(part, dtype=torch.long)) for part in parts)
        return first, second
