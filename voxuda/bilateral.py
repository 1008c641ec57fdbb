"""Bilateral filter (BF) and improved bilateral filter (IBF), Eqs 8-14."""

from __future__ import annotations

from itertools import product
from typing import Literal

import torch
from torch.nn.functional import pad

from voxuda.volumes import InputError

Gradient = Literal["sobel", "sobel_magnitude"]


def _check(volumes: torch.Tensor, window: int, sigma_d: float, sigma_r: float) -> int:
    if volumes.ndim != 5 or volumes.shape[1] != 1:
        raise InputError(f"shape {tuple(volumes.shape)} is not a batch of volumes; give (B, 1, D, H, W).")
    if window < 3 or window % 2 == 0:
        raise InputError(f"window is {window}; it must be odd and at least 3.")
    if sigma_d <= 0 or sigma_r <= 0:
        raise InputError(f"sigma_d is {sigma_d} and sigma_r is {sigma_r}; both must be positive.")
    if min(volumes.shape[2:]) < window // 2 + 3:
        raise InputError(f"shape {tuple(volumes.shape)} is too small for window {window}; sides must exceed the padding.")
    return window // 2


def _along(volumes: torch.Tensor, axis: int, taps: tuple[float, float, float]) -> torch.Tensor:
    """Correlate ``(B, C, D, H, W)`` with three taps along one axis; the axis loses a voxel at each end."""
    n = volumes.shape[axis] - 2
    terms = [weight * volumes.narrow(axis, start, n) for start, weight in enumerate(taps) if weight]
    return torch.stack(terms).sum(0)


def sobel(padded: torch.Tensor) -> torch.Tensor:
    """Three Sobel responses, unnormalised: (-1, 0, 1) along one axis, (1, 2, 1) along the other two.

    Parameters
    ----------
    padded : Tensor
        ``(B, 1, D + 2, H + 2, W + 2)``.

    Returns
    -------
    Tensor
        ``(B, 3, D, H, W)``, derivative along z, y, x. A ramp of slope 1 gives 32.
    """
    responses = []
    for direction in (2, 3, 4):
        response = padded
        for axis in (2, 3, 4):
            response = _along(response, axis, (-1, 0, 1) if axis == direction else (1, 2, 1))
        responses.append(response)
    return torch.cat(responses, 1)


def gradients(volumes: torch.Tensor, radius: int, gradient: Gradient = "sobel") -> torch.Tensor:
    """Gradient vectors of Eqs 10-12 on the volume reflected by ``radius`` voxels at each face.

    "Sobel operator as the Laplacian operator" leaves two readings: ``"sobel"``, the three responses are the vector;
    ``"sobel_magnitude"``, Δ is the length of that vector and Eqs 10-12 take its central differences.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``.
    radius : int
        Voxels of reflected border to return around the volume.
    gradient : str
        The reading.

    Returns
    -------
    Tensor
        ``(B, 3, D + 2 radius, H + 2 radius, W + 2 radius)``.
    """
    if gradient == "sobel":
        return sobel(pad(volumes, [radius + 1] * 6, mode="reflect"))
    if gradient != "sobel_magnitude":
        raise InputError(f"{gradient}: not a reading of the gradient; choose sobel or sobel_magnitude.")
    delta = sobel(pad(volumes, [radius + 2] * 6, mode="reflect")).norm(dim=1, keepdim=True)
    differences = []
    for axis in (2, 3, 4):
        inner = delta
        for other in (2, 3, 4):
            if other != axis:
                inner = inner.narrow(other, 1, inner.shape[other] - 2)
        differences.append(_along(inner, axis, (-1, 0, 1)))
    return torch.cat(differences, 1)


def _window(offset: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The voxels p of a volume for which p + ``offset`` lies inside it too, as an index into ``(B, C, D, H, W)``."""
    space = (slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True))
    return (slice(None), slice(None), *space)


def _weighted_mean(volumes: torch.Tensor, features: torch.Tensor, radius: int, sigma_d: float, sigma_r: float) -> torch.Tensor:
    """Average over the window, weighted by distance and by difference of ``features`` (padded by ``radius``).

    The weight of a pair is the same from both of its ends, so each pair is computed once and added at both.
    """
    values = pad(volumes, [radius] * 6, mode="reflect")
    total = values.clone()  # q = p has weight 1
    weights = torch.ones_like(values)
    shape = values.shape[2:]
    for offset in product(range(-radius, radius + 1), repeat=3):
        if offset <= (0, 0, 0):
            continue  # its mirror image does both ends
        here = _window(offset, shape)
        there = _window(tuple(-o for o in offset), shape)
        distance = sum(o * o for o in offset) / (2 * sigma_d**2)
        exponent = (features[here] - features[there]).square_().sum(1, keepdim=True)
        weight = exponent.mul_(-1 / (2 * sigma_r**2)).sub_(distance).exp_()
        weights[here] += weight
        weights[there] += weight
        total[here].addcmul_(weight, values[there])
        total[there].addcmul_(weight, values[here])
    crop = [-radius] * 6
    return pad(total, crop) / pad(weights, crop)


def bilateral_filter(volumes: torch.Tensor, sigma_d: float = 120.0, sigma_r: float = 1.2, window: int = 3) -> torch.Tensor:
    r"""Bilateral filter, Eqs 8-9: :math:`w_{pq} = G_{\sigma_d}(\|p-q\|)\,G_{\sigma_r}(v_q - v_p)`.

    The Gaussians' prefactor cancels between numerator and denominator. With σ_d = 120 voxels and a window of 3 the domain
    kernel is a box: its smallest weight is exp(-3 / 28800) = 0.9999.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``; σ_r is in the unit of their values. Borders are reflected.
    sigma_d : float
        Width of the domain kernel in voxels.
    sigma_r : float
        Width of the range kernel.
    window : int
        Odd side of the window in voxels.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    radius = _check(volumes, window, sigma_d, sigma_r)
    return _weighted_mean(volumes, pad(volumes, [radius] * 6, mode="reflect"), radius, sigma_d, sigma_r)


def improved_bilateral_filter(
    volumes: torch.Tensor,
    sigma_d: float = 120.0,
    sigma_r: float = 1.2,
    window: int = 3,
    gradient: Gradient = "sobel",
) -> torch.Tensor:
    r"""Improved bilateral filter, Eqs 10-14: :math:`w_{pq} = G_{\sigma_d}(\|p-q\|)\,G_{\sigma_r}(\|g_p - g_q\|)`.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``; σ_r is in the unit of the unnormalised Sobel response, 32 times a slope, so the paper's 1.2
        matters for values in [0, 1] and switches the filter off for values of variance 1. Borders are reflected.
    sigma_d : float
        Width of the domain kernel in voxels.
    sigma_r : float
        Width of the range kernel on gradients.
    window : int
        Odd side of the window in voxels.
    gradient : str
        Reading of "Sobel operator as the Laplacian operator", see :func:`gradients`.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    radius = _check(volumes, window, sigma_d, sigma_r)
    return _weighted_mean(volumes, gradients(volumes, radius, gradient), radius, sigma_d, sigma_r)


def reference_filter(
    volumes: torch.Tensor, features: torch.Tensor, sigma_d: float, sigma_r: float, window: int = 3
) -> torch.Tensor:
    """Eq 8 and Eq 13 as they read, in float64: for every q of the window, a weight from p to q, no symmetry used.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``.
    features : Tensor
        ``(B, C, D + window - 1, H + window - 1, W + window - 1)``: the reflected values for BF, the gradients for IBF.
    sigma_d, sigma_r, window
        As in :func:`improved_bilateral_filter`.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)`` float64.
    """
    radius = window // 2
    depth, height, width = volumes.shape[2:]
    values = pad(volumes.double(), [radius] * 6, mode="reflect")
    features = features.double()

    def shifted(padded: torch.Tensor, dz: int, dy: int, dx: int) -> torch.Tensor:
        z, y, x = dz + radius, dy + radius, dx + radius
        return padded[..., z : z + depth, y : y + height, x : x + width]

    numerator = torch.zeros_like(volumes, dtype=torch.float64)
    denominator = torch.zeros_like(numerator)
    for dz, dy, dx in product(range(-radius, radius + 1), repeat=3):
        domain = torch.exp(torch.tensor(-(dz**2 + dy**2 + dx**2) / (2 * sigma_d**2), dtype=torch.float64))
        difference = shifted(features, dz, dy, dx) - shifted(features, 0, 0, 0)
        weight = domain * torch.exp(-difference.square().sum(1, keepdim=True) / (2 * sigma_r**2))
        numerator += weight * shifted(values, dz, dy, dx)
        denominator += weight
    return numerator / denominator
