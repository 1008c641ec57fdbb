"""Connected components of a mask that is read a few sections at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse

TOUCHING = np.ones((3, 3, 3))
"""Voxels that share a face, an edge or a corner are connected (26-connectivity)."""


@dataclass(frozen=True)
class Table:
    """Components in the order of their first voxel; row k has label k + 1."""

    voxels: np.ndarray  #: Number of voxels in each component, ``(K,)``.
    centres: np.ndarray  #: Centres of mass z, y, x in voxels, ``(K, 3)``; the centre of the first voxel of the volume is 0.
    probabilities: np.ndarray  #: Mean probability within each component, ``(K,)``.
    labels: np.ndarray  #: Label of each piece, indexed by its number from :meth:`Components.add`; 0 for background.


class Components:
    """Collects pieces of components slab by slab and joins them at the end."""

    def __init__(self) -> None:
        self.count, self.sections = 0, 0
        self.last: np.ndarray | None = None
        self.pairs: list[np.ndarray] = []
        self.sums: list[np.ndarray] = []

    def add(self, mask: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Number the pieces in the next sections ``(n, H, W)`` of a mask, continuing the earlier numbers; 0 is background."""
        before = np.zeros_like(mask[:1], np.int32) if self.last is None else self.last[None]
        labels, pieces = ndimage.label(np.concatenate([before > 0, mask]), TOUCHING, output=np.int32)
        labels[labels > 0] += self.count
        seam = before > 0
        self.pairs.append(np.unique(np.stack([before[seam], labels[:1][seam]]), axis=1))
        self.last, labels = labels[-1], labels[1:]
        inside = labels > 0
        z, y, x = np.nonzero(inside)
        piece = labels[inside] - self.count - 1
        of = (None, probability[inside], z + self.sections, y, x)
        self.sums.append(np.stack([np.bincount(piece, weights, pieces) for weights in of]).astype(float))
        self.count, self.sections = self.count + pieces, self.sections + len(mask)
        return labels

    def separate(self) -> None:
        """Start another volume, whose pieces are not joined to earlier ones."""
        self.last = None

    def table(self, least: int = 0) -> Table:
        """Join the pieces, and leave out components of fewer than ``least`` voxels."""
        first, second = np.concatenate([np.zeros((2, 0), int), *self.pairs], axis=1) - 1
        number, component = self.count, np.arange(self.count)
        if len(first):
            graph = sparse.coo_array((np.ones(len(first)), (first, second)), (number, number))
            number, component = sparse.csgraph.connected_components(graph, directed=False)
        sums = np.concatenate([np.zeros((5, 0)), *self.sums], axis=1)
        voxels, *weighted = (np.bincount(component, values, number) for values in sums)
        kept = voxels >= max(least, 1)
        probability, *centres = (values[kept] / voxels[kept] for values in weighted)
        labels = np.where(kept, np.cumsum(kept), 0)[component].astype(np.int32)
        return Table(
            voxels[kept].astype(int), np.stack(centres, axis=1), probability, np.concatenate([np.zeros(1, np.int32), labels])
        )
