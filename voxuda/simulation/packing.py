"""Where molecules go: random rotations, spheres pulled together, spheres strewn in a slab."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from voxuda.signal._lanes import compiled


def random_rotations(n: int, generator: torch.Generator) -> torch.Tensor:
    """Uniform random rotations ``(n, 3, 3)``, from normalised Gaussian quaternions (Shoemake 1992)."""
    q = torch.randn(n, 4, generator=generator)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).reshape(n, 3, 3)


def strew_spheres(radii: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Centres ``(B, M, 3)`` in angstrom of spheres far apart, at random around sphere 0; radii are ``(B, M)``."""
    batch, count = radii.shape
    direction = torch.randn(batch, count, 3, generator=generator)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    reach = radii[:, :1] + 2 * radii.sum(1, keepdim=True) * torch.rand(batch, count, generator=generator)
    centres = direction * (reach + radii)[..., None]
    centres[:, 0] = 0
    return centres


def pull_together(
    radii: torch.Tensor, centres: torch.Tensor, first_step: float | None = None, *, steps: int = 300
) -> torch.Tensor:
    """Pull bounding spheres together until they touch, without overlap.

    Spheres move towards sphere 0 in shrinking steps; after each step overlapping pairs are pushed apart along their line of
    centres. Sphere 0 ends at the origin.

    Parameters
    ----------
    radii : Tensor
        ``(B, M)`` in angstrom.
    centres : Tensor
        ``(B, M, 3)`` where they start, in angstrom, order z, y, x.
    first_step : float, optional
        In angstrom; a tenth of the largest radius unless given.
    steps : int
        Number of moves, and the most of the corrections that follow.

    Returns
    -------
    Tensor
        ``(B, M, 3)`` centres.
    """
    longest = radii.max() / 10 if first_step is None else first_step
    lengths = (longest * (1 - torch.arange(steps) / steps)).numpy()
    pulled = centres.clone(memory_format=torch.contiguous_format)
    for spheres, sizes in zip(pulled.numpy(), radii.contiguous().numpy(), strict=True):
        _pull(spheres, sizes, lengths, np.empty_like(spheres))
    return pulled - pulled[:, :1]


@compiled
def _pull(spheres, radii, lengths, pushes):  # type: ignore[no-untyped-def]
    """Pull spheres ``(M, 3)`` of ``radii`` ``(M,)`` in place, by ``lengths``; memory for ``pushes`` is ``(M, 3)``."""
    for length in lengths:
        for i in range(1, len(radii)):
            along, distance = _apart(spheres[0], spheres[i])
            _move(spheres[i], along, min(length / distance, np.float32(1)))
        _separate(spheres, radii, pushes)
    for _ in lengths:
        if _separate(spheres, radii, pushes) < 1e-3:
            break


@compiled
def _separate(spheres, radii, pushes):  # type: ignore[no-untyped-def]
    """Push overlapping pairs apart, all at once, by half of their overlap each; returns the largest overlap there was."""
    largest = np.float32(0)
    pushes[:] = 0
    for i in range(len(radii)):
        for j in range(i):
            along, distance = _apart(spheres[i], spheres[j])
            overlap = radii[i] + radii[j] - distance
            if overlap > 0:
                largest = max(largest, overlap)
                share = np.float32(0.5) * overlap / distance
                _move(pushes[i], along, share)
                _move(pushes[j], along, -share)
    spheres += pushes
    return largest


@compiled
def _apart(a, b):  # type: ignore[no-untyped-def]
    """The way from ``b`` to ``a``, and its length."""
    z, y, x = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return (z, y, x), max(np.sqrt(z * z + y * y + x * x), np.float32(1e-6))


@compiled
def _move(sphere, along, share):  # type: ignore[no-untyped-def]
    """Move a sphere in place by a share of a way; numba gives memory to whole arrays, which takes longer."""
    z, y, x = along
    sphere[0] += share * z
    sphere[1] += share * y
    sphere[2] += share * x


def place_spheres(
    radii: Sequence[float], thickness: float, shape: tuple[int, int, int], generator: torch.Generator
) -> list[torch.Tensor | None]:
    """Put spheres one by one into a slab that repeats along y and x, each where it touches no other.

    Parameters
    ----------
    radii : sequence of float
        In voxels.
    thickness : float
        Of the slab, in voxels; it lies in the middle of the box. A larger sphere is put in the middle.
    shape : tuple of int
        ``(D, H, W)`` of the box.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    list
        Voxel coordinates ``(3,)`` in order z, y, x, or ``None`` for a sphere that found no room in 200 tries.
    """
    box = torch.tensor(shape, dtype=torch.float32)
    period = torch.tensor([torch.inf, *shape[1:]])
    placed: list[torch.Tensor | None] = []
    centres, sizes = torch.empty(0, 3), torch.empty(0)
    for radius in radii:
        tries = torch.rand(200, 3, generator=generator)
        tries[:, 0] = 0.5 + max(0.0, thickness - 2 * radius) / shape[0] * (tries[:, 0] - 0.5)
        tries = tries * box
        apart = (tries[:, None] - centres).abs()
        distance = torch.minimum(apart, period - apart).norm(dim=2)
        free = (distance >= sizes + radius).all(1).nonzero()
        spot = tries[free[0, 0]] if len(free) else None
        placed.append(spot)
        if spot is not None:
            centres, sizes = torch.cat([centres, spot[None]]), torch.cat([sizes, torch.tensor([radius])])
    return placed
