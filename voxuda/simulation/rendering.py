"""Render beads to crops. A compiled loop visits only the few voxels that a bead reaches; each thread takes a crop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from voxuda.errors import InputError
from voxuda.signal._lanes import LANES
from voxuda.simulation import _bead_loops

_UNTURNED, _MIDDLE = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)


def add_beads(
    volume: np.ndarray,
    positions: np.ndarray,
    masses: np.ndarray,
    spreads: np.ndarray,
    voxel_size: float,
    rotation: np.ndarray = _UNTURNED,
    centre: np.ndarray = _MIDDLE,
) -> None:
    """Add the density of beads, rotated and then shifted, to a crop in place, in dalton per cubic nanometre.

    Parameters
    ----------
    volume : ndarray
        ``(D, D, W)``, contiguous float32. ``W`` is the side ``D`` rounded up to a multiple of 16; voxels beyond the side are
        padding, ignored.
    positions, masses, spreads : ndarray
        ``(N, 3)`` in angstrom, order z, y, x; ``(N,)`` in dalton; ``(N,)``, standard deviations in angstrom. All finite.
    voxel_size : float
        Edge of a voxel in angstrom.
    rotation, centre : ndarray
        ``(3, 3)``, applied to the beads; ``(3,)`` in angstrom, the new place of their origin relative to voxel ``D // 2``.

    Raises
    ------
    InputError
        A shape does not fit, or the volume is read-only.
    """
    if volume.shape[1:] != (len(volume), _line(len(volume))) or not volume.flags.writeable:
        raise InputError(f"shape {volume.shape}: give a writable cube, with lines padded to a multiple of {LANES}.")
    beads = [np.ascontiguousarray(values, np.float32) for values in (positions, masses, spreads, rotation, centre)]
    found, number = [values.shape for values in beads], len(beads[0])
    if found != [(number, 3), (number,), (number,), (3, 3), (3,)]:
        raise InputError(f"shapes {found} are not those of positions, masses, spreads, a rotation and a centre.")
    _bead_loops.add_beads(volume, *beads, np.float32(voxel_size))


def render_beads(positions: np.ndarray, masses: np.ndarray, spreads: np.ndarray, size: int, voxel_size: float) -> np.ndarray:
    """Compute the density of beads in a crop, in dalton per cubic nanometre.

    This is the same sum as :func:`voxuda.simulation.molecules.density`, without gradients, and faster for small beads in a
    large crop.

    Parameters
    ----------
    positions : ndarray
        ``(N, 3)`` float32 in angstrom, order z, y, x, relative to voxel ``size // 2``.
    masses, spreads : ndarray
        ``(N,)`` float32 in dalton, and standard deviations in angstrom.
    size : int
        Side of the crop in voxels.
    voxel_size : float
        Edge of a voxel in angstrom.

    Returns
    -------
    ndarray
        ``(D, H, W)`` float32.
    """
    volume = np.zeros((size, size, _line(size)), np.float32)
    add_beads(volume, positions, masses, spreads, voxel_size)
    return np.ascontiguousarray(volume[..., :size])


def render_each(crops: int, size: int, add: Callable[[int, np.ndarray], None]) -> torch.Tensor:
    """Fill crops ``(B, 1, D, H, W)`` float32, with as many threads as torch uses.

    ``add(i, volume)`` fills crop ``i``, which starts as zeros in the layout of :func:`add_beads`.
    """
    volumes = torch.zeros(crops, 1, size, size, _line(size))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(add, range(crops), volumes[:, 0].numpy()))
    return volumes[..., :size].contiguous()


def _line(size: int) -> int:
    return -(-size // LANES) * LANES
