"""The noise generation module (NGM, Eqs 2-6), which measures the target's noise level and adds such noise to the source."""

from __future__ import annotations

from functools import lru_cache

import torch

from voxuda.denoising.choices import Average, Kind, Reading
from voxuda.errors import InputError
from voxuda.signal.fourier import apply_filter, spectral_variance, spectrum

PAPER_RATES = (0.084, 0.178, 0.244, 0.422)
"""The four filter rates of Table IV, which are the shares of a 32³ spectrum in cubes of half-width 7, 9, 10 and 12."""


def half_width(rho: float, size: int) -> int:
    """Return the half-width in frequency steps of the cube that fills the share ``rho`` of a spectrum of side ``size``.

    ``rho`` = 0.244 at 32 gives 10, since (20 / 32)³ = 0.2441.
    """
    if not 0 <= rho <= 1:
        raise InputError(f"rho is {rho}; the filter rate is a share between 0 and 1, such as 0.244.")
    return round(rho ** (1 / 3) * size / 2)


@lru_cache(maxsize=32)
def highpass_mask(
    size: int, rho: float = 0.244, reading: Reading = "cube_removed", device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return the high-pass filter H of Eq 3 on the half spectrum of a cube, ``(size, size, size // 2 + 1)``, from 0 to 1.

    The paper writes that "only 24.4 % remains". Its four rates are the volumes of cubes, which leaves two readings.
    ``"cube_removed"`` zeroes the low-frequency cube of share ``rho``, as in common code for such filters, and keeps the rest;
    ``"cube_kept"`` keeps the cube of share ``rho`` in the high-frequency corner, as the sentence says.

    A cube of even side around frequency 0 contains -r but not +r. The real part of the inverse transform, the only part used,
    depends on the average of the mask and its mirror image. That average is returned, so faces of the cube count one half; it
    is cached on its device.
    """
    r = half_width(rho, size)
    if reading == "cube_removed":
        k = torch.fft.fftfreq(size) * size
        axis = ((k >= -r) & (k < r)).float()
    elif reading == "cube_kept":
        index = torch.arange(size)  # frequency 0 in the corner, so the centre of the array is the highest frequency
        axis = ((index >= size // 2 - r) & (index < size // 2 + r)).float()
    else:
        raise InputError(f"{reading}: not a reading of the filter rate; choose cube_removed or cube_kept.")

    def cube(axis: torch.Tensor) -> torch.Tensor:
        return axis[:, None, None] * axis[:, None] * axis[: size // 2 + 1]

    mean = (cube(axis) + cube(axis.flip(0).roll(1))) / 2
    return (mean if reading == "cube_kept" else 1 - mean).to(device)


def highpass(volumes: torch.Tensor, rho: float = 0.244, reading: Reading = "cube_removed") -> torch.Tensor:
    """High-pass filter volumes by DFT, mask and inverse DFT (Eqs 2-4).

    Parameters
    ----------
    volumes : Tensor
        ``(..., D, D, D)``, cubes.
    rho, reading
        See :func:`highpass_mask`.

    Returns
    -------
    Tensor
        ``(..., D, D, D)``, the noise in each volume.
    """
    return apply_filter(volumes, highpass_mask(volumes.shape[-1], rho, reading, volumes.device))


def noise_level(
    volumes: torch.Tensor, rho: float = 0.244, reading: Reading = "cube_removed", average: Average = "variances"
) -> torch.Tensor:
    """Estimate the standard deviation σ_t of the noise in a few target samples.

    The paper takes the variance of "the average noise level of the subset": ``"variances"`` averages the variances of the
    N high-passed volumes; ``"volumes"`` averages the volumes first, which makes independent noise √N times smaller.

    Parameters
    ----------
    volumes : Tensor
        ``(N, 1, D, D, D)`` target samples.
    rho, reading
        See :func:`highpass_mask`.
    average : str
        ``"variances"`` or ``"volumes"``.

    Returns
    -------
    Tensor
        Scalar, in the unit of the volumes.
    """
    if average == "volumes":
        return highpass(volumes, rho, reading).mean(0).std(correction=0)
    if average != "variances":
        raise InputError(f"{average}: not a way to average; choose variances or volumes.")
    size = volumes.shape[-1]
    high = spectrum(volumes).mul_(highpass_mask(size, rho, reading, volumes.device))
    return spectral_variance(high, size).mean().sqrt()  # by Parseval, without an inverse transform


def generate_noise(
    source: torch.Tensor, sigma: torch.Tensor | float, generator: torch.Generator | None = None, kind: Kind = "gaussian"
) -> torch.Tensor:
    """Generate noise for the source, Gaussian (Eq 5) or one of the two other kinds of Fig. 7.

    Gaussian noise is :math:`N(0, σ_t^2)`; Poisson noise is :math:`π(σ_t)` as printed in the paper, with mean σ_t and not 0;
    speckle is :math:`x_s N(0, σ_t^2)` (Eq 15).

    Parameters
    ----------
    source : Tensor
        ``(B, 1, D, H, W)``.
    sigma : float or Tensor
        Standard deviation σ_t.
    generator : torch.Generator
        Source of randomness.
    kind : str
        ``"gaussian"``, ``"poisson"`` or ``"speckle"``.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``, to be added to ``source`` (Eq 6).
    """
    sigma = torch.as_tensor(sigma, dtype=source.dtype, device=source.device)
    if kind == "poisson":
        return torch.poisson(sigma.expand(source.shape).contiguous(), generator=generator)
    white = torch.randn(source.shape, generator=generator, dtype=source.dtype, device=source.device) * sigma
    if kind == "gaussian":
        return white
    if kind == "speckle":
        return source * white
    raise InputError(f"{kind}: not a kind of noise; choose gaussian, poisson or speckle.")


def ngm_denoise(volumes: torch.Tensor, rho: float = 0.244, reading: Reading = "cube_removed") -> torch.Tensor:
    """Subtract the high-passed part of volumes ``(..., D, D, D)`` from them, the paper's first denoiser."""
    return volumes - highpass(volumes, rho, reading)
