"""Density crops to noisy images of them: as the source was made, as the target is, and by way of a tilt series."""

from __future__ import annotations

from typing import NamedTuple

import torch

from voxuda.optics import contrast_transfer, ctf, missing_wedge, soft_lowpass, spectral_variance, spectrum, volume_of
from voxuda.tilts import backproject, detector_width, project, tilt_angles, weighting

TILTS = tilt_angles(-60, 60)
"""Degrees, every three, of :func:`image_tilts`."""


class SourceNoise(NamedTuple):
    """White noise of unit variance for :func:`image_source`, drawn beforehand."""

    probe: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


def source_noise(batch: int, size: int, generator: torch.Generator) -> SourceNoise:
    """Four volumes that probe what imaging takes from white noise; noise before and after contrast transfer."""
    return SourceNoise(*(torch.randn(n, 1, size, size, size, generator=generator) for n in (4, batch, batch)))


def image_source(
    densities: torch.Tensor,
    snr: torch.Tensor,
    noise: SourceNoise | torch.Generator,
    *,
    defocus: float = 50e3,
    voxel_size: float = 10.0,
    wedge_angle: float = 30.0,
) -> torch.Tensor:
    """Image density crops as the paper's source data were imaged (aitom's simple convolution).

    Low-pass; white noise of half the budget; CTF; detector-shaped noise of the other half; low-pass; missing wedge. The
    budget is the variance of the imaged clean crop over the SNR (a plain variance ratio), scaled up by what imaging takes
    away from white noise. All of it is linear, so it is done on spectra, and only the sum is transformed back.

    Parameters
    ----------
    densities : Tensor
        ``(B, 1, D, H, W)`` in Da/nm³.
    snr : Tensor
        ``(B,)`` variance ratio, for example 0.03; infinity for no noise.
    noise : SourceNoise or torch.Generator
        The noise, or what to draw it with.
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
    drawn = source_noise(len(densities), size, noise) if isinstance(noise, torch.Generator) else noise
    lowpass = soft_lowpass(size, size // 4, 2.0)
    wedge = missing_wedge(size, wedge_angle)
    transfer = ctf(size, voxel_size, defocus)[0, 0]
    detector = soft_lowpass(size, 1.0, 0.2 * size)
    imaged = spectrum(densities).mul_(lowpass * transfer)
    probe = spectrum(drawn.probe)
    loss = spectral_variance(probe, size).mean() / spectral_variance(probe * (transfer * wedge), size).mean()
    signal = spectral_variance(imaged * wedge, size) * loss
    deviation = (0.5 * signal / snr.reshape(-1, 1, 1, 1, 1)).sqrt()
    disturbance = spectrum(drawn.before).mul_(transfer).add_(spectrum(drawn.after).mul_(detector))
    return volume_of(imaged.add_(disturbance.mul_(deviation)).mul_(lowpass * wedge), size)


def image_target(
    densities: torch.Tensor,
    snr: torch.Tensor,
    defocus: torch.Tensor,
    voxel_size: torch.Tensor,
    noise: torch.Tensor | torch.Generator,
    *,
    wedge_angle: float = 30.0,
) -> torch.Tensor:
    """Image density crops with white detector noise that reaches to the Nyquist limit, then the missing wedge.

    The ratio is that of the clean image to the noise as drawn; the wedge takes about two thirds of the noise afterwards, so the
    ratio within the result is about three times as large.

    Parameters
    ----------
    densities : Tensor
        ``(B, 1, D, H, W)`` in Da/nm³, background included.
    snr, defocus, voxel_size : Tensor
        ``(B,)``; variance ratio, angstrom, angstrom.
    noise : Tensor or torch.Generator
        White noise of unit variance ``(B, 1, D, H, W)``, or what to draw it with.
    wedge_angle : float
        Degrees lost on each side of the beam.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    size = densities.shape[-1]
    drawn = torch.randn(densities.shape, generator=noise) if isinstance(noise, torch.Generator) else noise
    wedge = missing_wedge(size, wedge_angle)
    imaged = spectrum(densities).mul_(ctf(size, voxel_size, defocus).mul_(wedge))
    deviation = (spectral_variance(imaged, size) / snr.reshape(-1, 1, 1, 1, 1)).sqrt()
    return volume_of(imaged.add_(spectrum(drawn).mul_(deviation)).mul_(wedge), size)


def image_tilts(
    densities: torch.Tensor,
    snr: torch.Tensor,
    defocus: torch.Tensor,
    voxel_size: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """Image density crops by a tilt series each: project, CTF, noise, flip phases, back-project; a batch at once.

    What :func:`image_target` does to spectra, done as a microscope does it, with 41 tilts from -60 to 60 degrees. Simpler than
    :mod:`voxuda.microscope`: a crop repeats along x and nothing lies above or below, noise is white and the same at each tilt.

    Parameters
    ----------
    densities : Tensor
        ``(B, 1, D, D, D)`` in Da/nm³, background included.
    snr, defocus, voxel_size : Tensor
        ``(B,)``; variance ratio in the images, all tilts together; angstrom; angstrom.
    noise : Tensor
        White noise of unit variance, of :func:`tilt_noise`.

    Returns
    -------
    Tensor
        ``(B, 1, D, D, D)``.
    """
    size = densities.shape[-1]
    images = project(densities[:, 0], TILTS)
    height, pixels = images.shape[2:]
    ky, kx = torch.fft.fftfreq(height), torch.fft.rfftfreq(pixels)
    f = (ky[:, None] ** 2 + kx**2).sqrt() / voxel_size[:, None, None, None]
    transfer = contrast_transfer(f, defocus[:, None, None, None])  # one for all tilts: (B, 1, H, U // 2 + 1)
    imaged = torch.fft.rfft2(images) * transfer
    variance = spectral_variance(imaged[..., None, :, :], pixels).mean(1)
    disturbance = torch.fft.rfft2(noise) * (variance / snr.reshape(-1, 1, 1, 1)).sqrt()
    flipped = (imaged + disturbance) * (transfer.sign() * weighting(pixels))
    filtered = torch.fft.irfft2(flipped, s=(height, pixels))
    return backproject(filtered, TILTS, size, size)[:, None] / len(TILTS)


def tilt_noise(batch: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """White noise ``(B, T, H, U)`` of unit variance for :func:`image_tilts`."""
    return torch.randn(batch, len(TILTS), size, detector_width(size, size, TILTS), generator=generator)


def smooth_background(
    batch: int, shape: tuple[int, int, int], generator: torch.Generator, *, correlation: float = 3.0
) -> torch.Tensor:
    """Cytosol: a Gaussian random field of unit variance, correlated over ``correlation`` voxels, ``(B, 1, *shape)``."""
    white = torch.randn(batch, 1, *shape, generator=generator)
    kz, ky, kx = torch.fft.fftfreq(shape[0]), torch.fft.fftfreq(shape[1]), torch.fft.rfftfreq(shape[2])
    k2 = kz[:, None, None] ** 2 + ky[None, :, None] ** 2 + kx[None, None, :] ** 2
    half = spectrum(white).mul_(torch.exp(-2 * (torch.pi * correlation) ** 2 * k2))
    return volume_of(half / spectral_variance(half, shape[2]).sqrt(), shape[2])
