"""Bilateral filter (BF) and improved bilateral filter (IBF), Eqs 8-14."""

from __future__ import annotations

from itertools import product
from math import exp, sqrt

import torch
from torch.nn.functional import pad

from voxuda.denoising.choices import Gradient
from voxuda.errors import InputError

CHUNK = 65536
"""Voxels processed at a time, few enough to stay in cache, and enough that the calls themselves cost little."""

SMALLEST = 1e-15
"""Smallest width of a kernel; its square and the inverse of the square still fit in float32."""


def _check(volumes: torch.Tensor, window: int, sigma_d: float, sigma_r: float) -> int:
    if volumes.ndim != 5 or volumes.shape[1] != 1:
        raise InputError(f"shape {tuple(volumes.shape)} is not a batch of volumes; give (B, 1, D, H, W).")
    if window < 3 or window % 2 == 0:
        raise InputError(f"window is {window}; it must be odd and at least 3.")
    if not (SMALLEST <= sigma_d <= 1 / SMALLEST and SMALLEST <= sigma_r <= 1 / SMALLEST):
        raise InputError(f"sigma_d is {sigma_d} and sigma_r is {sigma_r}; both must be positive, from {SMALLEST} to 1e15.")
    if min(volumes.shape[2:]) < window // 2 + 3:
        raise InputError(
            f"shape {tuple(volumes.shape)} is too small for window {window}; sides must be at least {window // 2 + 3}."
        )
    return window // 2


def _reflect(volumes: torch.Tensor, border: int) -> torch.Tensor:
    return pad(volumes, [border] * 6, mode="reflect")


def _difference(volumes: torch.Tensor, axis: int) -> torch.Tensor:
    """Correlate with (-1, 0, 1) along one axis of ``(B, C, D, H, W)``; the axis loses a voxel at each end."""
    n = volumes.shape[axis] - 2
    return volumes.narrow(axis, 2, n) - volumes.narrow(axis, 0, n)


def _smooth(volumes: torch.Tensor, axis: int) -> torch.Tensor:
    """Correlate with (1, 2, 1) along one axis of ``(B, C, D, H, W)``; the axis loses a voxel at each end."""
    n = volumes.shape[axis] - 2
    return (volumes.narrow(axis, 0, n) + volumes.narrow(axis, 2, n)).add_(volumes.narrow(axis, 1, n), alpha=2)


def sobel(padded: torch.Tensor) -> torch.Tensor:
    """Compute the three unnormalised Sobel responses, (-1, 0, 1) along one axis and (1, 2, 1) along the other two.

    These are Eqs 10 to 12, with Δ read as smoothing by (1, 2, 1), and q + 1 minus q - 1 as (-1, 0, 1); the two commute.
    ``(B, 1, D + 2, H + 2, W + 2)`` becomes ``(B, 3, D, H, W)``, derivatives along z, y, x. A ramp of slope 1 gives 32.
    """
    z, y, x = 2, 3, 4
    smooth_x = _smooth(padded, x)
    along_z = _difference(_smooth(smooth_x, y), z)  # Eq 12, d is z
    along_y = _smooth(_difference(smooth_x, y), z)  # Eq 10, h is y
    along_x = _smooth(_smooth(_difference(padded, x), y), z)  # Eq 11, w is x
    return torch.cat([along_z, along_y, along_x], 1)


def gradients(volumes: torch.Tensor, radius: int, gradient: Gradient = "sobel") -> torch.Tensor:
    """Compute the gradients of Eqs 10-12 on reflection-padded volumes, ``(B, 3, D + 2 radius, H + 2 radius, W + 2 radius)``.

    The paper's "Sobel operator as the Laplacian operator" has two readings. With ``"sobel"`` the vector is the three
    responses; with ``"sobel_magnitude"`` Δ is the length of that vector, and Eqs 10-12 take its central differences.
    """
    if gradient == "sobel":
        return sobel(_reflect(volumes, radius + 1))
    if gradient != "sobel_magnitude":
        raise InputError(f"{gradient}: not a reading of the gradient; choose sobel or sobel_magnitude.")
    delta = sobel(_reflect(volumes, radius + 2)).norm(dim=1)
    halves = torch.stack(torch.gradient(delta, dim=(1, 2, 3)), 1)  # half the central differences
    return 2 * halves[..., 1:-1, 1:-1, 1:-1]


def weighted_mean_of_rows(
    padded: torch.Tensor, features: torch.Tensor, radius: int, sigma_d: float, sigma_r: float
) -> torch.Tensor:
    """Average over the window by whole rows of voxels, for any device and dtype.

    Volumes ``(B, 1, ...)`` and the features that the range kernel compares, ``(B, C, ...)``, have a border of ``radius``
    voxels. The weight of a pair is symmetric, so each pair is computed once and added at both ends. In one long row of all
    padded voxels a neighbour is always the same number of steps away; wrapping around an edge affects only border voxels, which
    are cut off at the end. The row is processed in pieces that stay in cache.
    """
    height, width = padded.shape[3:]
    values = padded.flatten()
    # Scaled so that the exponent is the squared distance between two features.
    rows = features.transpose(0, 1).reshape(features.shape[1], -1) / (sqrt(2) * sigma_r)
    total, weights = values.clone(), torch.ones_like(values)  # q = p has weight 1
    offsets = [offset for offset in product(range(-radius, radius + 1), repeat=3) if offset > (0, 0, 0)]
    steps = [(z * height + y) * width + x for z, y, x in offsets]
    domain = [exp(-(z * z + y * y + x * x) / (2 * sigma_d**2)) for z, y, x in offsets]
    end = len(values) - steps[-1]
    piece = min(CHUNK, end)
    difference, buffer, zero = rows.new_empty(len(rows), piece), rows.new_empty(piece), rows.new_zeros(piece)
    for start in range(0, end, piece):
        n = min(piece, end - start)
        here = slice(start, start + n)
        weight = buffer[:n]
        for step, nearness in zip(steps, domain, strict=True):
            there = slice(start + step, start + step + n)
            torch.sub(rows[:, here], rows[:, there], out=difference[:, :n])
            torch.addcmul(zero[:n], difference[0, :n], difference[0, :n], value=-1, out=weight)
            for component in difference[1:, :n]:
                weight.addcmul_(component, component, value=-1)
            weight.exp_()
            weights[here].add_(weight, alpha=nearness)
            weights[there].add_(weight, alpha=nearness)
            total[here].addcmul_(weight, values[there], value=nearness)
            total[there].addcmul_(weight, values[here], value=nearness)
    return pad((total / weights).reshape(padded.shape), [-radius] * 6)


def bilateral_filter(volumes: torch.Tensor, sigma_d: float = 120.0, sigma_r: float = 1.2, window: int = 3) -> torch.Tensor:
    r"""Apply the bilateral filter of Eqs 8-9, with weights :math:`w_{pq} = G_{\sigma_d}(\|p-q\|)\,G_{\sigma_r}(v_q - v_p)`.

    The Gaussians' prefactor cancels between numerator and denominator. With σ_d = 120 voxels and a window of 3 the domain
    kernel is a box: its smallest weight is exp(-3 / 28800) = 0.9999.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``, like the result. Borders are padded by reflection.
    sigma_d, sigma_r : float
        Widths of the domain kernel, in voxels, and of the range kernel, in the unit of the values.
    window : int
        Odd side of the window in voxels.

    Raises
    ------
    InputError
        The shape of the volumes, a width or the window is not as above.
    """
    return _filter(volumes, None, sigma_d, sigma_r, window)


def improved_bilateral_filter(
    volumes: torch.Tensor,
    sigma_d: float = 120.0,
    sigma_r: float = 1.2,
    window: int = 3,
    gradient: Gradient = "sobel",
) -> torch.Tensor:
    r"""Apply the improved bilateral filter of Eqs 10-14, :math:`w_{pq} = G_{\sigma_d}(\|p-q\|)\,G_{\sigma_r}(\|g_p - g_q\|)`.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``. Borders are padded by reflection. σ_r is in the unit of the unnormalised Sobel response, 32 times
        a slope, so the paper's 1.2 takes effect for values in [0, 1] and switches the filter off for values of variance 1.
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
    return _filter(volumes, gradient, sigma_d, sigma_r, window)


def _filter(volumes: torch.Tensor, gradient: Gradient | None, sigma_d: float, sigma_r: float, window: int) -> torch.Tensor:
    """Filter by the compiled loops, for float32 on a CPU, or else by rows, for any device and dtype."""
    radius = _check(volumes, window, sigma_d, sigma_r)
    from voxuda.denoising import _bilateral_loops  # numba: slow to import

    if gradient in (None, "sobel") and _bilateral_loops.apply_to(volumes):
        return _bilateral_loops.weighted_mean(volumes, gradient is not None, radius, sigma_d, sigma_r)
    padded = _reflect(volumes, radius)
    features = padded if gradient is None else gradients(volumes, radius, gradient)
    return weighted_mean_of_rows(padded, features, radius, sigma_d, sigma_r)


def reference_filter(
    volumes: torch.Tensor, features: torch.Tensor, sigma_d: float, sigma_r: float, window: int = 3
) -> torch.Tensor:
    """Compute Eqs 8 and 13 as written, in float64.

    The weight of each pair is computed from both ends, without using its symmetry. Features
    ``(B, C, D + window - 1, H + window - 1, W + window - 1)`` are the reflected values for BF, the gradients for IBF.
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
        difference = shifted(features, dz, dy, dx) - shifted(features, 0, 0, 0)  # Eq 14 for gradients; squared below
        weight = domain * torch.exp(-difference.square().sum(1, keepdim=True) / (2 * sigma_r**2))
        numerator += weight * shifted(values, dz, dy, dx)
        denominator += weight
    return numerator / denominator  # Eq 8 for values, Eq 13 for gradients
