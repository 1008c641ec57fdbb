"""Resample volumes to another grid, in Fourier space or linearly."""

from __future__ import annotations

import numpy as np
import torch

from voxuda.errors import InputError


def fourier_resize(volumes: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Resample volumes to another grid over the same box, by cropping or zero-padding the centred spectrum.

    Every frequency below the Nyquist limit of both grids is kept unchanged; nothing is interpolated. Downsampling removes all
    frequencies at and beyond the new limit. Upsampling leaves the new high frequencies exactly zero, so a noise level measured
    there is zero; the Nyquist plane of an even grid is dropped too. The mean is kept. The box is treated as periodic.

    Parameters
    ----------
    volumes : Tensor
        ``(..., D, H, W)``, real.
    shape : tuple of int
        The new ``(D, H, W)``.

    Returns
    -------
    Tensor
        ``(..., *shape)``.
    """
    if min(shape) < 1:
        raise InputError(f"cannot resize to {shape}; every side must be at least 1 voxel.")
    # torch-fourier-rescale keeps the unpaired Nyquist plane, and moves a volume by half a voxel between odd and even sides.
    old = tuple(volumes.shape[-3:])
    exact = volumes if volumes.dtype == torch.float64 else volumes.float()  # fftn has no half precision
    spectrum = torch.fft.fftshift(torch.fft.fftn(exact, dim=(-3, -2, -1)), dim=(-3, -2, -1))
    for axis, (n, m) in enumerate(zip(old, shape, strict=True), start=-3):
        keep = min(n, m)
        spectrum = spectrum.narrow(axis, n // 2 - keep // 2, keep)
        if n != m and keep % 2 == 0:
            # The Nyquist plane has no partner of opposite sign on the other grid: drop it, so that the result stays real.
            spectrum = spectrum.index_fill(axis, torch.tensor([0], device=volumes.device), 0)
        pad = [0, 0] * (-axis - 1) + [m // 2 - keep // 2, (m - m // 2) - (keep - keep // 2)]
        spectrum = torch.nn.functional.pad(spectrum, pad)
    scale = float(np.prod(shape) / np.prod(old))
    spectrum = torch.fft.ifftshift(spectrum, dim=(-3, -2, -1)) * scale
    return torch.fft.ifftn(spectrum, dim=(-3, -2, -1)).real.to(volumes.dtype)


def linear_weights(old: int, new: int) -> torch.Tensor:
    """Return weights ``(new, old)`` that resample an axis of ``old`` voxels to ``new`` voxels; each row sums to 1.

    Interpolation is linear between voxel centres. When downsampling, the triangle extends one new voxel to either side, so
    that every old voxel counts. Unlike :func:`fourier_resize`, this does not need the whole volume in memory and does not
    assume a periodic box.
    """
    step = old / new
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * step - 0.5
    apart = (centres.clamp(0, old - 1)[:, None] - torch.arange(old)).abs() / max(step, 1.0)
    weights = (1 - apart).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float()
