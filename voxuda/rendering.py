"""Beads to crops, fast: a bead reaches a few voxels, and a compiled loop visits only those. Each thread takes a crop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch

REACH = 5.0
"""Standard deviations at which a bead is cut off along each axis, where it has 4e-6 of its height."""


def render_beads(positions: np.ndarray, masses: np.ndarray, spreads: np.ndarray, size: int, voxel_size: float) -> np.ndarray:
    """Density of the beads that a crop sees, in dalton per cubic nanometre.

    The same sum as :func:`voxuda.molecules.density`, without gradients, and faster where beads are small in a large crop.

    Parameters
    ----------
    positions : ndarray
        ``(N, 3)`` float32 in angstrom, order z, y, x, relative to voxel ``size // 2``.
    masses, spreads : ndarray
        ``(N,)`` float32 in dalton, and standard deviations in angstrom.
    size : int
        Side of the crop in voxels.
    voxel_size : float
        In angstrom.

    Returns
    -------
    ndarray
        ``(D, H, W)`` float32.
    """
    edge = np.float32(voxel_size)
    volume = np.zeros((size, size, size), np.float32)
    _add_beads(volume, positions / edge + np.float32(size // 2), masses, np.square(spreads / edge) + np.float32(1 / 6))
    return volume / (edge / 10) ** 3


@numba.njit(nogil=True, cache=True)
def _add_beads(volume: np.ndarray, centres: np.ndarray, masses: np.ndarray, variances: np.ndarray) -> None:
    """Add Gaussians ``(N, 3)``, ``(N,)``, ``(N,)`` to a cube in place; everything in voxels."""
    size = len(volume)
    profiles = np.empty((3, size), np.float32)
    first, last = np.empty(3, np.int64), np.empty(3, np.int64)
    for n in range(len(masses)):
        reach = np.float32(REACH) * math.sqrt(variances[n])
        precision = np.float32(-0.5) / variances[n]
        height = math.sqrt(-precision / np.float32(math.pi))
        for axis in range(3):
            first[axis] = max(0, math.ceil(centres[n, axis] - reach))
            last[axis] = min(size - 1, math.floor(centres[n, axis] + reach))
            for i in range(first[axis], last[axis] + 1):
                profiles[axis, i] = height * math.exp(np.square(np.float32(i) - centres[n, axis]) * precision)
        for z in range(first[0], last[0] + 1):
            for y in range(first[1], last[1] + 1):
                column = masses[n] * profiles[0, z] * profiles[1, y]
                for x in range(first[2], last[2] + 1):
                    volume[z, y, x] += column * profiles[2, x]


def in_threads(render: Callable[[int], np.ndarray], crops: Iterable[int]) -> torch.Tensor:
    """``render`` each crop, as many at once as torch has threads, ``(B, 1, D, H, W)``."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(render, crops))))[:, None]
