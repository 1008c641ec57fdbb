"""Give volumes mean 0 and variance 1, or the range from 0 to 1."""

from __future__ import annotations

import torch


def _between_ones(volumes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Volumes ``(B, 1, D, H, W)`` over a power of two each, and the smallest and largest value of each, between -1 and 1.

    A power of two rounds nothing; without it the squares of huge intensities overflow, and those of tiny ones vanish.
    """
    if volumes.dtype in (torch.float16, torch.bfloat16):
        volumes = volumes.float()
    low, high = (extreme(volumes, dim=(-3, -2, -1), keepdim=True) for extreme in (torch.amin, torch.amax))
    exponent = torch.frexp(torch.maximum(-low, high)).exponent
    for part in (-exponent // 2, -exponent - (-exponent // 2)):  # 2^-exponent alone may be beyond the largest number
        factor = torch.ldexp(torch.ones_like(low), part)
        volumes, low, high = volumes * factor, low * factor, high * factor
    return volumes, low, high


def zscore(volumes: torch.Tensor) -> torch.Tensor:
    """Give each volume mean 0 and variance 1.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``, any unit. A constant volume becomes zeros, one with a NaN becomes NaN.
    """
    scaled, low, high = _between_ones(volumes)
    centred = scaled - scaled.mean(dim=(-3, -2, -1), keepdim=True)
    deviation = centred.square().mean(dim=(-3, -2, -1), keepdim=True).sqrt()
    # The mean of equal values is rounded, and what is left must not be made a variance of 1.
    return torch.where(low == high, 0, centred / deviation.clamp_min(1e-12)).to(volumes.dtype)


def unit_range(volumes: torch.Tensor) -> torch.Tensor:
    """Map each volume linearly to [0, 1].

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``, any unit. A constant volume becomes zeros, one with a NaN becomes NaN.
    """
    scaled, low, high = _between_ones(volumes)
    return ((scaled - low) / (high - low).clamp_min(1e-12)).to(volumes.dtype)
