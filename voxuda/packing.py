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


def pack_spheres(radii: torch.Tensor, generator: torch.Generator, *, steps: int = 300) -> torch.Tensor:
    """Pull bounding spheres together until they touch, without overlap.

    Spheres start far apart at random and move towards sphere 0 in shrinking steps; after each step overlapping pairs are
    pushed apart along their line of centres. Sphere 0 ends at the origin.

    Parameters
    ----------
    radii : Tensor
        ``(B, M)`` in angstrom.
    generator : torch.Generator
        Source of randomness.
    steps : int
        Number of moves.

    Returns
    -------
    Tensor
        ``(B, M, 3)`` centres in angstrom, order z, y, x.
    """
    batch, count = radii.shape
    direction = torch.randn(batch, count, 3, generator=generator)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    reach = radii[:, :1] + 2 * radii.sum(1, keepdim=True) * torch.rand(batch, count, generator=generator)
    centres = direction * (reach + radii)[..., None]
    centres[:, 0] = 0
    contact = radii[:, :, None] + radii[:, None, :]
    first_step = float(radii.max()) / 10

    def separate(centres: torch.Tensor) -> torch.Tensor:
        offset = centres[:, :, None] - centres[:, None]  # from j to i
        distance = offset.norm(dim=-1) + torch.eye(count)
        overlap = (contact - distance).clamp_min(0) * (1 - torch.eye(count))
        return centres + 0.5 * (offset / distance[..., None] * overlap[..., None]).sum(2)

    for step in range(steps):
        pull = centres - centres[:, :1]
        distance = pull.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        length = torch.full_like(distance, first_step * (1 - step / steps)).minimum(distance)
        centres = separate(centres - length * pull / distance)
    for _ in range(steps):
        centres = separate(centres)
    return centres - centres[:, :1]


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
