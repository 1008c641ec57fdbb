"""Where molecules go: random rotations, spheres pulled together, spheres strewn in a slab."""

from __future__ import annotations

from collections.abc import Sequence

import torch


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


def pull_together(radii: torch.Tensor, centres: torch.Tensor, *, steps: int = 300) -> torch.Tensor:
    """Pull bounding spheres together until they touch, without overlap.

    Spheres move towards sphere 0 in shrinking steps; after each step overlapping pairs are pushed apart along their line of
    centres. Sphere 0 ends at the origin. The steps are many and small, so it is the number of calls that costs: hundreds of
    groups take hardly longer than one.

    Parameters
    ----------
    radii : Tensor
        ``(B, M)`` in angstrom.
    centres : Tensor
        ``(B, M, 3)`` where they start, in angstrom, order z, y, x.
    steps : int
        Number of moves, and the most of the corrections that follow.

    Returns
    -------
    Tensor
        ``(B, M, 3)`` centres.
    """
    if radii.shape[1] == 1:
        return torch.zeros_like(centres)
    i, j = torch.triu_indices(radii.shape[1], radii.shape[1], 1)
    pairs = torch.arange(len(i))
    push = torch.zeros(radii.shape[1], len(i))  # how the push of each pair moves each sphere: i forwards, j back
    push[i, pairs], push[j, pairs] = 0.5, -0.5
    spheres = centres.permute(1, 2, 0).contiguous()  # (M, 3, B): long rows for the processor
    contact = (radii[:, i] + radii[:, j]).T.contiguous()
    first_step = float(radii.max()) / 10

    def separate(spheres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        offset = spheres[i] - spheres[j]
        distance = offset.square().sum(1).sqrt().clamp_min(1e-6)
        overlap = (contact - distance).clamp_min(0)
        moves = offset * (overlap / distance)[:, None]
        return spheres + (push @ moves.flatten(1)).reshape(spheres.shape), overlap

    for step in range(steps):
        pull = spheres - spheres[:1]
        distance = pull.square().sum(1, keepdim=True).sqrt().clamp_min(1e-6)
        share = (first_step * (1 - step / steps) / distance).clamp_max(1)
        spheres, _ = separate(spheres - share * pull)
    for _ in range(steps):
        spheres, overlap = separate(spheres)
        if overlap.max() < 1e-3:
            break
    return (spheres - spheres[:1]).permute(2, 0, 1)


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
