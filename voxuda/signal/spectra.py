"""Give volumes of one domain the look of another, by swapping or matching spectral amplitudes and keeping phases."""

from __future__ import annotations

import torch

from voxuda.signal.fourier import radius_grid, spectrum, volume_of

AXES = (-3, -2, -1)

MOST_GAIN = 3.0
"""Largest gain that :func:`match_power` applies."""


def swap_amplitude(content: torch.Tensor, style: torch.Tensor, band: int = 2, *, planar: bool = False) -> torch.Tensor:
    """Replace content's low-frequency amplitudes by those of style, and keep its phases (FDA, Yang and Soatto 2020).

    Parameters
    ----------
    content, style : Tensor
        ``(B, 1, D, H, W)``, paired.
    band : int
        Frequencies below this many cycles per box along every axis are swapped; 1 swaps only the mean.
    planar : bool
        Work slice by slice along z, on 2D spectra.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    axes = AXES[1:] if planar else AXES
    shape = content.shape[-len(axes) :]
    cycles = [torch.fft.fftfreq(n) * n for n in shape[:-1]] + [torch.fft.rfftfreq(shape[-1]) * shape[-1]]
    near = torch.stack(torch.meshgrid(*cycles, indexing="ij")).abs().amax(0) < band
    mine, theirs = (torch.fft.rfftn(volumes, dim=axes) for volumes in (content, style))
    amplitude = torch.where(near.to(content.device), theirs.abs(), mine.abs())
    return torch.fft.irfftn(torch.polar(amplitude, mine.angle()), s=shape, dim=axes)


def shells(size: int, device: torch.device) -> torch.Tensor:
    """Number the shells of a cube's half spectrum, ``(D, H, W // 2 + 1)``, by the rounded length of the frequency vector."""
    return radius_grid(size).round().long().to(device)


def last_shell(size: int) -> int:
    """Compute the number of a cube's outermost shell from its size, since reading it from a GPU would wait for the GPU."""
    return round(3**0.5 * (size // 2))


def radial_power(volumes: torch.Tensor) -> torch.Tensor:
    """Compute the mean power ``(K,)`` of cubes ``(B, 1, D, D, D)`` in each shell of the spectrum, from frequency 0 outwards."""
    size = volumes.shape[-1]
    shell = shells(size, volumes.device).flatten()
    power = spectrum(volumes).abs().square().flatten(1).mean(0)
    totals, counts = power.new_zeros(2, last_shell(size) + 1).unbind()
    return totals.index_add_(0, shell, power) / counts.index_add_(0, shell, torch.ones_like(power))


def match_power(
    volumes: torch.Tensor, power: torch.Tensor, wanted: torch.Tensor, white: torch.Tensor | None = None
) -> torch.Tensor:
    """Scale each shell of the spectrum so that the volumes' mean power there, ``power``, becomes ``wanted``.

    This is a light stand-in for learned translation such as CycleGAN. It matches contrast transfer and the level and colour of
    the noise, not shapes. Amplitudes change and phases stay, except where the power is too low: no shell is amplified more
    than threefold, and noise makes up the rest.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, D, D)``.
    power, wanted : Tensor
        ``(K,)`` from :func:`radial_power`, for the volumes' own domain and for the other.
    white : Tensor, optional
        Noise of unit variance, ``(B, 1, D, D, D)``; without it no power is added.

    Returns
    -------
    Tensor
        ``(B, 1, D, D, D)``.
    """
    gain = (wanted / power.clamp_min(1e-12)).clamp_max(MOST_GAIN**2).sqrt()
    gain[0] = 1  # volumes of mean 0 have no power there
    shell = shells(volumes.shape[-1], volumes.device)
    half = spectrum(volumes) * gain[shell]
    if white is not None:
        missing = (wanted - power * gain.square()).clamp_min(0) / volumes.shape[-1] ** 3  # white noise has n³ at each frequency
        missing[0] = 0
        half = half + spectrum(white) * missing.sqrt()[shell]
    return volume_of(half, volumes.shape[-1])
