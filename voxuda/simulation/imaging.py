"""Turn density crops into noisy images, by the recipe of the source or of the quick target.

Densities are ``(B, 1, D, D, D)`` in Da/nm³, and images have their shape. ``snr`` is ``(B,)``, a ratio of variances such as
0.03. Defocus and voxel size are in angstrom.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from voxuda.signal.fourier import soft_lowpass, spectral_variance, spectrum, volume_of
from voxuda.signal.optics import ctf, missing_wedge

CORRELATION = 3.0
"""Standard deviation of the Gaussian that smooths the cytosol, in voxels."""


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

    The steps are low-pass, white noise of half the variance, CTF, detector-shaped noise of the other half, low-pass, missing
    wedge. The variance of the noise is that of the imaged clean crop divided by the SNR (a plain variance ratio), times the
    factor by which imaging weakens white noise. All steps are linear, so they are applied to spectra, and only the sum is
    transformed back.

    Parameters
    ----------
    densities : Tensor
        ``(B, 1, D, H, W)`` in Da/nm³.
    snr : Tensor
        ``(B,)`` variance ratio, for example 0.03; infinity for no noise.
    generator : torch.Generator
        Source of randomness.
    defocus, voxel_size : float
        Angstrom; the defaults are those of the published data.
    wedge_angle : float
        Degrees lost on each side of the beam.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    size = densities.shape[-1]
    probe, before, after = (  # four volumes measure what imaging takes from white noise
        spectrum(torch.randn(n, 1, size, size, size, generator=generator)) for n in (4, len(densities), len(densities))
    )
    transfer, lowpass, detector, wedge = _source_filters(size, float(voxel_size), float(defocus), float(wedge_angle))
    imaged = spectrum(densities).mul_(lowpass * transfer)
    loss = spectral_variance(probe, size).mean() / spectral_variance(probe * (transfer * wedge), size).mean()
    signal = spectral_variance(imaged * wedge, size) * loss
    deviation = (0.5 * signal / snr.reshape(-1, 1, 1, 1, 1)).sqrt()
    disturbance = before.mul_(transfer).add_(after.mul_(detector))
    return volume_of(imaged.add_(disturbance.mul_(deviation)).mul_(lowpass * wedge), size)


@lru_cache(maxsize=8)
def _source_filters(size: int, voxel_size: float, defocus: float, wedge_angle: float) -> tuple[torch.Tensor, ...]:
    """Contrast transfer, low-pass, detector and wedge of :func:`image_source`, each ``(D, H, W // 2 + 1)``."""
    lowpass, detector = soft_lowpass(size, size // 4, 2.0), soft_lowpass(size, 1.0, 0.2 * size)
    return ctf(size, voxel_size, defocus)[0, 0], lowpass, detector, missing_wedge(size, wedge_angle)


def image_target(
    densities: torch.Tensor, snr: torch.Tensor, defocus: torch.Tensor, voxel_size: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Image density crops with white detector noise that reaches to the Nyquist limit, then the missing wedge.

    ``snr`` is the ratio of the clean image to the noise as drawn. The wedge then removes about two thirds of the noise, so the
    ratio in the result is about three times as large.

    Parameters
    ----------
    densities : Tensor
        ``(B, 1, D, H, W)`` in Da/nm³, background included.
    snr, defocus, voxel_size : Tensor
        ``(B,)``; variance ratio, angstrom, angstrom.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    size = densities.shape[-1]
    white = spectrum(torch.randn(densities.shape, generator=generator))
    wedge = missing_wedge(size)
    imaged = spectrum(densities).mul_(ctf(size, voxel_size, defocus).mul_(wedge))
    deviation = (spectral_variance(imaged, size) / snr.reshape(-1, 1, 1, 1, 1)).sqrt()
    return volume_of(imaged.add_(white.mul_(deviation)).mul_(wedge), size)


def smooth_background(batch: int, shape: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """Draw cytosol ``(B, 1, *shape)``, a Gaussian random field of unit variance, correlated over ``CORRELATION`` voxels."""
    white = torch.randn(batch, 1, *shape, generator=generator)
    half = spectrum(white).mul_(_gaussian_filter(tuple(shape)))
    return volume_of(half.div_(spectral_variance(half, shape[2]).sqrt()), shape[2])


@lru_cache(maxsize=8)
def _gaussian_filter(shape: tuple[int, int, int]) -> torch.Tensor:
    """Spectrum of a Gaussian of ``CORRELATION`` voxels, 0 where it is negligible in float32, since denormals are slow."""
    kz, ky, kx = torch.fft.fftfreq(shape[0]), torch.fft.fftfreq(shape[1]), torch.fft.rfftfreq(shape[2])
    k2 = kz[:, None, None] ** 2 + ky[None, :, None] ** 2 + kx[None, None, :] ** 2
    values = torch.exp(-2 * (torch.pi * CORRELATION) ** 2 * k2)
    return values.where(values > 1e-12, 0)
