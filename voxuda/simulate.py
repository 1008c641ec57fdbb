"""Molecule to subtomogram: packing, rendering, contrast transfer, missing wedge, noise.

The source recipe follows the simulator behind the paper's data (aitom ``geometry/pack/sphere/few``, Liu et al. 2020):
noise is part of the imaging chain and band-limited with it. The target recipe differs on purpose where real data differ:
white detector noise whose level is unpredictable, other defocus, another voxel size, other molecules, and background.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from voxuda.molecules import MASK_THRESHOLD, Molecule, density
from voxuda.optics import apply_filter, ctf, missing_wedge, soft_lowpass
from voxuda.packing import pack_spheres, random_rotations
from voxuda.volumes import InputError


@dataclass(frozen=True)
class Subtomograms:
    """Simulated samples.

    Parameters
    ----------
    volumes, densities, masks : Tensor
        ``(B, 1, D, H, W)``; image, noise-free density in Da/nm³, and density over the threshold.
    table : list of dict
        One row a sample: molecule, snr, defocus and the rest of its parameters.
    voxel_size : float
        Nominal edge of a voxel in angstrom.
    """

    volumes: torch.Tensor
    densities: torch.Tensor
    masks: torch.Tensor
    table: list[dict]
    voxel_size: float


def render(
    molecules: Sequence[Molecule],
    choice: torch.Tensor,
    *,
    size: int,
    voxel_size: torch.Tensor | float,
    generator: torch.Generator,
    max_offset: int = 8,
) -> torch.Tensor:
    """Density of a target molecule among its packed neighbours, in the crop around the target.

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
        The target is off the centre by up to this many voxels along each axis.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)`` in Da/nm³.
    """
    batch, count = choice.shape
    longest = max(len(m.masses) for m in molecules)

    def padded(values: torch.Tensor) -> torch.Tensor:
        missing = longest - len(values)
        return torch.nn.functional.pad(values, [0, 0] * (values.ndim - 1) + [0, missing])

    positions = torch.stack([padded(m.positions) for m in molecules])
    masses = torch.stack([padded(m.masses) for m in molecules])
    spreads = torch.stack([padded(m.spreads) for m in molecules])
    radii = torch.tensor([m.radius for m in molecules])

    centres = pack_spheres(radii[choice], generator) if count > 1 else torch.zeros(batch, 1, 3)
    rotations = random_rotations(batch * count, generator).reshape(batch, count, 3, 3)
    offset = ((torch.rand(batch, 1, 1, 3, generator=generator) - 0.5) * 2 * max_offset).trunc()
    edge = torch.as_tensor(voxel_size, dtype=torch.float32).expand(batch)
    placed = positions[choice] @ rotations.transpose(2, 3) + centres[:, :, None] + offset * edge[:, None, None, None]
    placed, mass, spread = placed.flatten(1, 2), masses[choice].flatten(1), spreads[choice].flatten(1)

    return density(*in_crop(placed, mass, spread, size, edge), size, edge)


def in_crop(
    positions: torch.Tensor, masses: torch.Tensor, spreads: torch.Tensor, size: int, voxel_size: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Only the beads that a crop around the origin sees: beyond four standard deviations a bead adds nothing to it.

    Parameters
    ----------
    positions, masses, spreads : Tensor
        ``(B, N, 3)``, ``(B, N)`` and ``(B, N)``, as :func:`voxuda.molecules.density` takes them.
    size : int
        Side of the crop in voxels.
    voxel_size : Tensor
        ``(B,)`` in angstrom.

    Returns
    -------
    tuple of Tensor
        The same with fewer beads, as many as the fullest crop has; beads of mass 0 fill the others up.
    """
    edge = voxel_size[:, None]
    reach = (size // 2 + 1) * edge + 4 * (spreads.square() + edge.square() / 6).sqrt()
    inside = (positions.abs() <= reach[..., None]).all(-1) & (masses > 0)
    most = int(inside.sum(1).max())
    kept = inside.int().sort(dim=1, descending=True, stable=True).indices[:, :most]
    found = positions.gather(1, kept[..., None].expand(-1, -1, 3))
    return found, (masses * inside).gather(1, kept), spreads.gather(1, kept)


# --- imaging -------------------------------------------------------------------------------------------------------


def _variance(volumes: torch.Tensor) -> torch.Tensor:
    return volumes.var(dim=(-3, -2, -1), keepdim=True, correction=0)


def image_source(
    densities: torch.Tensor,
    snr: torch.Tensor,
    generator: torch.Generator,
    *,
    defocus: float = 50e3,
    voxel_size: float = 10.0,
    wedge_angle: float = 30.0,
) -> torch.Tensor:
    """Image density crops as the paper's source data were imaged (aitom's simple convolution).

    Low-pass; white noise of half the budget; CTF; detector-shaped noise of the other half; low-pass; missing wedge. The
    budget is the variance of the imaged clean crop over the SNR (a plain variance ratio), scaled up by what imaging takes
    away from white noise.

    Parameters
    ----------
    densities : Tensor
        ``(B, 1, D, H, W)`` in Da/nm³.
    snr : Tensor
        ``(B,)`` variance ratio, for example 0.03; infinity for no noise.
    generator : torch.Generator
        Source of randomness.
    defocus, voxel_size : float
        Angstrom; the published data's by default.
    wedge_angle : float
        Degrees lost on each side of the beam.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    size = densities.shape[-1]
    lowpass = soft_lowpass(size, size // 4, 2.0)
    wedge = missing_wedge(size, wedge_angle)
    transfer = ctf(size, voxel_size, defocus)[0, 0]
    detector = soft_lowpass(size, 1.0, 0.2 * size)
    clean = apply_filter(densities, lowpass)
    probe = torch.randn(4, 1, size, size, size, generator=generator)
    loss = _variance(probe).mean() / _variance(apply_filter(probe, transfer * wedge)).mean()
    signal = _variance(apply_filter(clean, transfer * wedge)) * loss
    deviation = (0.5 * signal / snr.reshape(-1, 1, 1, 1, 1)).sqrt()
    before = torch.randn(densities.shape, generator=generator) * deviation
    after = torch.randn(densities.shape, generator=generator) * deviation
    imaged = apply_filter(clean + before, transfer) + apply_filter(after, detector)
    return apply_filter(imaged, lowpass * wedge)


def image_target(
    densities: torch.Tensor,
    snr: torch.Tensor,
    defocus: torch.Tensor,
    voxel_size: torch.Tensor,
    generator: torch.Generator,
    *,
    wedge_angle: float = 30.0,
) -> torch.Tensor:
    """Image density crops with white detector noise that reaches to the Nyquist limit, then the missing wedge.

    Parameters
    ----------
    densities : Tensor
        ``(B, 1, D, H, W)`` in Da/nm³, background included.
    snr, defocus, voxel_size : Tensor
        ``(B,)``; variance ratio, angstrom, angstrom.
    generator : torch.Generator
        Source of randomness.
    wedge_angle : float
        Degrees lost on each side of the beam.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    size = densities.shape[-1]
    wedge = missing_wedge(size, wedge_angle)
    clean = apply_filter(densities, ctf(size, voxel_size, defocus) * wedge)
    deviation = (_variance(clean) / snr.reshape(-1, 1, 1, 1, 1)).sqrt()
    noise = torch.randn(densities.shape, generator=generator) * deviation
    return apply_filter(clean + noise, wedge)


def smooth_background(
    batch: int, shape: tuple[int, int, int], generator: torch.Generator, *, correlation: float = 3.0
) -> torch.Tensor:
    """Cytosol: a Gaussian random field of unit variance, correlated over ``correlation`` voxels, ``(B, 1, *shape)``."""
    white = torch.randn(batch, 1, *shape, generator=generator)
    kz, ky, kx = torch.fft.fftfreq(shape[0]), torch.fft.fftfreq(shape[1]), torch.fft.rfftfreq(shape[2])
    k2 = kz[:, None, None] ** 2 + ky[None, :, None] ** 2 + kx[None, None, :] ** 2
    field = apply_filter(white, torch.exp(-2 * (torch.pi * correlation) ** 2 * k2))
    return field / _variance(field).sqrt()


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


def _in_chunks(total: int, progress: bool, chunk: int = 16) -> Iterator[slice]:
    """Slices of a few samples, whose profiles fit a processor's cache."""
    with tqdm(total=total, unit="sample", desc="simulating", disable=not progress) as bar:
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            yield slice(start, stop)
            bar.update(stop - start)


def _choices(wanted: int, n_each: int, library: int, neighbours: int, generator: torch.Generator) -> torch.Tensor:
    target = torch.arange(wanted).repeat_interleave(n_each)[:, None]
    others = torch.randint(library, (wanted * n_each, neighbours), generator=generator)
    return torch.cat([target, others], 1)


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
    """Labelled source samples: ``n_per_molecule`` of every molecule at every SNR, voxels of 10 angstrom.

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
        Side of the crop.
    neighbours : int
        Molecules packed around each target.
    progress : bool
        Show a progress bar.
    """
    _check(n_per_molecule, snr, molecules, size)
    generator = torch.Generator().manual_seed(seed)
    choice = _choices(len(molecules), n_per_molecule * len(snr), len(molecules), neighbours, generator)
    ratios = torch.tensor(list(snr)).repeat(len(molecules) * n_per_molecule)
    densities, volumes = [], []
    for part in _in_chunks(len(choice), progress):
        densities.append(render(molecules, choice[part], size=size, voxel_size=10.0, generator=generator))
        volumes.append(image_source(densities[-1], ratios[part], generator))
    density_all = torch.cat(densities)
    table = [
        {"molecule": molecules[int(c)].name, "snr": round(float(r), 6), "defocus": 50000.0, "voxel_size": 10.0}
        for c, r in zip(choice[:, 0], ratios, strict=True)
    ]
    return Subtomograms(torch.cat(volumes), density_all, density_all > MASK_THRESHOLD, table, 10.0)


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
    """Target samples whose noise level, defocus and voxel size differ from sample to sample.

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
        Side of the crop.
    neighbours : int
        Molecules packed around each target.
    voxel_size, defocus : tuple of float
        Ranges in angstrom; uniform.
    background : float
        Standard deviation of the cytosol in Da/nm³.
    progress : bool
        Show a progress bar.
    """
    _check(n_per_molecule, snr, molecules, size)
    if not max(snr) < float("inf"):
        raise InputError(f"snr is {list(snr)}; a range ends at a finite variance ratio such as 0.1.")
    generator = torch.Generator().manual_seed(seed)
    choice = _choices(len(molecules), n_per_molecule, len(molecules), neighbours, generator)
    total = len(choice)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(total, generator=generator)

    ratios = uniform(0, 1) * torch.log(torch.tensor(max(snr) / min(snr)))
    ratios = min(snr) * torch.exp(ratios)
    edges, underfocus = uniform(*voxel_size), uniform(*defocus)
    densities, volumes = [], []
    for part in _in_chunks(total, progress):
        clean = render(molecules, choice[part], size=size, voxel_size=edges[part], generator=generator)
        densities.append(clean)
        crowded = clean + background * smooth_background(len(clean), (size, size, size), generator)
        volumes.append(image_target(crowded, ratios[part], underfocus[part], edges[part], generator))
    density_all = torch.cat(densities)
    table = [
        {
            "molecule": molecules[int(choice[i, 0])].name,
            "snr": round(float(ratios[i]), 6),
            "defocus": round(float(underfocus[i]), 1),
            "voxel_size": round(float(edges[i]), 3),
        }
        for i in range(total)
    ]
    nominal = sum(voxel_size) / 2
    return Subtomograms(torch.cat(volumes), density_all, density_all > MASK_THRESHOLD, table, nominal)
