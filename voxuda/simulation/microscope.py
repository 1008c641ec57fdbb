"""Image a specimen at each tilt, and reconstruct the tomogram from the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch_ctf import calculate_ctf_2d

from voxuda.signal.optics import critical_exposure, wavelength
from voxuda.signal.tilts import Scheme, Weighting, backproject, project, tilt_angles, weighting
from voxuda.simulation.specimen import FIELD, PIXEL_SIZE, PROTEIN_DENSITY, PROTEIN_POTENTIAL

RANGES = ((-60.0, 60.0), (-50.0, 70.0))
"""Tilt ranges in degrees. The second has its middle at 10°, a possible pre-tilt of a lamella (Wietrzynski et al. 2025)."""

DOSE = (60.0, 145.0)
"""Electrons per Å² over a series, around the 120 and 130 in lamellae of Wietrzynski et al. 2025 and Klumpe et al. 2021."""

THICKNESS = (1000.0, 2500.0)
"""Thickness of a lamella, in angstrom (Elferich et al. 2022)."""

DEFOCUS = (20e3, 50e3)
"""Underfocus in angstrom without a phase plate, from just below the 25e3 of Klumpe et al. 2021 and Wietrzynski et al. 2025."""

PHASE_PLATE = dict(defocus=(3e3, 10e3), phase_shift=(54.0, 126.0))
"""Defocus in angstrom and phase shift in degrees with a Volta plate, which shifts by about a quarter wave (Danev et al. 2014);
its drift is our choice."""

CONCENTRATION = (150.0, 300.0)
"""Concentration of everything in the ice, in mg/ml, as 2 to 4 million proteins of 44 kDa per cubic micrometre (Milo 2013)."""

VOLTAGE = 300.0  # kilovolt
SPHERICAL_ABERRATION = 2.7  # millimetre
AMPLITUDE_CONTRAST = 0.07
MEAN_FREE_PATH = 3950.0  # angstrom, for inelastic scattering in ice at 300 kV, measured by Rice et al. 2018
DETECTOR_TRANSFER = 0.4  # at the Nyquist frequency of the detector
DETECTOR_BINNING = 3
QUANTUM_EFFICIENCY = 0.6  # of the detector at low frequency; our choice, slightly below the best counting detectors


@dataclass(frozen=True)
class Series:
    """How one tilt series is recorded; lengths are in angstrom."""

    angles: torch.Tensor  #: ``(T,)`` degrees, in the order of recording.
    dose: float  #: Electrons per Å² over the whole series.
    defocus: float  #: Defocus; underfocus is positive.
    astigmatism: float  #: Half the difference of the two principal defoci.
    astigmatism_angle: float  #: Angle of astigmatism in degrees.
    thickness: float  #: Thickness of the ice.
    offset: float  #: Distance of the field from the tilt axis along x; tilting by θ raises the field by offset · sin θ.
    misalignment: float  #: Standard deviation of each image's residual shift along each axis, in voxels.
    weighting: Weighting  #: Weighting of the reconstruction.
    concentration: float = 200.0  #: Concentration of everything in the ice, in mg/ml.
    phase_shift: float = 0.0  #: Phase shift by a phase plate, in degrees; 0 without one.


def draw_series(
    generator: torch.Generator,
    *,
    dose: tuple[float, float] = DOSE,
    thickness: tuple[float, float] = THICKNESS,
    defocus: tuple[float, float] = DEFOCUS,
    concentration: tuple[float, float] = CONCENTRATION,
    phase_shift: tuple[float, float] = (0.0, 0.0),
) -> Series:
    """Draw a series at random, with dose log-uniform and all else uniform in ranges in the units of :class:`Series`."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    def one_of(choices: Sequence):
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    low, high = one_of(RANGES)
    return Series(
        angles=tilt_angles(low, high, 3.0, one_of(get_args(Scheme))),
        dose=dose[0] * (dose[1] / dose[0]) ** uniform(0, 1),
        defocus=uniform(*defocus),
        astigmatism=uniform(0, 1000),
        astigmatism_angle=uniform(0, 180),
        thickness=uniform(*thickness),
        offset=uniform(-3000, 3000),
        misalignment=uniform(0, 0.7),
        weighting=one_of(get_args(Weighting)),
        concentration=uniform(*concentration),
        phase_shift=uniform(*phase_shift),
    )


def interaction_constant(kilovolt: float) -> float:
    """Compute the relativistic interaction constant, the phase in rad that an electron gains per volt and angstrom."""
    rest = 510.999  # keV
    per_volt = 2 * torch.pi / (wavelength(1e3 * kilovolt) * 1e3 * kilovolt)
    return per_volt * (rest + kilovolt) / (2 * rest + kilovolt)


# --- images --------------------------------------------------------------------------------------------------------


def _frequency(shape: tuple[int, int]) -> torch.Tensor:
    """Length of the frequency vector in 1/Å, ``(H, U // 2 + 1)``."""
    ky, kx = torch.fft.fftfreq(shape[0], PIXEL_SIZE), torch.fft.rfftfreq(shape[1], PIXEL_SIZE)
    return (ky[:, None] ** 2 + kx**2).sqrt()


def _contrast_transfer(defocus: torch.Tensor, series: Series, shape: tuple[int, int]) -> torch.Tensor:
    """CTF ``(T, H, U // 2 + 1)`` at defoci ``(T,)`` in angstrom; positive at low frequency."""
    return calculate_ctf_2d(
        defocus=defocus / 1e4,
        astigmatism=series.astigmatism / 1e4,
        astigmatism_angle=series.astigmatism_angle,
        voltage=VOLTAGE,
        spherical_aberration=SPHERICAL_ABERRATION,
        amplitude_contrast=AMPLITUDE_CONTRAST,
        phase_shift=series.phase_shift,
        pixel_size=PIXEL_SIZE,
        image_shape=shape,
        rfft=True,
        fftshift=False,
    )


def local_defocus(series: Series) -> torch.Tensor:
    """Compute the defocus ``(T,)`` in angstrom in the middle of the field, less at tilts that raise it towards the source."""
    return series.defocus - series.offset * torch.deg2rad(series.angles).sin()


def exposure_filter(series: Series, shape: tuple[int, int]) -> torch.Tensor:
    """Compute the signal left by radiation damage in each image, ``(T, H, U // 2 + 1)``, exp(-N / 2 N_e) after exposure N."""
    before = series.dose / len(series.angles) * torch.arange(len(series.angles))
    return torch.exp(-before[:, None, None] / (2 * critical_exposure(_frequency(shape))))


def ideal_images(density: torch.Tensor, series: Series) -> torch.Tensor:
    r"""Compute the contrast ``(T, H, U)`` of each image of a specimen before electrons are counted, about 0, protein dark.

    The phase of the electron wave is :math:`\varphi = \sigma \int V`; a weak phase gives the contrast
    :math:`-2\,\mathcal{F}^{-1}[\mathrm{CTF} \cdot \mathcal{F}\varphi]`. At tilt θ the middle of the field lies offset · sin θ
    above the axis, and point u of the image a further u tan θ; both reduce the defocus. Three CTFs, at the left end, the
    middle and the right end of the image, are blended linearly in between. The density is that of a
    :class:`~voxuda.simulation.specimen.Specimen`.
    """
    potential = density * PROTEIN_POTENTIAL / PROTEIN_DENSITY
    phase = interaction_constant(VOLTAGE) * PIXEL_SIZE * project(potential[None], series.angles)[0]
    shape = (phase.shape[1], phase.shape[2])
    spectrum = torch.fft.rfft2(phase) * exposure_filter(series, shape).to(phase.device)
    if series.phase_shift:  # the mean phase is that of the undiffracted beam, so the plate turns none of it into contrast
        spectrum[:, 0, 0] = 0
    u = torch.linspace(-1, 1, shape[1])
    tilt = torch.deg2rad(series.angles)
    contrast = torch.zeros_like(phase)
    for node in (-1, 0, 1):
        height = node * PIXEL_SIZE * shape[1] / 2 * tilt.tan()
        transfer = _contrast_transfer(local_defocus(series) - height, series, shape).to(phase.device)
        share = (1 - (u - node).abs()).clamp_min(0).to(phase.device)
        contrast += share * torch.fft.irfft2(-2 * transfer * spectrum, s=shape)
    return contrast


def record(density: torch.Tensor, series: Series, generator: torch.Generator) -> torch.Tensor:
    """Record images ``(T, H, U)`` of a specimen with a counting detector, in electrons per pixel, protein dark.

    Modelled: projection of everything in the slab, contrast transfer with astigmatism, a phase plate and a defocus that changes
    with tilt and position, radiation damage, loss of electrons in ice, Poisson statistics of the dose, the detector's
    modulation transfer, and residual shifts after alignment. Left out: multiple scattering, the depth of field within the slab,
    beam-induced motion, charging, energy loss other than as lost electrons, and the stronger scattering of RNA, which displaces
    less ice than protein of the same mass. The density is that of a :class:`~voxuda.simulation.specimen.Specimen`; the
    generator is on its device.
    """
    device = density.device
    path = series.thickness / torch.deg2rad(series.angles).cos()
    electrons = QUANTUM_EFFICIENCY * series.dose / len(series.angles) * PIXEL_SIZE**2 * torch.exp(-path / MEAN_FREE_PATH)
    expected = electrons.to(device)[:, None, None] * (1 + ideal_images(density, series)).clamp_min(0)
    counts = torch.poisson(expected, generator=generator)
    shape = (counts.shape[1], counts.shape[2])
    detector_nyquist = DETECTOR_BINNING / (2 * PIXEL_SIZE)
    transfer = DETECTOR_TRANSFER ** (_frequency(shape) / detector_nyquist).square()
    ky, kx = torch.fft.fftfreq(shape[0]), torch.fft.rfftfreq(shape[1])
    shift = series.misalignment * torch.randn(2, len(series.angles), 1, 1, generator=generator, device=device)
    moved = torch.polar(transfer.to(device), -2 * torch.pi * (ky.to(device)[:, None] * shift[0] + kx.to(device) * shift[1]))
    return torch.fft.irfft2(torch.fft.rfft2(counts) * moved, s=shape)


# --- tomogram ------------------------------------------------------------------------------------------------------


def reconstruct(images: torch.Tensor, series: Series, depth: int, *, correct: bool = True) -> torch.Tensor:
    """Reconstruct a tomogram ``(depth, H, W)`` from images of :func:`record`, protein bright, with mean about 0.

    This is weighted back-projection. Each image is divided by its mean, inverted to protein bright, phase-flipped where the CTF
    in the middle of the field is negative (if ``correct``), weighted by exposure, then by the ramp or the SIRT-like filter
    along u, and smeared back. The defocus of each image is assumed known, and constant over the image.
    """
    shape = (images.shape[1], images.shape[2])
    contrast = 1 - images / images.mean((1, 2), keepdim=True)
    filters = exposure_filter(series, shape) * weighting(shape[1], series.weighting)
    if correct:
        filters = filters * _contrast_transfer(local_defocus(series), series, shape).sign()
    filtered = torch.fft.irfft2(torch.fft.rfft2(contrast) * filters.to(images.device), s=shape)
    return backproject(filtered[None], series.angles, depth, FIELD)[0] / len(series.angles)
