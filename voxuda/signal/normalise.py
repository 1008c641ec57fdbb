"""Normalise volumes to mean 0 and variance 1, or to the range from 0 to 1.

Intensities may have any unit; integers become float32. A constant volume becomes zeros; one with a NaN becomes NaN. Both
functions compute in double precision, since squares of huge intensities overflow in float32 and those of tiny ones underflow.
"""

from __future__ import annotations

import torch

AXES = (-3, -2, -1)


def zscore(volumes: torch.Tensor) -> torch.Tensor:
    """Normalise each volume to mean 0 and variance 1.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``, any unit. A constant volume becomes zeros; one with a NaN becomes NaN.
    """
    centred = volumes.double() - volumes.mean(AXES, keepdim=True, dtype=torch.float64)
    deviation = centred.square().mean(AXES, keepdim=True).sqrt()
    # The mean of equal values has a rounding error, which must not be scaled to variance 1.
    constant = volumes.amin(AXES, keepdim=True) == volumes.amax(AXES, keepdim=True)
    return torch.where(constant, 0, centred / deviation).to(_kind(volumes))


def unit_range(volumes: torch.Tensor) -> torch.Tensor:
    """Map each volume linearly to [0, 1].

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``, any unit. A constant volume becomes zeros; one with a NaN becomes NaN.
    """
    low, high = (extreme(AXES, keepdim=True).double() for extreme in (volumes.amin, volumes.amax))
    return torch.where(low == high, 0, (volumes - low) / (high - low)).to(_kind(volumes))


def _kind(volumes: torch.Tensor) -> torch.dtype:
    return volumes.dtype if volumes.is_floating_point() else torch.float32
