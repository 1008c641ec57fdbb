"""Simulate a target by tilt series of whole specimens, and cut subtomograms out of their tomograms.

Dose, thickness, defocus, tilt range and alignment vary from specimen to specimen, so the noise level of a subtomogram is
unknown. :func:`voxuda.simulation.microscope.record` lists what is modelled and what is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from voxuda.errors import InputError
from voxuda.signal.resize import fourier_resize
from voxuda.simulation.microscope import CONCENTRATION, DEFOCUS, DOSE, THICKNESS, Series, draw_series, reconstruct, record
from voxuda.simulation.molecules import MASK_THRESHOLD, Molecule, load
from voxuda.simulation.quick import Subtomograms
from voxuda.simulation.rendering import add_beads, render_each
from voxuda.simulation.specimen import FIELD, PIXEL_SIZE, Specimen, build_specimen

PROPORTIONS = (901, 66, 66)
"""Numbers of ribosomes, 26S proteasomes and TRiC in the paper's target data."""

BOX = 42
"""Side of a crop in voxels of the tomogram; the crop is rescaled to 32."""

OFF_CENTRE = 8
"""Largest offset, in voxels along each axis, of a molecule from the middle of its crop, as in the source. If all molecules
were centred, a ball in the middle would score half, whatever the image."""

CROWDERS = ("1qvr", "2cg9", "3d2f", "1u6g")
"""Chaperones and other complexes of 157 to 257 kDa, which are in no source set of the paper."""

LIMITS = {
    "dose": (1.0, 1e3),
    "thickness": (600.0, 5e3),
    "defocus": (1e3, 2e5),
    "concentration": (0.0, 400.0),
    "phase_shift": (0.0, 180.0),
}
"""Accepted range of each parameter of :func:`simulate_tilt_series`, in its units."""


def cut(tomogram: torch.Tensor, centres: torch.Tensor, box: int) -> torch.Tensor:
    """Cut cubes ``(K, 1, box, box, box)`` around integer voxels ``(K, 3)``; the field repeats along y and x."""
    steps = torch.arange(box) - box // 2
    z, y, x = ((centres[:, axis, None] + steps).to(tomogram.device) for axis in range(3))
    y, x = y % FIELD, x % FIELD
    return tomogram[z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]][:, None]


def truth(specimen: Specimen, centres: torch.Tensor, size: int, voxel_size: float) -> torch.Tensor:
    """Render the noise-free density ``(K, 1, size, size, size)`` of all molecules around voxels ``(K, 3)``, in Da/nm³."""
    positions, masses, spreads = (values.cpu().numpy() for values in specimen.beads)
    period = np.float32(PIXEL_SIZE * FIELD)

    def crop(k: int, volume: np.ndarray) -> None:
        apart = positions - np.float32(PIXEL_SIZE) * centres[k].numpy().astype(np.float32)
        apart[:, 1:] -= period * np.rint(apart[:, 1:] / period)
        add_beads(volume, apart, masses, spreads, voxel_size)

    return render_each(len(centres), size, crop)


# --- the recipe ----------------------------------------------------------------------------------------------------


def class_counts(total: int, proportions: Sequence[float]) -> list[int]:
    """Split ``total`` into whole numbers in the given proportions, by largest remainder."""
    exact = [total * p / sum(proportions) for p in proportions]
    counts = [int(e) for e in exact]
    for i in sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])[: total - sum(counts)]:
        counts[i] += 1
    return counts


def simulate_tilt_series(
    molecules: Sequence[Molecule],
    *,
    n: int = 300,
    proportions: Sequence[float] | None = None,
    seed: int = 0,
    size: int = 32,
    dose: tuple[float, float] = DOSE,
    thickness: tuple[float, float] = THICKNESS,
    defocus: tuple[float, float] = DEFOCUS,
    concentration: tuple[float, float] = CONCENTRATION,
    phase_shift: tuple[float, float] = (0.0, 0.0),
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Subtomograms:
    """Simulate target samples by tilt series, up to six per specimen.

    Specimens are simulated one at a time, with their images as a batch. Samples of one specimen share ice, dose and, where they
    are neighbours, voxels; the table's ``specimen`` keeps them together when a domain is split. Masks include every molecule in
    the crop, crowders too; vesicles and small proteins are background. Centres are off by up to ``OFF_CENTRE`` voxels along
    each axis.

    Parameters
    ----------
    molecules, n, proportions
        The molecules of interest, the total number of samples, and the share of each molecule (by default ``PROPORTIONS`` for
        three molecules, else equal).
    seed : int
        Seed of everything; it gives the same samples on the same machine with the same number of threads.
    size : int
        Side of a sample; a crop 1.3 times as large is rescaled to it, which gives voxels of 13.5 angstrom.
    dose, thickness, defocus, concentration, phase_shift : tuple of float
        Ranges in e/Å², Å, Å, mg/ml and degrees, see :func:`~voxuda.simulation.microscope.draw_series`.
    device, progress
        Where to compute images and tomograms, and whether to show a progress bar.

    Raises
    ------
    InputError
        A number or range is outside the accepted limits, or a molecule is larger than the field.
    """
    if proportions is None:
        proportions = PROPORTIONS if len(molecules) == len(PROPORTIONS) else [1] * len(molecules)
    ranges = dict(dose=dose, thickness=thickness, defocus=defocus, concentration=concentration, phase_shift=phase_shift)
    _check(molecules, n, proportions, size, ranges)
    generator = torch.Generator().manual_seed(seed)
    imaging = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    counts = class_counts(n, proportions)
    queue = [m for m, count in zip(molecules, counts, strict=True) for _ in range(count)]
    queue = [queue[i] for i in torch.randperm(n, generator=generator).tolist()]
    crowders = [*molecules, *(load(name) for name in CROWDERS)]
    box = 2 * round(BOX / 32 * size / 2)  # even, so that the middle voxel stays in the middle when rescaled
    voxel_size = PIXEL_SIZE * box / size
    depth = 2 * round((max(thickness) / PIXEL_SIZE + box) / 2) + 2  # the same for all, so projection matrices are made once
    volumes, densities, table = [], [], []
    bar = tqdm(total=n, unit="sample", desc="simulating", disable=not progress)
    number = 0
    while queue:
        series = draw_series(generator, **ranges)
        specimen = build_specimen(
            queue, crowders, series.thickness, depth, generator, concentration=series.concentration, device=device
        )
        images = record(specimen.density, series, imaging)
        tomogram = reconstruct(images, series, depth)
        off = OFF_CENTRE * (2 * torch.rand(specimen.centres.shape, generator=generator) - 1)
        picked = (specimen.centres + off).round().long()
        picked[:, 0].clamp_(box // 2, depth - box // 2)
        volumes.append(fourier_resize(cut(tomogram, picked, box), (size, size, size)).cpu())
        densities.append(truth(specimen, picked, size, voxel_size).cpu())
        for name in specimen.names:
            queue.pop(next(i for i, m in enumerate(queue) if m.name == name))
            table.append({"molecule": name, "specimen": number, **_about(series), "voxel_size": round(voxel_size, 3)})
        number += 1
        bar.update(len(specimen.names))
    bar.close()
    density_all = torch.cat(densities)
    return Subtomograms(torch.cat(volumes), density_all, density_all > MASK_THRESHOLD, table, voxel_size)


def _about(series: Series) -> dict:
    """Return a series' entries in the table."""
    return {
        "dose": round(series.dose, 1),
        "thickness": round(series.thickness),
        "defocus": round(series.defocus),
        "phase_shift": round(series.phase_shift),
        "concentration": round(series.concentration),
        "tilts": f"{series.angles.min():.0f} to {series.angles.max():.0f}",
        "scheme": "bidirectional" if series.angles[2] > series.angles[1] else "dose-symmetric",
        "misalignment": round(series.misalignment, 2),
        "weighting": series.weighting,
    }


def _check(
    molecules: Sequence[Molecule], n: int, proportions: Sequence[float], size: int, ranges: dict[str, tuple[float, float]]
) -> None:
    if not molecules or len(proportions) != len(molecules) or not all(0 < p < math.inf for p in proportions):
        raise InputError(
            f"{len(molecules)} molecules in proportions {list(proportions)}; give one positive number per molecule."
        )
    for molecule in molecules:
        if 2 * molecule.radius > FIELD * PIXEL_SIZE:
            raise InputError(
                f"{molecule.name}: {2 * molecule.radius:.0f} angstrom across; the field is only {FIELD * PIXEL_SIZE:.0f}."
            )
    if not 1 <= n <= 1_000_000:
        raise InputError(f"n is {n}; it must be at least 1, and at most a million.")
    if size % 8 or not 16 <= size <= 64:
        raise InputError(f"size is {size}; it must be a multiple of 8 from 16 to 64.")
    for name, (low, high) in ranges.items():
        least, most = LIMITS[name]
        if not least <= low <= high <= most:
            raise InputError(f"{name} is {low:g} to {high:g}; give the lower first, both between {least:g} and {most:g}.")
