"""Place molecules, with random rotations, spheres pulled together and spheres scattered in a slab."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from voxuda.simulation import _packing_loops

STEPS = 300
"""Number of moves that pull spheres together, and largest number of corrections that follow."""


def random_rotations(n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw uniform random rotations ``(n, 3, 3)`` from normalised Gaussian quaternions (Shoemake 1992)."""
    q = torch.randn(n, 4, generator=generator)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).reshape(n, 3, 3)


def strew_spheres(radii: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw random centres ``(B, M, 3)`` of spheres far apart around sphere 0; radii are ``(B, M)``, both in angstrom."""
    batch, count = radii.shape
    direction = torch.randn(batch, count, 3, generator=generator)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    reach = radii[:, :1] + 2 * radii.sum(1, keepdim=True) * torch.rand(batch, count, generator=generator)
    centres = direction * (reach + radii)[..., None]
    centres[:, 0] = 0
    return centres


def pull_together(radii: torch.Tensor, centres: torch.Tensor, first_step: float | None = None) -> torch.Tensor:
    """Pull bounding spheres together until they touch, without overlap, by a compiled loop.

    Spheres move towards sphere 0 in shrinking steps, the first a tenth of the largest radius unless given. After each step
    overlapping pairs are pushed apart along their line of centres. Sphere 0 ends at the origin. Radii are ``(B, M)`` and
    centres, before and after, ``(B, M, 3)`` in order z, y, x, all in angstrom.
    """
    longest = radii.max() / 10 if first_step is None else first_step
    lengths = (longest * (1 - torch.arange(STEPS) / STEPS)).numpy()
    pulled = centres.clone(memory_format=torch.contiguous_format)
    for spheres, sizes in zip(pulled.numpy(), radii.contiguous().numpy(), strict=True):
        _packing_loops.pull(spheres, sizes, lengths, np.empty_like(spheres))
    return pulled - pulled[:, :1]


def pull_by_the_rule(radii: np.ndarray, centres: np.ndarray, first_step: float) -> np.ndarray:
    """Pull one group of ``M`` spheres together as :func:`pull_together` does, in plain NumPy, as a readable reference."""
    i, j = np.triu_indices(len(radii), 1)
    for step in range(2 * STEPS):
        if step < STEPS:  # towards sphere 0
            ways = centres - centres[0]
            distances = np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-6)
            centres = centres - ways * np.minimum(first_step * (1 - step / STEPS) / distances, 1)
        ways = centres[i] - centres[j]
        distances = np.maximum(np.linalg.norm(ways, axis=1), 1e-6)
        overlaps = np.maximum(radii[i] + radii[j] - distances, 0)
        pushes = np.zeros_like(centres)  # half the overlap for each sphere of a pair
        np.add.at(pushes, i, ways * (overlaps / distances / 2)[:, None])
        np.add.at(pushes, j, -ways * (overlaps / distances / 2)[:, None])
        centres = centres + pushes
        if step >= STEPS and overlaps.max(initial=0) < 1e-3:
            break
    return centres - centres[0]


def place_spheres(
    radii: Sequence[float], thickness: float, shape: tuple[int, int, int], generator: torch.Generator
) -> list[torch.Tensor | None]:
    """Place spheres one by one, without overlap, in a slab that repeats along y and x.

    Radii and thickness are in voxels. The slab lies in the middle of a box of ``shape`` ``(D, H, W)``; a sphere thicker than
    the slab is placed in its middle. Returns the centre of each sphere in voxels ``(3,)``, order z, y, x, or ``None`` if 200
    tries found no room.
    """
    period = torch.tensor([torch.inf, *shape[1:]])
    placed: list[torch.Tensor | None] = []
    centres, sizes = torch.empty(0, 3), torch.empty(0)
    for radius in radii:
        tries = _spots(200, radius, thickness, shape, generator)
        apart = (tries[:, None] - centres).abs()
        distance = torch.minimum(apart, period - apart).norm(dim=2)
        free = (distance >= sizes + radius).all(1).nonzero()
        spot = tries[free[0, 0]] if len(free) else None
        placed.append(spot)
        if spot is not None:
            centres, sizes = torch.cat([centres, spot[None]]), torch.cat([sizes, torch.tensor([radius])])
    return placed


def fill_gaps(radius: float, count: int, thickness: float, blocked: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Place up to ``count`` equal spheres, without overlap, in the gaps of a slab that repeats along y and x.

    Places are tried in turn, 20 for each requested sphere. ``blocked`` ``(D, H, W)`` bool marks the voxels where no centre may
    lie; radius and thickness are in voxels. Returns the voxels ``(K, 3)`` nearest to the centres.
    """
    shape = tuple(blocked.shape)
    tries = _spots(20 * count, radius, thickness, shape, generator)
    z, y, x = tries.round().long().unbind(1)
    voxels = torch.stack([z, y % shape[1], x % shape[2]], 1)
    free = ~blocked[voxels.unbind(1)]
    kept = _packing_loops.keep_apart(tries[free].numpy(), np.float32(radius), count, np.array(shape))
    return voxels[free][torch.from_numpy(kept)]


def _spots(n: int, radius: float, thickness: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Draw random centres ``(n, 3)``, in voxels, of spheres in a slab in the middle of a box."""
    tries = torch.rand(n, 3, generator=generator)
    tries[:, 0] = 0.5 + max(0.0, thickness - 2 * radius) / shape[0] * (tries[:, 0] - 0.5)
    return tries * torch.tensor(shape, dtype=torch.float32)
