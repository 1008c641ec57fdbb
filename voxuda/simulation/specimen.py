"""Build a cell-like specimen, a slab of ice crowded with complexes, membranes and small proteins, sometimes with gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from voxuda.simulation.molecules import Molecule
from voxuda.simulation.packing import fill_gaps, place_spheres, random_rotations
from voxuda.simulation.rendering import render_beads

PIXEL_SIZE = 10.26
"""Angstrom per voxel, a detector pixel of 3.42 binned by three."""

FIELD = 96
"""Side of a specimen along y and x in voxels; the specimen is periodic along both."""

PER_SPECIMEN = 6
"""Largest number of molecules of interest per specimen."""

VESICLES = 6
"""Number of vesicles to place, if there is room."""

COMPLEXES = 0.3
"""Largest share of the ice that bounding spheres of complexes fill; vesicles are extra, and small proteins fill the gaps."""

SMALL_PROTEIN = 50e3
"""Mass in dalton of the proteins in the gaps, which are unlabelled balls; about that of the mean protein of a human cell."""

GOLD_SHARE, GOLD_RADIUS = 0.1, 50.0
"""Share of specimens with a gold bead, and its radius in angstrom."""

PROTEIN_DENSITY = 810.0
"""Density of solid protein, in Da/nm³."""

PROTEIN_POTENTIAL = 3.37
"""Mean inner potential of solid protein minus that of vitreous ice, in volt.

A mean inner potential is 47.88 V Å² times the sum of the electron scattering factors at angle 0, per volume (Peng et al.
1996). It is 7.90 V for the average residue, C4.94 H7.76 N1.36 O1.48 S0.04, at 810 Da/nm³, and 4.53 V for ice at 0.93 g/cm³.
"""

DALTON_PER_NM3 = 0.6022
"""Density of 1 mg/ml, in Da/nm³."""

GOLD_DENSITY = PROTEIN_DENSITY * (29.8 - 4.5) / PROTEIN_POTENTIAL
"""Density of protein, in Da/nm³, with the same potential above ice as gold.

Gold has 29.8 V, from a scattering factor of 10.56 Å in 16.96 Å³ (Doyle and Turner 1968).
"""


@dataclass(frozen=True)
class Specimen:
    """A slab of vitreous ice, which repeats along y and x."""

    density: torch.Tensor  #: ``(D, H, W)`` potential of everything above that of ice, as a density of protein in Da/nm³.
    centres: torch.Tensor  #: ``(K, 3)`` voxel coordinates z, y, x of the molecules of interest.
    names: list[str]  #: Names of those molecules.
    #: Positions ``(N, 3)`` in angstrom from voxel 0, masses ``(N,)`` and spreads ``(N,)`` of all complexes.
    beads: tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def vesicle(depth: int, centre: torch.Tensor, radius: float) -> torch.Tensor:
    """Compute the density ``(D, H, W)`` of a spherical lipid bilayer, in Da/nm³ of protein; centre and radius are in voxels.

    Two layers of head groups are 38 Å apart, with tails between them. Tails scatter electrons more than ice, since they contain
    much hydrogen, but less than heads.
    """
    z, y, x = (torch.arange(n, dtype=torch.float32) - c for n, c in zip((depth, FIELD, FIELD), centre.tolist(), strict=True))
    y, x = ((v + FIELD / 2) % FIELD - FIELD / 2 for v in (y, x))
    height = PIXEL_SIZE * ((z[:, None, None] ** 2 + y[:, None] ** 2 + x**2).sqrt() - radius)

    def layer(middle: float, width: float, value: float) -> torch.Tensor:
        variance = width**2 + PIXEL_SIZE**2 / 6  # plus that of the kernel that spreads beads over voxels
        return value * width / variance**0.5 * torch.exp((-((height - middle) ** 2) / (2 * variance)).clamp_min(-25))

    return layer(-19, 5, 700) + layer(19, 5, 700) + layer(0, 10, 400)


def balls(voxels: torch.Tensor, radius: float, density: float, depth: int) -> torch.Tensor:
    """Compute the density ``(D, H, W)`` of equal solid balls around voxels ``(K, 3)``; the radius is in angstrom."""
    grid = torch.zeros(depth, FIELD, FIELD)
    grid.index_put_(voxels.unbind(1), torch.ones(len(voxels)), accumulate=True)
    frequencies = torch.meshgrid(*(torch.fft.fftfreq(n) for n in (depth, FIELD)), torch.fft.rfftfreq(FIELD), indexing="ij")
    k = torch.stack(frequencies).norm(dim=0) / PIXEL_SIZE
    q = (2 * torch.pi * k * radius).clamp_min(1e-2)  # cancellation in float32 below that
    shape = 3 * (q.sin() - q * q.cos()) / q**3  # the Fourier transform of a ball of volume 1
    kernel = torch.exp(-((2 * torch.pi * k * PIXEL_SIZE) ** 2) / 12)  # like the one that spreads beads over voxels
    volume = 4 / 3 * torch.pi * (radius / PIXEL_SIZE) ** 3
    return density * volume * torch.fft.irfftn(torch.fft.rfftn(grid) * shape * kernel, s=grid.shape)


def dilate(solid: torch.Tensor, reach: int) -> torch.Tensor:
    """Mark voxels within ``reach`` voxels of solid ones along each axis, ``(D, H, W)`` bool; the field repeats."""
    grown = torch.nn.functional.pad(solid.float()[None], (reach,) * 4 + (0, 0), "circular")
    for axis in range(3):  # dilate by a cube, one axis at a time
        kernel = [2 * reach + 1 if i == axis else 1 for i in range(3)]
        grown = torch.nn.functional.max_pool3d(grown, kernel, 1, (reach if axis == 0 else 0, 0, 0))
    return grown[0] > 0


def solution(content: torch.Tensor, thickness: float, concentration: float, generator: torch.Generator) -> torch.Tensor:
    """Fill the gaps of ``content`` with small proteins up to a total concentration, and return their density ``(D, H, W)``.

    As in a crowded liquid, and unlike in a gas, proteins do not overlap, so their density is even over long distances.
    It and ``content`` ``(D, H, W)`` are in Da/nm³; thickness is in angstrom, concentration in mg/ml of the slab.
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
    """Build a specimen from the first of the wanted molecules, vesicles, other complexes, and small proteins in the gaps.

    Parameters
    ----------
    wanted : sequence of Molecule
        The molecules of interest, in order of preference; the first is always placed.
    crowders : sequence of Molecule
        Other complexes, drawn at random for the remaining room.
    thickness : float
        Thickness of the ice, in angstrom.
    depth : int
        Voxels along z.
    generator : torch.Generator
        Source of randomness.
    concentration : float
        Concentration of everything, in mg/ml.
    device : device
        Where densities are computed.

    Returns
    -------
    Specimen
        ``names`` lists the wanted molecules that found room.
    """
    layers = thickness / PIXEL_SIZE

    def in_voxels(molecule: Molecule) -> float:
        return molecule.radius / PIXEL_SIZE

    # Few of the wanted per specimen, so that many specimens are needed.
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
    """Add a molecule with beads at ``positions`` to the slab, in place."""
    low = (positions.amin(0) / PIXEL_SIZE).floor().int() - 2
    side = int(((positions.amax(0) / PIXEL_SIZE).ceil().int() + 3 - low).max())
    local = positions - PIXEL_SIZE * (low + side // 2)
    beads = local.numpy(), molecule.masses.numpy(), molecule.spreads.numpy()
    part = torch.from_numpy(render_beads(*beads, side, PIXEL_SIZE))
    z, y, x = (torch.arange(side) + start for start in low.tolist())
    kept = (z >= 0) & (z < len(content))
    content[z[kept, None, None], (y % FIELD)[:, None], x % FIELD] += part[kept]
