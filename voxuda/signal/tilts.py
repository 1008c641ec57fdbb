"""Geometry of a tilt series about y, with the order of the tilts, projection of a slab and weighted back-projection."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from scipy import sparse

from voxuda.errors import InputError

Scheme = Literal["dose-symmetric", "bidirectional"]
Weighting = Literal["ramp", "sirt"]


def tilt_angles(low: float, high: float, step: float = 3.0, scheme: Scheme = "dose-symmetric") -> torch.Tensor:
    """Return tilt angles in the order of recording.

    ``"dose-symmetric"`` (Hagen et al. 2017) starts in the middle and alternates between the two sides, so that the low tilts
    see the least damage; ``"bidirectional"`` goes from the middle to the high end, then from the middle to the low end.

    Parameters
    ----------
    low, high : float
        Range in degrees. No tilt lies outside, and the series is symmetric about the middle.
    step : float
        Increment in degrees.
    scheme : str
        Order of recording.

    Returns
    -------
    Tensor
        ``(T,)`` in degrees.

    Raises
    ------
    InputError
        The range is empty, or reaches 80 degrees, where the path of the beam through a slab gets too long.
    """
    if not -80 < low < high < 80 or step <= 0:
        raise InputError(f"tilts from {low} to {high} by {step}; give a rising range within ±80 degrees and a step above 0.")
    half = int((high - low) / 2 / step + 1e-6)
    rising = (low + high) / 2 + step * torch.arange(half + 1)
    falling = (low + high) / 2 - step * torch.arange(1, half + 1)
    if scheme == "bidirectional":
        return torch.cat([rising, falling])
    if scheme == "dose-symmetric":
        return torch.cat([rising[:1], torch.stack([rising[1:], falling], 1).flatten()])
    raise InputError(f"{scheme}: not a tilt scheme; choose dose-symmetric or bidirectional.")


def detector_width(depth: int, width: int, angles: torch.Tensor) -> int:
    """Return the even width in pixels of a detector that sees a whole ``depth`` by ``width`` slab at ``angles`` in degrees."""
    tilt = torch.deg2rad(angles)
    reach = width / 2 * tilt.cos() + depth / 2 * tilt.sin().abs()
    return 2 * int(reach.max().ceil()) + 4


def _splat(angles: tuple[float, ...], depth: int, width: int, *, copies: bool) -> sparse.csr_array:
    """Sparse matrix ``(T * U, D * W)`` that spreads each voxel of a z, x plane over two pixels of each tilt's row.

    A voxel at (z, x) projects to u = x cos θ + z sin θ and is shared linearly between the two nearest pixels. With ``copies``
    the plane is repeated along x, so that rays through a tilted slab meet specimen everywhere on the detector.
    """
    pixels = detector_width(depth, width, torch.tensor(angles))
    z = np.arange(depth)[:, None]
    rows, columns, values = [], [], []
    for t, tilt in enumerate(np.deg2rad(angles)):
        reach = (pixels + depth * abs(np.sin(tilt))) / 2 / np.cos(tilt) if copies else 0
        periods = int(np.ceil(max(0, reach - width / 2) / width))
        x = np.arange(-periods * width, (periods + 1) * width)[None]
        u = (x - width // 2) * np.cos(tilt) + (z - depth // 2) * np.sin(tilt) + pixels // 2
        voxel = z * width + x % width
        left = np.floor(u).astype(np.int32)
        for pixel, share in ((left, 1 - (u - left)), (left + 1, u - left)):
            seen = (pixel >= 0) & (pixel < pixels)
            rows.append(t * pixels + pixel[seen])
            columns.append(voxel[seen].astype(np.int32))
            values.append(share[seen].astype(np.float32))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(entries, shape=(len(angles) * pixels, depth * width))


@lru_cache(maxsize=8)
def _matrix(
    angles: tuple[float, ...], depth: int, width: int, step: Literal["project", "backproject"], device: torch.device
) -> torch.Tensor:
    matrix = _splat(angles, depth, width, copies=step == "project")
    if step == "backproject":
        matrix = matrix.T.tocsr()
    rows, columns, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():  # torch warns that sparse tensors are in beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(rows, columns, values, matrix.shape).to(device)


def project(slabs: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Compute line integrals, in units of one voxel, of slabs that repeat along x and are tilted about y.

    Parameters
    ----------
    slabs : Tensor
        ``(B, D, H, W)``, axes z, y, x; empty above and below.
    angles : Tensor
        ``(T,)`` in degrees.

    Returns
    -------
    Tensor
        ``(B, T, H, U)`` with ``U`` from :func:`detector_width`; voxel ``(D // 2, y, W // 2)`` falls on pixel ``(y, U // 2)``.
    """
    batch, depth, height, width = slabs.shape
    matrix = _matrix(tuple(angles.tolist()), depth, width, "project", slabs.device)
    columns = slabs.permute(1, 3, 0, 2).reshape(depth * width, batch * height)
    return (matrix @ columns).reshape(len(angles), -1, batch, height).permute(2, 0, 3, 1)


def backproject(images: torch.Tensor, angles: torch.Tensor, depth: int, width: int) -> torch.Tensor:
    """Smear each image back along its rays and sum over tilts; this is the transpose of projection.

    Parameters
    ----------
    images : Tensor
        ``(B, T, H, U)``, as :func:`project` returns them.
    angles : Tensor
        ``(T,)`` in degrees.
    depth, width : int
        Sides of the slab along z and x, in voxels.

    Returns
    -------
    Tensor
        ``(B, D, H, W)``.
    """
    batch, tilts, height, pixels = images.shape
    needed = detector_width(depth, width, angles)
    if pixels != needed:
        raise InputError(f"images are {pixels} pixels wide; a slab {depth} deep and {width} wide needs {needed}.")
    matrix = _matrix(tuple(angles.tolist()), depth, width, "backproject", images.device)
    columns = images.permute(1, 3, 0, 2).reshape(tilts * pixels, batch * height)
    return (matrix @ columns).reshape(depth, width, batch, height).permute(2, 0, 3, 1)


def weighting(pixels: int, kind: Weighting = "ramp", iterations: int = 20) -> torch.Tensor:
    r"""Return the weight of each frequency along u, to apply before back-projection.

    Back-projection alone multiplies the spectrum by about :math:`1/|k|`. ``"ramp"`` undoes it, :math:`w = |k|`. ``"sirt"``
    gives the result of :math:`N` iterations of gradient descent, :math:`w = |k|\,(1 - (1 - k_1/|k|)^N)` with :math:`k_1` the
    lowest frequency, which converges first. Low frequencies come out as with the ramp; high ones stay damped.

    Parameters
    ----------
    pixels : int
        Width of the detector.
    kind : str
        ``"ramp"`` or ``"sirt"``.
    iterations : int
        Number :math:`N` for ``"sirt"``; for large N the weights approach the ramp.

    Returns
    -------
    Tensor
        ``(pixels // 2 + 1,)``; the ramp is 1 at the Nyquist frequency.
    """
    k = torch.fft.rfftfreq(pixels)
    ramp = 2 * k
    # Frequency 0 gets the ramp's mean over its cell, a quarter of the first step, so that the mean is kept.
    ramp[0] = ramp[1] / 4
    if kind == "ramp":
        return ramp
    if kind == "sirt":
        return ramp * (1 - (1 - k[1] / k.clamp_min(k[1])).pow(iterations))
    raise InputError(f"{kind}: not a weighting; choose ramp or sirt.")
