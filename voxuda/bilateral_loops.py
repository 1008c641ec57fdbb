"""The bilateral filters as compiled loops: what a processor does with the rows of ``bilateral``, several times faster.

Compiled once, by numba, for all shapes, and kept on disk. A volume with its border is one long row, in which a neighbour is
always the same number of steps away; the row is worked through in pieces that stay in a processor's cache, and what wraps
around an edge meets only voxels of the border.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import e, log2

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic

PIECE = 4096
"""Voxels worked on at a time."""

SLAB = 32
"""Slices that a thread takes at once: few enough for a cache, enough that those of the halo hardly count."""

# 2^f on [-1/2, 1/2]: interpolation in six Chebyshev points, constant term first; relative error 1e-7 before rounding.
_C0, _C1, _C2, _C3, _C4, _C5 = (
    np.float32(c) for c in (1.00000008, 0.693147188, 0.240221075, 0.0555035711, 0.00967603192, 0.00133908634)
)

# Of fast mathematics only that a product and a sum may be rounded at once.
_compile = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@intrinsic
def _float_of_bits(_, bits):  # type: ignore[no-untyped-def]
    """The float32 that has the bits of an int32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.FloatType())

    return numba.types.float32(numba.types.int32), generate


@_compile
def exp2_below_0(x: np.float32) -> np.float32:
    """2^x for x ≤ 0: a polynomial times a whole power of two; below -100 it stays at 2^-100.

    The whole power is written straight into the exponent bits, so nothing is called and a compiler can make vectors of it.
    """
    x = max(x, np.float32(-100))
    whole = np.floor(x + np.float32(0.5))
    f = x - whole
    power = ((((_C5 * f + _C4) * f + _C3) * f + _C2) * f + _C1) * f + _C0
    return power * _float_of_bits(np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)))  # type: ignore[call-arg]


@_compile
def _weights_of_one(weights, here, there, nearness, scale):  # type: ignore[no-untyped-def]
    for i in range(len(weights)):
        change = there[i] - here[i]
        weights[i] = exp2_below_0(nearness - scale * change * change)


@_compile
def _weights_of_three(weights, here0, here1, here2, there0, there1, there2, nearness, scale):  # type: ignore[no-untyped-def]
    for i in range(len(weights)):
        change0, change1, change2 = there0[i] - here0[i], there1[i] - here1[i], there2[i] - here2[i]
        square = change0 * change0 + change1 * change1 + change2 * change2
        weights[i] = exp2_below_0(nearness - scale * square)


@_compile
def _add(total, sums, weights, values):  # type: ignore[no-untyped-def]
    for i in range(len(weights)):
        sums[i] += weights[i]
        total[i] += weights[i] * values[i]


@_compile
def _mean_of_row(values, feature0, feature1, feature2, three, nearness, scale, steps, total, sums):  # type: ignore[no-untyped-def]
    """Eq 8 for a row ``(N,)`` with one or three features: each pair is weighed once and added at both of its ends."""
    buffer = np.empty(PIECE, np.float32)
    end = len(values) - steps[-1]
    for start in range(0, end, PIECE):
        n = min(PIECE, end - start)
        weights, here = buffer[:n], slice(start, start + n)
        for k in range(len(steps)):
            there = slice(start + steps[k], start + steps[k] + n)
            if three:
                _weights_of_three(
                    weights, feature0[here], feature1[here], feature2[here],
                    feature0[there], feature1[there], feature2[there], nearness[k], scale,
                )  # fmt: skip
            else:
                _weights_of_one(weights, feature0[here], feature0[there], nearness[k], scale)
            _add(total[here], sums[here], weights, values[there])
            _add(total[there], sums[there], weights, values[here])


@_compile
def _smooth(before, here, after, smooth):  # type: ignore[no-untyped-def]
    """(1, 2, 1) across three rows."""
    for i in range(len(here)):
        smooth[i] = before[i] + after[i] + np.float32(2) * here[i]


@_compile
def _smooth_and_slope(before, here, after, smooth, slope):  # type: ignore[no-untyped-def]
    """(1, 2, 1) and (-1, 0, 1) across three rows."""
    for i in range(len(here)):
        smooth[i] = before[i] + after[i] + np.float32(2) * here[i]
        slope[i] = after[i] - before[i]


@_compile
def _sobel_of_row(values, width, plane, along_z, along_y, along_x):  # type: ignore[no-untyped-def]
    """Sobel responses ``(N,)`` of a row ``(N,)``; a slice, a line and a voxel at each end stay as they are."""
    smooth_x, slope_x = np.empty((2, PIECE + 2 * width), np.float32)
    smooth, slope_y, smooth_slope_x = np.empty((3, 3, PIECE), np.float32)
    first, last = plane + width + 1, len(values) - plane - width - 1
    for start in range(first, last, PIECE):
        n = min(PIECE, last - start)
        m = n + 2 * width
        for p in range(3):  # the slice before, this one, and the one after
            a = start + (p - 1) * plane - width
            _smooth_and_slope(
                values[a - 1 : a - 1 + m], values[a : a + m], values[a + 1 : a + 1 + m], smooth_x[:m], slope_x[:m]
            )
            _smooth_and_slope(smooth_x[:n], smooth_x[width : width + n], smooth_x[2 * width : m], smooth[p, :n], slope_y[p, :n])
            _smooth(slope_x[:n], slope_x[width : width + n], slope_x[2 * width : m], smooth_slope_x[p, :n])
        here = slice(start, start + n)
        along_z[here] = smooth[2, :n] - smooth[0, :n]
        _smooth(slope_y[0, :n], slope_y[1, :n], slope_y[2, :n], along_y[here])
        _smooth(smooth_slope_x[0, :n], smooth_slope_x[1, :n], smooth_slope_x[2, :n], along_x[here])


# --- for tensors ---------------------------------------------------------------------------------------------------


def apply_to(volumes: torch.Tensor) -> bool:
    """Whether the loops can take these volumes: float32 in the processor's memory."""
    return volumes.device.type == "cpu" and volumes.dtype == torch.float32


def weighted_mean(
    values: torch.Tensor, features: torch.Tensor | None, border: int, radius: int, sigma_d: float, sigma_r: float
) -> torch.Tensor:
    """Average over the window, weighted by distance and by difference of features.

    Volumes, and slabs of large ones, are shared among as many threads as torch has.

    Parameters
    ----------
    values : Tensor
        ``(B, 1, ...)`` float32, with ``border`` voxels around each volume.
    features : Tensor or None
        ``(B, C, ...)`` of the same sides, one or three features; ``None`` for the Sobel responses of the values.
    border, radius : int
        Voxels around a volume, and those of the window on each side; with Sobel responses the border is at least one more.
    sigma_d, sigma_r : float
        Widths of the domain kernel, in voxels, and of the range kernel.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    height, width = values.shape[3:]
    offsets = [offset for offset in product(range(-radius, radius + 1), repeat=3) if offset > (0, 0, 0)]
    steps = np.array([(z * height + y) * width + x for z, y, x in offsets])
    nearness = np.array([-(z * z + y * y + x * x) * log2(e) / (2 * sigma_d**2) for z, y, x in offsets], np.float32)
    scale = np.float32(log2(e) / (2 * sigma_r**2))
    result = torch.empty(len(values), 1, *(n - 2 * border for n in values.shape[2:]))
    volumes, means = values.contiguous().numpy(), result.numpy()
    given = None if features is None else features.contiguous().numpy()
    halo = radius if features is not None else radius + 1
    inside = slice(border, -border)

    def work(b: int, first: int, last: int) -> None:
        slab = slice(first + border - halo, last + border + halo)
        row = volumes[b, 0, slab].ravel()
        if given is None:
            mine = np.zeros((3, len(row)), np.float32)
            _sobel_of_row(row, width, height * width, *mine)
        else:
            mine = given[b, :, slab].reshape(given.shape[1], -1)
        total, sums = row.copy(), np.ones_like(row)  # q = p has weight 1
        _mean_of_row(row, mine[0], mine[-2 % len(mine)], mine[-1], len(mine) == 3, nearness, scale, steps, total, sums)
        total /= sums
        means[b, 0, first:last] = total.reshape(-1, height, width)[halo:-halo, inside, inside]

    depth = result.shape[2]
    slabs = [(b, a, min(a + SLAB, depth)) for b in range(len(values)) for a in range(0, depth, SLAB)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda slab: work(*slab), slabs))
    return result
