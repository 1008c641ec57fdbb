"""The bilateral filters as compiled loops, for float32 on a processor, where they are several times as fast as rows.

Compiled once, by numba, for all shapes, and kept on disk. A volume with its border is one long row, in which a neighbour is
always the same number of steps away. Sixteen voxels are worked on at once, in the lanes of a vector, and all their neighbours
are added up before anything is written. Compilers make such vectors of simple loops only, so here they are asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import e, log2, sqrt
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Voxels worked on at once: a vector of AVX-512, two of AVX, four of NEON."""

SLAB = 32
"""Slices that a thread takes at once: enough that those of the halo hardly count, and large volumes are shared evenly."""

# 2^f on [-1/2, 1/2]: interpolation in six Chebyshev points, highest power first; relative error 1e-7 before rounding.
_POLYNOMIAL = (0.00133908634, 0.00967603192, 0.0555035711, 0.240221075, 0.693147188, 1.00000008)

_ROUNDS = 1.5 * 2.0**23 + 127
"""Added to a float32 below 2^22, it leaves no bits for a fraction: the last eight are the whole part, as an exponent has it."""

_FLOATS, _INTS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
_FUSED = ("contract",)  # a product and a sum may be rounded at once


def _compile(function: Callable) -> Any:
    options: Any = dict(nogil=True, error_model="numpy")
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder that numba may write to
        return numba.njit(**options)(function)


class _Lanes:
    """Numbers in the lanes of a vector, while code is generated: an operator emits its instruction."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def _with(self, instruction: Callable, other: _Lanes | float) -> _Lanes:
        right = other.value if isinstance(other, _Lanes) else _constant(other)
        return _Lanes(self.builder, instruction(self.value, right, flags=_FUSED))

    def __add__(self, other: _Lanes | float) -> _Lanes:
        return self._with(self.builder.fadd, other)

    def __sub__(self, other: _Lanes | float) -> _Lanes:
        return self._with(self.builder.fsub, other)

    def __mul__(self, other: _Lanes | float) -> _Lanes:
        return self._with(self.builder.fmul, other)

    def __truediv__(self, other: _Lanes | float) -> _Lanes:
        return self._with(self.builder.fdiv, other)


def _constant(number: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [float(np.float32(number))] * LANES)


def _in_all(builder: ir.IRBuilder, scalar: ir.Value) -> _Lanes:
    """One number in every lane."""
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return _Lanes(builder, builder.shuffle_vector(first, first, ir.Constant(_INTS, [0] * LANES)))


class _Row:
    """A float32 array ``(N,)``, while code is generated: read and written a vector at a time."""

    def __init__(self, builder: ir.IRBuilder, data: ir.Value) -> None:
        self.builder, self.data = builder, data

    def _at(self, place: ir.Value) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(self.data, [place]), _FLOATS.as_pointer())

    def __getitem__(self, place: ir.Value) -> _Lanes:
        return _Lanes(self.builder, self.builder.load(self._at(place), align=4))

    def __setitem__(self, place: ir.Value, lanes: _Lanes) -> None:
        self.builder.store(lanes.value, self._at(place), align=4)


def _exp2_below_0(x: _Lanes) -> _Lanes:
    """2^x for x ≤ 0: a polynomial times a whole power of two, written straight into exponent bits; 0 below -100."""
    builder = x.builder
    # The exponent of 2^-127 is written as 0, which is what a float 0 has.
    x = _Lanes(builder, builder.select(builder.fcmp_ordered("<", x.value, _constant(-100)), _constant(-127), x.value))
    rounded = x + _ROUNDS
    f = x - (rounded - _ROUNDS)
    power = _Lanes(builder, _constant(_POLYNOMIAL[0]))
    for coefficient in _POLYNOMIAL[1:]:
        power = power * f + coefficient
    exponent = builder.shl(builder.bitcast(rounded.value, _INTS), ir.Constant(_INTS, [23] * LANES))  # drops all other bits
    return power * _Lanes(builder, builder.bitcast(exponent, _FLOATS))


def _rows(context: Any, builder: ir.IRBuilder, kind: Any, argument: ir.Value) -> list[_Row]:
    """The rows of an argument that is an array or a tuple of arrays."""
    several = isinstance(kind, numba.types.BaseTuple)
    kinds, arrays = (list(kind), cgutils.unpack_tuple(builder, argument)) if several else ([kind], [argument])
    if any(k.dtype != numba.float32 or k.layout != "C" for k in kinds):  # they are read as they lie in memory
        raise numba.errors.TypingError(f"{kind} is not float32 without gaps")
    return [_Row(builder, context.make_array(k)(context, builder, a).data) for k, a in zip(kinds, arrays, strict=True)]


@intrinsic
def _exp2_of_lanes(_: Any, x: Any, at: Any, out: Any) -> Any:
    """Write 2^x from ``at`` on."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        given, written = (_rows(context, builder, signature.args[i], arguments[i])[0] for i in (0, 2))
        written[arguments[1]] = _exp2_below_0(given[arguments[1]])
        return context.get_dummy_value()

    return numba.void(x, at, out), generate


@intrinsic
def _mean_of_lanes(_: Any, values: Any, features: Any, at: Any, steps: Any, nearness: Any, out: Any, place: Any) -> Any:
    """Eq 8 for the voxels from ``at`` on, written from ``place`` on; a step is gone forwards and backwards."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        rows = [_rows(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 5)]
        (value,), feature, (mean,) = rows
        here, place = arguments[2], arguments[6]
        step, near = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (3, 4))
        mine = [row[here] for row in feature]
        total = cgutils.alloca_once_value(builder, value[here].value)  # q = p has weight 1
        weights = cgutils.alloca_once_value(builder, _constant(1))
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, step.shape)[0]) as loop:
            length = builder.load(builder.gep(step.data, [loop.index]))
            exponent = _in_all(builder, builder.load(builder.gep(near.data, [loop.index])))
            for there in (builder.add(here, length), builder.sub(here, length)):
                x = exponent
                for row, p in zip(feature, mine, strict=True):
                    change = row[there] - p
                    x = x - change * change
                w = _exp2_below_0(x)
                builder.store((_Lanes(builder, builder.load(weights)) + w).value, weights)
                builder.store((w * value[there] + _Lanes(builder, builder.load(total))).value, total)
        mean[place] = _Lanes(builder, builder.load(total)) / _Lanes(builder, builder.load(weights))
        return context.get_dummy_value()

    return numba.void(values, features, at, steps, nearness, out, place), generate


@intrinsic
def _sobel_of_lanes(_: Any, values: Any, at: Any, width: Any, plane: Any, scale: Any, gradient: Any) -> Any:
    """Sobel responses along z, y and x of the voxels from ``at`` on, times ``scale``."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        (value,) = _rows(context, builder, signature.args[0], arguments[0])
        along_z, along_y, along_x = _rows(context, builder, signature.args[5], arguments[5])
        here, line, slice_ = arguments[1:4]
        scale = _in_all(builder, arguments[4])

        def moved(place: ir.Value, step: ir.Value, n: int) -> ir.Value:
            return {-1: builder.sub, 1: builder.add}[n](place, step) if n else place

        def smooth(before: _Lanes, middle: _Lanes, after: _Lanes) -> _Lanes:
            return middle * 2.0 + before + after

        one = ir.Constant(here.type, 1)
        smooth_yx, slope_y, slope_x = [], [], []
        for dz in (-1, 0, 1):
            smooth_x, slope = [], []
            for dy in (-1, 0, 1):
                middle = moved(moved(here, slice_, dz), line, dy)
                before, after = value[moved(middle, one, -1)], value[moved(middle, one, 1)]
                smooth_x.append(smooth(before, value[middle], after))
                slope.append(after - before)
            smooth_yx.append(smooth(*smooth_x))
            slope_y.append(smooth_x[2] - smooth_x[0])
            slope_x.append(smooth(*slope))
        along_z[here] = scale * (smooth_yx[2] - smooth_yx[0])
        along_y[here] = scale * smooth(*slope_y)
        along_x[here] = scale * smooth(*slope_x)
        return context.get_dummy_value()

    return numba.void(values, at, width, plane, scale, gradient), generate


@_compile
def exp2_below_0(x: np.ndarray) -> np.ndarray:
    """2^x of a float32 array ``(N,)`` with x ≤ 0, as the filters' weights have it: 0 below -100."""
    padded, result = np.zeros(len(x) + LANES, np.float32), np.empty(len(x) + LANES, np.float32)
    padded[: len(x)] = x
    for at in range(0, len(x), LANES):
        _exp2_of_lanes(padded, at, result)  # type: ignore[call-arg]
    return result[: len(x)]


# Where a line is no multiple of the lanes, the last vector writes beyond it. What it writes there is written again, rightly,
# with the next line; after the last line there are lanes to spare.


@_compile
def _mean_of_slab(values, features, slab, border, steps, nearness, mean):  # type: ignore[no-untyped-def]
    """Fill a row with the means of the voxels within the border."""
    depth, height, width = slab
    inner = depth - 2 * border[0], height - 2 * border[1], width - 2 * border[2]
    for z in range(inner[0]):
        for y in range(inner[1]):
            at = ((z + border[0]) * height + y + border[1]) * width + border[2]
            place = (z * inner[1] + y) * inner[2]
            for x in range(0, inner[2], LANES):
                _mean_of_lanes(values, features, at + x, steps, nearness, mean, place + x)  # type: ignore[call-arg]


@_compile
def _sobel_of_slab(values, slab, scale, gradient):  # type: ignore[no-untyped-def]
    """Fill three rows. The first and the last voxel along each axis get nothing, or what wraps around: the means do not look
    there, since a slab's halo is one voxel wider than their window."""
    depth, height, width = slab
    plane = height * width
    for at in range(plane + width + 1, (depth - 1) * plane - width - 1, LANES):
        _sobel_of_lanes(values, at, width, plane, scale, gradient)  # type: ignore[call-arg]


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

    Raises
    ------
    ValueError
        The features have other sides or another type.
    """
    if features is not None and (features.shape[2:] != values.shape[2:] or features.dtype != values.dtype):
        what = [f"{tuple(volumes.shape[2:])} of {volumes.dtype}" for volumes in (values, features)]
        raise ValueError(f"values are {what[0]}, features {what[1]}; they must be alike.")
    height, width = values.shape[3:]
    offsets = [offset for offset in product(range(-radius, radius + 1), repeat=3) if offset > (0, 0, 0)]
    steps = np.array([(z * height + y) * width + x for z, y, x in offsets])
    nearness = np.array([-(z * z + y * y + x * x) * log2(e) / (2 * sigma_d**2) for z, y, x in offsets], np.float32)
    scale = np.float32(sqrt(log2(e) / 2) / sigma_r)  # of features: the exponent is then a squared distance
    result = values.new_empty(len(values), 1, *(n - 2 * border for n in values.shape[2:]))
    volumes, means = values.contiguous().numpy(), result.numpy()
    given = None if features is None else features.contiguous().numpy()
    halo = radius if features is not None else radius + 1

    depth, plane = result.shape[2], result[0, 0, 0].numel()
    slabs = [(b, a, min(a + SLAB, depth)) for b in range(len(values)) for a in range(0, depth, SLAB)]

    def work(slabs: list[tuple[int, int, int]]) -> None:
        # One set of rows for all slabs, since the system's giving of memory costs as much as the work on a slab.
        # The last vector may read and write beyond the last voxel.
        deepest = min(SLAB, depth)
        rows = np.zeros((4 if given is None else 1 + given.shape[1], (deepest + 2 * halo) * height * width + LANES), np.float32)
        value, feature = rows[0], tuple(rows[1:])
        mean = np.empty(deepest * plane + LANES, np.float32)
        for b, first, last in slabs:
            here = slice(first + border - halo, last + border + halo)
            slab = volumes[b, 0, here]
            value[: slab.size] = slab.ravel()
            if given is None:
                _sobel_of_slab(value, slab.shape, scale, feature)
            else:
                for row, volume in zip(feature, given[b], strict=True):
                    np.multiply(volume[here].ravel(), scale, out=row[: slab.size])
            _mean_of_slab(value, feature, slab.shape, (halo, border, border), steps, nearness, mean)
            means[b, 0, first:last].reshape(-1)[:] = mean[: (last - first) * plane]

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [slabs[i::threads] for i in range(min(threads, len(slabs)))]))
    return result
