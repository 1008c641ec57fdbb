"""Simulate subtomograms from molecules, by packing, rendering, contrast transfer, missing wedge and noise.

The source recipe follows the simulator behind the paper's data (aitom ``geometry/pack/sphere/few``, Liu et al. 2020):
noise is part of the imaging chain and band-limited with it. The target recipe differs on purpose where real data differ:
white detector noise whose level is unpredictable, other defocus, another voxel size, other molecules, and background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from voxuda.errors import InputError
from voxuda.simulation.imaging import image_source, image_target, smooth_background
from voxuda.simulation.molecules import MASK_THRESHOLD, Molecule
from voxuda.simulation.packing import pull_together, random_rotations, strew_spheres
from voxuda.simulation.rendering import add_beads, render_each


@dataclass(frozen=True)
class Subtomograms:
    """Simulated samples; tensors are ``(B, 1, D, H, W)``."""

    volumes: torch.Tensor  #: Simulated images.
    densities: torch.Tensor  #: Noise-free densities in Da/nm³.
    masks: torch.Tensor  #: Where the density exceeds the threshold.
    table: list[dict]  #: One row per sample, with molecule, snr, defocus and the rest of its parameters.
    voxel_size: float  #: Nominal edge of a voxel in angstrom.


class Poses(NamedTuple):
    """Positions and rotations of ``M`` molecules in each of ``B`` crops."""

    centres: torch.Tensor  #: ``(B, M, 3)`` in angstrom, the target's at the origin.
    rotations: torch.Tensor  #: ``(B, M, 3, 3)``.
    offsets: torch.Tensor  #: ``(B, 3)`` offsets of the target from the middle of the crop, in whole voxels.


def draw_poses(radii: torch.Tensor, generator: torch.Generator, first_step: float | None = None, max_offset: int = 8) -> Poses:
    """Draw random packed poses of molecules with bounding radii ``(B, M)`` in angstrom; see ``pull_together`` for the step."""
    batch, count = radii.shape
    centres = strew_spheres(radii, generator) if count > 1 else torch.zeros(batch, 1, 3)
    rotations = random_rotations(batch * count, generator).reshape(batch, count, 3, 3)
    offsets = ((torch.rand(batch, 3, generator=generator) - 0.5) * 2 * max_offset).trunc()
    return Poses(pull_together(radii, centres, first_step), rotations, offsets)


def render_poses(
    molecules: Sequence[Molecule], choice: torch.Tensor, poses: Poses, *, size: int, voxel_size: torch.Tensor | float
) -> torch.Tensor:
    """Render the density of molecules in given poses, ``(B, 1, D, H, W)`` in Da/nm³; arguments as for :func:`render`."""
    edges = torch.as_tensor(voxel_size, dtype=torch.float32).expand(len(choice))
    centres = (poses.centres + (poses.offsets * edges[:, None])[:, None]).numpy()
    rotations = poses.rotations.numpy()
    beads = [(m.positions.numpy(), m.masses.numpy(), m.spreads.numpy()) for m in molecules]

    def crop(i: int, volume: np.ndarray) -> None:
        edge = float(edges[i])
        for c, rotation, centre in zip(choice[i].tolist(), rotations[i], centres[i], strict=True):
            positions, masses, spreads = beads[c]
            add_beads(volume, positions, masses, spreads, edge, rotation, centre)

    return render_each(len(choice), size, crop)


def render(
    molecules: Sequence[Molecule],
    choice: torch.Tensor,
    *,
    size: int,
    voxel_size: torch.Tensor | float,
    generator: torch.Generator,
    max_offset: int = 8,
) -> torch.Tensor:
    """Render the density of a target molecule among its packed neighbours, in the crop around the target.

    Parameters
    ----------
    molecules : sequence of Molecule
        The library.
    choice : Tensor
        ``(B, M)`` indices into ``molecules``; column 0 is the target, the others its neighbours.
    size : int
        Side of the crop in voxels.
    voxel_size : float or Tensor
        Angstrom, one value or ``(B,)``.
    generator : torch.Generator
        Source of randomness.
    max_offset : int
        The offset of the target from the centre stays below this along each axis, in voxels.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)`` in Da/nm³.
    """
    radii = torch.tensor([m.radius for m in molecules])[choice]
    poses = draw_poses(radii, generator, max_offset=max_offset)
    return render_poses(molecules, choice, poses, size=size, voxel_size=voxel_size)


# --- the two recipes -----------------------------------------------------------------------------------------------


def _check(n_per_molecule: int, snr: Sequence[float], molecules: Sequence[Molecule], size: int) -> None:
    if not molecules:
        raise InputError("no molecule was given; name at least one.")
    if not 1 <= n_per_molecule <= 1_000_000:
        raise InputError(f"n_per_molecule is {n_per_molecule}; it must be at least 1, and at most a million.")
    if not snr or not all(ratio > 0 for ratio in snr):
        raise InputError(f"snr is {list(snr)}; a signal-to-noise ratio is a positive variance ratio such as 0.05.")
    if size % 8 or size < 16:
        raise InputError(f"size is {size}; the network needs a multiple of 8 that is at least 16.")


def _choices(molecules: int, n_each: int, neighbours: int, generator: torch.Generator) -> torch.Tensor:
    target = torch.arange(molecules).repeat_interleave(n_each)[:, None]
    others = torch.randint(molecules, (len(target), neighbours), generator=generator)
    return torch.cat([target, others], 1)


def _simulate(
    molecules: Sequence[Molecule],
    choice: torch.Tensor,
    parameters: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    image: Callable[..., torch.Tensor],
    *,
    size: int,
    voxel_size: float,
    generator: torch.Generator,
    progress: bool,
) -> Subtomograms:
    """Pack and render samples, and image them by ``image(densities, snr, defocus, voxel_size)``; parameters are ``(B,)``."""
    snr, defocus, edges = parameters
    radii = torch.tensor([m.radius for m in molecules])[choice]
    first_step = float(radii.max()) / 10  # of all samples, since that of a part would depend on its other samples
    densities, volumes = (torch.empty(len(choice), 1, size, size, size) for _ in range(2))
    with tqdm(total=len(choice), unit="sample", desc="simulating", disable=not progress) as bar:
        # Sixteen samples are drawn and imaged at once; with another part size a seed would give other samples.
        for first in range(0, len(choice), 16):
            part = slice(first, first + 16)
            poses = draw_poses(radii[part], generator, first_step)
            densities[part] = render_poses(molecules, choice[part], poses, size=size, voxel_size=edges[part])
            volumes[part] = image(densities[part], snr[part], defocus[part], edges[part])
            bar.update(len(choice[part]))
    numbers = [(round(r, 6), round(d, 1), round(e, 3)) for r, d, e in torch.stack(parameters, 1).tolist()]
    table = [
        {"molecule": molecules[c].name, "snr": r, "defocus": d, "voxel_size": e}
        for c, (r, d, e) in zip(choice[:, 0].tolist(), numbers, strict=True)
    ]
    return Subtomograms(volumes, densities, densities > MASK_THRESHOLD, table, voxel_size)


def simulate_source(
    molecules: Sequence[Molecule],
    *,
    n_per_molecule: int = 500,
    snr: Sequence[float] = (0.03, 0.05),
    seed: int = 0,
    size: int = 32,
    neighbours: int = 4,
    progress: bool = False,
) -> Subtomograms:
    """Simulate labelled source samples, ``n_per_molecule`` of every molecule at every SNR, with voxels of 10 angstrom.

    Parameters
    ----------
    molecules : sequence of Molecule
        The targets, and the library from which the neighbours are drawn.
    n_per_molecule : int
        Samples per molecule and SNR.
    snr : sequence of float
        Variance ratios.
    seed : int
        Seed of everything.
    size : int
        Side of the crop in voxels.
    neighbours : int
        Molecules packed around each target.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        There is no molecule, or a number is out of range.
    """
    _check(n_per_molecule, snr, molecules, size)
    generator = torch.Generator().manual_seed(seed)
    choice = _choices(len(molecules), n_per_molecule * len(snr), neighbours, generator)
    ratios = torch.tensor(list(snr), dtype=torch.float32).repeat(len(molecules) * n_per_molecule)
    parameters = ratios, torch.full_like(ratios, 50e3), torch.full_like(ratios, 10.0)

    def image(densities: torch.Tensor, ratios: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return image_source(densities, ratios, generator)

    return _simulate(molecules, choice, parameters, image, size=size, voxel_size=10.0, generator=generator, progress=progress)


def simulate_target(
    molecules: Sequence[Molecule],
    *,
    n_per_molecule: int = 60,
    snr: Sequence[float] = (0.01, 0.1),
    seed: int = 0,
    size: int = 32,
    neighbours: int = 2,
    voxel_size: tuple[float, float] = (12.0, 15.0),
    defocus: tuple[float, float] = (30e3, 60e3),
    background: float = 60.0,
    progress: bool = False,
) -> Subtomograms:
    """Simulate target samples whose noise level, defocus and voxel size vary from sample to sample.

    Parameters
    ----------
    molecules : sequence of Molecule
        The targets, and the library of neighbours.
    n_per_molecule : int
        Samples per molecule.
    snr : sequence of float
        The lowest and highest variance ratio; each sample's is log-uniform between them.
    seed : int
        Seed of everything.
    size : int
        Side of the crop in voxels.
    neighbours : int
        Molecules packed around each target.
    voxel_size, defocus : tuple of float
        Ranges in angstrom, sampled uniformly.
    background : float
        Standard deviation of the cytosol in Da/nm³.
    progress : bool
        Show a progress bar.
    """
    _check(n_per_molecule, snr, molecules, size)
    if not max(snr) < float("inf"):
        raise InputError(f"snr is {list(snr)}; the range must end at a finite variance ratio such as 0.1.")
    generator = torch.Generator().manual_seed(seed)
    choice = _choices(len(molecules), n_per_molecule, neighbours, generator)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(choice), generator=generator)

    ratios = min(snr) * torch.exp(uniform(0, 1) * torch.log(torch.tensor(max(snr) / min(snr))))
    edges, underfocus = uniform(*voxel_size), uniform(*defocus)

    def image(densities: torch.Tensor, ratios: torch.Tensor, underfocus: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        cytosol = background * smooth_background(len(densities), (size, size, size), generator)
        return image_target(densities + cytosol, ratios, underfocus, edges, generator)

    return _simulate(
        molecules,
        choice,
        (ratios, underfocus, edges),
        image,
        size=size,
        voxel_size=sum(voxel_size) / 2,
        generator=generator,
        progress=progress,
    )
