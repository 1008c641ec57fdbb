"""The bilateral filters as two compiled loops, by torch.compile: needs a C++ compiler, and seconds for each new shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from itertools import product
from math import e, log2, sqrt

import torch
from torch._dynamo.exc import TorchDynamoException
from torch.nn.functional import pad

from voxuda.bilateral import _check, bilateral_filter, improved_bilateral_filter, sobel

# 2^f on [-1/2, 1/2]: interpolation in six Chebyshev points, constant term first; relative error 1e-7 before rounding.
_POWERS = (1.00000008, 0.693147188, 0.240221075, 0.0555035711, 0.00967603192, 0.00133908634)


def exp2_below_0(x: torch.Tensor) -> torch.Tensor:
    """2^x for x ≤ 0 in float32, any shape: a polynomial times a whole power of two; below -100 it stays at 2^-100.

    The whole power is written straight into the exponent bits, so nothing is called and a compiler can make vectors of it.
    """
    x = x.clamp_min(-100)
    whole = x.round()
    fraction = x - whole
    power = torch.full_like(x, _POWERS[-1])
    for coefficient in _POWERS[-2::-1]:
        power = power * fraction + coefficient
    return power * ((whole.to(torch.int32) + 127) * 2**23).view(torch.float32)


def _weighted_mean(values: torch.Tensor, features: torch.Tensor, domain: torch.Tensor, radius: int) -> torch.Tensor:
    """Eq 8 as it reads: values ``(B, 1, ...)`` and features ``(B, C, ...)``, both padded, to ``(B, 1, D, H, W)``.

    ``domain[k]`` is the exponent of the domain kernel at a distance of √k voxels.
    """
    shape = [n - 2 * radius for n in values.shape[2:]]

    def at(padded: torch.Tensor, offset: tuple[int, ...]) -> torch.Tensor:
        z, y, x = (slice(radius + o, radius + o + n) for o, n in zip(offset, shape, strict=True))
        return padded[:, :, z, y, x]

    centre = at(features, (0, 0, 0)).split(1, dim=1)
    total = at(values, (0, 0, 0))
    weights = torch.ones_like(total)
    for offset in product(range(-radius, radius + 1), repeat=3):
        if offset != (0, 0, 0):
            exponent = domain[sum(o * o for o in offset)]
            for mine, theirs in zip(centre, at(features, offset).split(1, dim=1), strict=True):
                exponent = exponent - (theirs - mine) * (theirs - mine)
            weight = exp2_below_0(exponent)
            weights = weights + weight
            total = total + weight * at(values, offset)
    return total / weights


@cache
def _compiled(stage: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return torch.compile(stage, dynamic=False)  # a graph of symbolic sides takes minutes to compile


def compiled_filter(
    volumes: torch.Tensor, sigma_d: float = 120.0, sigma_r: float = 1.2, window: int = 3, *, gradient: bool = True
) -> torch.Tensor:
    r"""Filter of Eq 8 in two compiled loops: Sobel responses, then the weighted mean, with a cheaper exponential.

    The results are those of :func:`voxuda.bilateral.bilateral_filter` and :func:`voxuda.bilateral.improved_bilateral_filter`
    with ``gradient="sobel"``, up to rounding and an error of 5e-7 in each weight. The first call for a shape compiles for
    some seconds; torch keeps the result on disk for the next process. The padding stays outside, since in one graph
    with it the loops are no longer vectorised.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)``; σ_r is in the unit of the values for the BF, of the unnormalised Sobel response for the IBF.
        Other than float32 on a CPU goes the plain way.
    sigma_d : float
        Width of the domain kernel in voxels.
    sigma_r : float
        Width of the range kernel.
    window : int
        Odd side of the window in voxels.
    gradient : bool
        Compare Sobel vectors (IBF, Eqs 10-14) and not values (BF, Eqs 8-9).

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``; without a C++ compiler the plain filter's result, with a warning that says so.

    Raises
    ------
    InputError
        As :func:`voxuda.bilateral.improved_bilateral_filter`.
    """
    radius = _check(volumes, window, sigma_d, sigma_r)
    plain = improved_bilateral_filter if gradient else bilateral_filter
    if volumes.device.type != "cpu" or volumes.dtype != torch.float32:
        return plain(volumes, sigma_d, sigma_r, window)
    squares = torch.arange(3 * radius**2 + 1, dtype=torch.float32)
    domain = -squares * log2(e) / (2 * sigma_d**2)
    scale = sqrt(log2(e) / 2) / sigma_r  # the exponent of two is the squared distance of features times this
    values = pad(volumes, [radius] * 6, mode="reflect")
    try:
        if gradient:
            features = _compiled(sobel)(pad(volumes * scale, [radius + 1] * 6, mode="reflect"))
        else:
            features = values * scale
        return _compiled(_weighted_mean)(values, features, domain, radius)
    except TorchDynamoException:
        warnings.warn("torch.compile could not compile here: is there a C++ compiler? The plain filter runs.", stacklevel=2)
        return plain(volumes, sigma_d, sigma_r, window)
