"""A specimen as a cell offers it: a slab of ice crowded with complexes, membranes and small proteins, rarely gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from voxuda.simulation.molecules import Molecule
from voxuda.simulation.packing import fill_gaps, place_spheres, random_rotations
from voxuda.simulation.rendering import render_beads

PIXEL_SIZE = 10.26
"""Angstrom a voxel: a detector pixel of 3.42, binned by three."""

FIELD = 96
"""Side of a specimen along y and x in voxels; it repeats beyond."""

PER_SPECIMEN = 6
"""Most molecules of interest in a specimen."""

VESICLES = 6
"""Vesicles for which room is sought."""

COMPLEXES = 0.3
"""Most of the ice that the bounding spheres of complexes fill; vesicles come besides, and small proteins fill the gaps."""

SMALL_PROTEIN = 50e3
"""Mass in dalton of the proteins in the gaps, balls without a label: about that of the mean protein of a human cell."""

GOLD_SHARE, GOLD_RADIUS = 0.1, 50.0
"""Share of specimens with a gold bead, and its radius in angstrom."""

PROTEIN_DENSITY = 810.0
"""Of solid protein, in Da/nm³."""

PROTEIN_POTENTIAL = 3.37
"""Volt by which solid protein exceeds vitreous ice.

A mean inner potential is 47.88 V Å² times the sum of the electron scattering factors at angle 0, per volume (Peng et al.
1996): 7.90 V for the average residue, C4.94 H7.76 N1.36 O1.48 S0.04, at 810 Da/nm³, and 4.53 V for ice at 0.93 g/cm³.
"""

DALTON_PER_NM3 = 0.6022
"""Of 1 mg/ml."""

GOLD_DENSITY = PROTEIN_DENSITY * (29.8 - 4.5) / PROTEIN_POTENTIAL
"""Da/nm³ of protein that exceed ice as gold does: 10.56 Å in 16.96 Å³ (Doyle and Turner 1968) make 29.8 V."""


@dataclass(frozen=True)
class Specimen:
    """A slab of vitreous ice, which repeats along y and x."""

    density: torch.Tensor
    """``(D, H, W)`` excess over ice, in Da/nm³ of protein, by everything."""
    centres: torch.Tensor
    """``(K, 3)`` voxel coordinates z, y, x of the molecules of interest."""
    names: list[str]
    """What they are."""
    beads: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    """Positions ``(N, 3)`` in angstrom from voxel 0, masses ``(N,)`` and spreads ``(N,)`` of all complexes."""


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


def balls(voxels: torch.Tensor, radius: float, density: float, depth: int) -> torch.Tensor:
    """Density ``(D, H, W)`` of equal solid balls around voxels ``(K, 3)``, their radius in angstrom."""
    grid = torch.zeros(depth, FIELD, FIELD)
    grid.index_put_(voxels.unbind(1), torch.ones(len(voxels)), accumulate=True)
    frequencies = torch.meshgrid(*(torch.fft.fftfreq(n) for n in (depth, FIELD)), torch.fft.rfftfreq(FIELD), indexing="ij")
    k = torch.stack(frequencies).norm(dim=0) / PIXEL_SIZE
    q = (2 * torch.pi * k * radius).clamp_min(1e-2)  # below, float32 would cancel
    shape = 3 * (q.sin() - q * q.cos()) / q**3  # the Fourier transform of a ball of volume 1
    kernel = torch.exp(-((2 * torch.pi * k * PIXEL_SIZE) ** 2) / 12)  # as the one that spreads beads over voxels
    volume = 4 / 3 * torch.pi * (radius / PIXEL_SIZE) ** 3
    return density * volume * torch.fft.irfftn(torch.fft.rfftn(grid) * shape * kernel, s=grid.shape)


def dilate(solid: torch.Tensor, reach: int) -> torch.Tensor:
    """What lies within ``reach`` voxels of solid ones along each axis, ``(D, H, W)`` bool; the field repeats."""
    grown = torch.nn.functional.pad(solid.float()[None], (reach,) * 4 + (0, 0), "circular")
    for axis in range(3):  # a cube, one axis after the other
        kernel = [2 * reach + 1 if i == axis else 1 for i in range(3)]
        grown = torch.nn.functional.max_pool3d(grown, kernel, 1, (reach if axis == 0 else 0, 0, 0))
    return grown[0] > 0


def solution(content: torch.Tensor, thickness: float, concentration: float, generator: torch.Generator) -> torch.Tensor:
    """Small proteins, ``(D, H, W)`` in Da/nm³, in the gaps of ``content`` ``(D, H, W)``, so that both have a concentration.

    As in a crowded liquid, and unlike in a gas, no two of them overlap, which makes their density even over long distances.
    Thickness is in angstrom, concentration in mg/ml of the slab.
    """
    radius = (3 * SMALL_PROTEIN / (4 * torch.pi * PROTEIN_DENSITY)) ** (1 / 3) * 10  # angstrom
    wanted = concentration * DALTON_PER_NM3 * thickness * (FIELD * PIXEL_SIZE) ** 2 / 1000
    there = float(content.sum()) * (PIXEL_SIZE / 10) ** 3
    near = dilate(content > PROTEIN_DENSITY / 4, round(radius / PIXEL_SIZE))
    count = max(0, round((wanted - there) / SMALL_PROTEIN))
    spots = fill_gaps(radius / PIXEL_SIZE, count, thickness / PIXEL_SIZE, near, generator)
    return balls(spots, radius, PROTEIN_DENSITY, len(content))


def build_specimen(
    wanted: Sequence[Molecule],
    crowders: Sequence[Molecule],
    thickness: float,
    depth: int,
    generator: torch.Generator,
    *,
    concentration: float = 200.0,
    device: torch.device | str = "cpu",
) -> Specimen:
    """Build a specimen: the first of the wanted molecules, vesicles, other complexes, small proteins in the gaps.

    Parameters
    ----------
    wanted : sequence of Molecule
        The molecules of interest, in order of preference; the first is always placed.
    crowders : sequence of Molecule
        Other complexes, one of them at random in each gap.
    thickness : float
        Of the ice, in angstrom.
    depth : int
        Voxels along z.
    generator : torch.Generator
        Source of randomness.
    concentration : float
        Of everything, in mg/ml.
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

    # At most a handful of the wanted, so that many specimens are needed.
    wanted = wanted[:PER_SPECIMEN]
    pick = torch.randint(len(crowders), (300,), generator=generator).tolist()
    others = [crowders[i] for i in pick]
    filled = torch.tensor([4 / 3 * torch.pi * in_voxels(m) ** 3 for m in [*wanted, *others]]).cumsum(0)
    others = others[: max(0, int((filled < COMPLEXES * layers * FIELD**2).sum()) - len(wanted))]

    bubbles = (10 + 15 * torch.rand(VESICLES, generator=generator)).tolist()
    wall = 4.0
    molecules = [*wanted, *others]
    radii = [*map(in_voxels, molecules)]
    radii[1:1] = [bubble + wall for bubble in bubbles]  # after the first, which always finds room
    spots = place_spheres(radii, layers, (depth, FIELD, FIELD), generator)
    content = torch.zeros(depth, FIELD, FIELD)
    for bubble, spot in zip(bubbles, spots[1 : 1 + VESICLES], strict=True):
        if spot is not None:
            content += vesicle(depth, spot, bubble)
    del spots[1 : 1 + VESICLES]

    rotations = random_rotations(len(molecules), generator)
    found = [i for i, spot in enumerate(spots) if spot is not None]
    turned = (molecules[i].positions @ rotations[i].T for i in found)
    positions = [PIXEL_SIZE * spots[i] + beads for i, beads in zip(found, turned, strict=True)]  # type: ignore[operator]
    for i, placed in zip(found, positions, strict=True):
        _add(content, placed, molecules[i])
    content += solution(content, thickness, concentration, generator)
    if torch.rand((), generator=generator) < GOLD_SHARE:
        [spot] = place_spheres([GOLD_RADIUS / PIXEL_SIZE], layers, (depth, FIELD, FIELD), generator)
        content += balls(spot[None].long(), GOLD_RADIUS, GOLD_DENSITY, depth)  # type: ignore[index]
    masses, spreads = (torch.cat([getattr(molecules[i], name) for i in found]).to(device) for name in ("masses", "spreads"))
    targets = [i for i in found if i < len(wanted)]
    centres = torch.stack([spots[i] for i in targets])  # type: ignore[misc]
    beads = torch.cat(positions).to(device), masses, spreads
    return Specimen(content.to(device), centres, [wanted[i].name for i in targets], beads)


def _add(content: torch.Tensor, positions: torch.Tensor, molecule: Molecule) -> None:
    """Add a molecule whose beads stand at ``positions`` to the slab, in place."""
    low = (positions.amin(0) / PIXEL_SIZE).floor().int() - 2
    side = int(((positions.amax(0) / PIXEL_SIZE).ceil().int() + 3 - low).max())
    local = positions - PIXEL_SIZE * (low + side // 2)
    beads = local.numpy(), molecule.masses.numpy(), molecule.spreads.numpy()
    part = torch.from_numpy(render_beads(*beads, side, PIXEL_SIZE))
    z, y, x = (torch.arange(side) + start for start in low.tolist())
    kept = (z >= 0) & (z < len(content))
    content[z[kept, None, None], (y % FIELD)[:, None], x % FIELD] += part[kept]
