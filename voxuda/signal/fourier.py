"""Spectra of volumes, and filters that multiply them."""

from __future__ import annotations

import torch


def frequencies(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return frequency grids ``kz, ky, kx`` in cycles per box, each broadcastable to ``(size, size, size // 2 + 1)``."""
    full = torch.fft.fftfreq(size) * size
    half = torch.fft.rfftfreq(size) * size
    return full[:, None, None], full[None, :, None], half[None, None, :]


def radius_grid(size: int) -> torch.Tensor:
    """Return the length of the frequency vector in cycles per box, ``(size, size, size // 2 + 1)``."""
    kz, ky, kx = frequencies(size)
    return (kz.square() + ky.square() + kx.square()).sqrt()


def spectrum(volumes: torch.Tensor) -> torch.Tensor:
    """Compute the half spectrum ``(..., D, H, W // 2 + 1)`` of volumes ``(..., D, H, W)``, in single or double precision."""
    return torch.fft.rfftn(volumes if volumes.dtype == torch.float64 else volumes.float(), dim=(-3, -2, -1))


def volume_of(half: torch.Tensor, width: int) -> torch.Tensor:
    """Invert :func:`spectrum`, for volumes of ``width`` voxels along x."""
    return torch.fft.irfftn(half, s=(*half.shape[-3:-1], width), dim=(-3, -2, -1))


def spectral_variance(half: torch.Tensor, width: int) -> torch.Tensor:
    """Compute the variance ``(..., 1, 1, 1)`` of volumes from their half spectra, as all power but that of frequency 0."""

    def power(part: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(part).flatten(-4).square().sum(-1)

    # Every kx plane counts twice, for its mirror image, except the first and, for an even width, the last.
    total = 2 * power(half) - power(half[..., :1]) - power(half[..., :1, :1, :1])
    if width % 2 == 0:
        total = total - power(half[..., -1:])
    return (total / (half.shape[-3] * half.shape[-2] * width) ** 2)[..., None, None, None]


def apply_filter(volumes: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    """Multiply the spectrum of ``(B, 1, D, H, W)`` volumes by a real filter ``(..., D, H, W // 2 + 1)``."""
    return volume_of(spectrum(volumes) * transfer, volumes.shape[-1])


def soft_lowpass(size: int, radius: float, sigma: float) -> torch.Tensor:
    """Return a low-pass filter ``(D, H, W // 2 + 1)``, 1 up to ``radius`` and exp(-((k - radius) / sigma)²) beyond.

    The frequency k, ``radius`` and ``sigma`` are in cycles per box.
    """
    excess = (radius_grid(size) - radius).clamp_min(0)
    return torch.exp(-(excess / sigma).square())
