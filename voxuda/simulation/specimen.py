"""A specimen as a cell might offer it: a slab of ice crowded with molecules, a vesicle, cytosol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from voxuda.simulation.imaging import smooth_background
from voxuda.simulation.molecules import Molecule
from voxuda.simulation.packing import place_spheres, random_rotations
from voxuda.simulation.rendering import render_beads

PIXEL_SIZE = 10.26
"""Angstrom a voxel: a detector pixel of 3.42, binned by three."""

FIELD = 96
"""Side of a specimen along y and x in voxels; it repeats beyond."""

PER_SPECIMEN = 6
"""Most molecules of interest in a specimen."""

CYTOSOL = 60.0
"""Standard deviation of the solution between the molecules, in Da/nm³; its mean counts as ice."""


@dataclass(frozen=True)
class Specimen:
    """A slab of vitreous ice, which repeats along y and x."""

    density: torch.Tensor
    """``(D, H, W)`` excess over ice, in Da/nm³ of protein, by molecules, vesicle and cytosol."""
    centres: torch.Tensor
    """``(K, 3)`` voxel coordinates z, y, x of the molecules of interest."""
    names: list[str]
    """What they are."""
    beads: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    """Positions ``(N, 3)`` in angstrom from voxel 0, masses ``(N,)`` and spreads ``(N,)`` of all molecules."""


def vesicle(depth: int, centre: torch.Tensor, radius: float) -> torch.Tensor:
    """A lipid bilayer in Da/nm³ of protein, ``(D, H, W)``, on a sphere around ``centre`` with ``radius`` voxels.

    Two layers of head groups 38 Å apart and tails between them. Tails scatter electrons more than ice does, since they hold
    much hydrogen, and less than heads.
    """
    z, y, x = (torch.arange(n, dtype=torch.float32) - c for n, c in zip((depth, FIELD, FIELD), centre.tolist(), strict=True))
    y, x = ((v + FIELD / 2) % FIELD - FIELD / 2 for v in (y, x))
    height = PIXEL_SIZE * ((z[:, None, None] ** 2 + y[:, None] ** 2 + x**2).sqrt() - radius)

    def layer(middle: float, width: float, value: float) -> torch.Tensor:
        variance = width**2 + PIXEL_SIZE**2 / 6  # as the kernel that spreads beads over voxels
        return value * width / variance**0.5 * torch.exp((-((height - middle) ** 2) / (2 * variance)).clamp_min(-25))

    return layer(-19, 5, 700) + layer(19, 5, 700) + layer(0, 10, 400)


def build_specimen(
    wanted: Sequence[Molecule],
    crowders: Sequence[Molecule],
    thickness: float,
    depth: int,
    generator: torch.Generator,
    *,
    device: torch.device | str = "cpu",
) -> Specimen:
    """Build a specimen: a vesicle, the first of the wanted molecules, crowders in the gaps, cytosol in between.

    Parameters
    ----------
    wanted : sequence of Molecule
        The molecules of interest, in order of preference; the first is always placed.
    crowders : sequence of Molecule
        Other molecules, one of them at random in each gap.
    thickness : float
        Of the ice, in angstrom.
    depth : int
        Voxels along z.
    generator : torch.Generator
        Source of randomness.
    device : device
        Where densities are computed.

    Returns
    -------
    Specimen
        ``names`` tells which of the wanted found room.
    """
    layers = thickness / PIXEL_SIZE

    def in_voxels(molecule: Molecule) -> float:
        return molecule.radius / PIXEL_SIZE

    # At most a handful of the wanted, so that many specimens are needed; others until bounding spheres fill a third.
    wanted = wanted[:PER_SPECIMEN]
    pick = torch.randint(len(crowders), (300,), generator=generator).tolist()
    others = [crowders[i] for i in pick]
    filled = torch.tensor([4 / 3 * torch.pi * in_voxels(m) ** 3 for m in [*wanted, *others]]).cumsum(0)
    others = others[: max(0, int((filled < layers * FIELD**2 / 3).sum()) - len(wanted))]

    bubble = 15 + 10 * torch.rand((), generator=generator).item()
    wall = 4.0
    radii = [in_voxels(wanted[0]), bubble + wall, *(in_voxels(m) for m in [*wanted[1:], *others])]
    spots = place_spheres(radii, layers, (depth, FIELD, FIELD), generator)
    content = torch.zeros(depth, FIELD, FIELD)
    if spots[1] is not None:
        content += vesicle(depth, spots[1], bubble)
    del spots[1]
    inside = (torch.arange(depth) - depth / 2).abs() < layers / 2
    noise = smooth_background(1, (depth, FIELD, FIELD), generator)[0, 0]
    content += CYTOSOL * noise * inside[:, None, None]
    content = content.to(device)

    molecules = [*wanted, *others]
    rotations = random_rotations(len(molecules), generator)
    found = [i for i, spot in enumerate(spots) if spot is not None]
    turned = (molecules[i].positions @ rotations[i].T for i in found)
    positions = [(PIXEL_SIZE * spots[i] + beads).to(device) for i, beads in zip(found, turned, strict=True)]  # type: ignore[operator]
    for i, placed in zip(found, positions, strict=True):
        _add(content, placed, molecules[i])
    masses, spreads = (torch.cat([getattr(molecules[i], name) for i in found]).to(device) for name in ("masses", "spreads"))
    targets = [i for i in found if i < len(wanted)]
    centres = torch.stack([spots[i] for i in targets])  # type: ignore[misc]
    return Specimen(content, centres, [wanted[i].name for i in targets], (torch.cat(positions), masses, spreads))


def _add(content: torch.Tensor, positions: torch.Tensor, molecule: Molecule) -> None:
    """Add a molecule whose beads stand at ``positions`` to the slab, in place."""
    low = (positions.amin(0) / PIXEL_SIZE).floor().int() - 2
    side = int(((positions.amax(0) / PIXEL_SIZE).ceil().int() + 3 - low).max())
    local = positions - PIXEL_SIZE * (low + side // 2)
    beads = local.cpu().numpy(), molecule.masses.numpy(), molecule.spreads.numpy()
    part = torch.from_numpy(render_beads(*beads, side, PIXEL_SIZE)).to(content.device)
    z, y, x = (torch.arange(side, device=content.device) + start for start in low.tolist())
    kept = (z >= 0) & (z < len(content))
    content[z[kept, None, None], (y % FIELD)[:, None], x % FIELD] += part[kept]
