"""The bilateral filters as compiled loops, for float32 on a processor, where they are several times as fast as rows.

Compiled once, by numba, for all shapes, and kept on disk. A volume with its border is one long row, in which a neighbour is
always the same number of steps away. Sixteen voxels are worked on at once, in the lanes of a vector, with two neighbours of
each in step, and all neighbours are added up before anything is written. Compilers make such code of simple loops only, so
here it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    """Numbers in the lanes of vectors, while code is generated: an operator emits its instruction for each vector in turn.

    An instruction waits for the one whose result it takes, several cycles long. Vectors in step fill the wait.
    """

    def __init__(self, builder: ir.IRBuilder, *vectors: ir.Value) -> None:
        self.builder, self.vectors = builder, vectors

    def __iter__(self) -> Iterator[_Lanes]:
        return (_Lanes(self.builder, vector) for vector in self.vectors)

    def each(self, instruction: Callable[..., ir.Value], *others: _Lanes) -> _Lanes:
        """Emit an instruction for each vector; a single vector goes with all of another operand's."""
        operands = [self.vectors, *(other.vectors for other in others)]
        most = max(len(vectors) for vectors in operands)
        rows = zip(*(vectors * (most // len(vectors)) for vectors in operands), strict=True)
        return _Lanes(self.builder, *(instruction(*row) for row in rows))

    def _with(self, instruction: Callable, other: _Lanes | float) -> _Lanes:
        right = other if isinstance(other, _Lanes) else _Lanes(self.builder, _constant(other))
        return self.each(partial(instruction, flags=_FUSED), right)

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

    def __getitem__(self, places: ir.Value | Sequence[ir.Value]) -> _Lanes:
        places = places if isinstance(places, Sequence) else [places]
        return _Lanes(self.builder, *(self.builder.load(self._at(place), align=4) for place in places))

    def __setitem__(self, place: ir.Value, lanes: _Lanes) -> None:
        (vector,) = lanes.vectors
        self.builder.store(vector, self._at(place), align=4)


def _exp2_below_0(x: _Lanes) -> _Lanes:
    """2^x for x ≤ 0: a polynomial times a whole power of two, written straight into exponent bits; 0 below -126.5."""
    builder, least = x.builder, _constant(-127)
    # The exponent of 2^-127 is written as 0, which is what a float 0 has. What is no number stays.
    x = x.each(lambda vector: builder.select(builder.fcmp_ordered("<", vector, least), least, vector))
    rounded = x + _ROUNDS
    f = x - (rounded - _ROUNDS)
    power = _Lanes(builder, _constant(_POLYNOMIAL[0]))
    for coefficient in _POLYNOMIAL[1:]:
        power = power * f + coefficient
    drop = ir.Constant(_INTS, [23] * LANES)  # all bits but the exponent's
    return power * rounded.each(lambda vector: builder.bitcast(builder.shl(builder.bitcast(vector, _INTS), drop), _FLOATS))


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
        total, weights = value[here], _Lanes(builder, _constant(1))  # q = p has weight 1
        sums = [cgutils.alloca_once_value(builder, lanes.vectors[0]) for lanes in (total, weights)]
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, step.shape)[0]) as loop:
            length = builder.load(builder.gep(step.data, [loop.index]))
            there = builder.add(here, length), builder.sub(here, length)
            x = _in_all(builder, builder.load(builder.gep(near.data, [loop.index])))
            for row, p in zip(feature, mine, strict=True):
                change = row[there] - p
                x = x - change * change
            total, weights = (_Lanes(builder, builder.load(sum_)) for sum_ in sums)
            for w, v in zip(_exp2_below_0(x), value[there], strict=True):
                total, weights = w * v + total, weights + w
            for lanes, sum_ in zip((total, weights), sums, strict=True):
                builder.store(lanes.vectors[0], sum_)
        total, weights = (_Lanes(builder, builder.load(sum_)) for sum_ in sums)
        mean[place] = total / weights
        return context.get_dummy_value()

    return numba.void(values, features, at, steps, nearness, out, place), generate


@intrinsic
def _features_of_lanes(_: Any, values: Any, at: Any, width: Any, plane: Any, scale: Any, features: Any) -> Any:
    """Of the voxels from ``at`` on, times ``scale``: in one row the values, in three the Sobel responses along z, y and x."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        (value,), feature = (_rows(context, builder, signature.args[i], arguments[i]) for i in (0, 5))
        here, line, slice_ = arguments[1:4]
        scale = _in_all(builder, arguments[4])
        if len(feature) == 1:
            feature[0][here] = scale * value[here]
            return context.get_dummy_value()
        along_z, along_y, along_x = feature

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

    return numba.void(values, at, width, plane, scale, features), generate


@_compile
def exp2_below_0(x: np.ndarray) -> np.ndarray:
    """2^x of a float32 array ``(N,)`` with x ≤ 0, as the filters' weights have it: 0 below -126.5."""
    padded, result = np.zeros(len(x) + LANES, np.float32), np.empty(len(x) + LANES, np.float32)
    padded[: len(x)] = x
    for at in range(0, len(x), LANES):
        _exp2_of_lanes(padded, at, result)  # type: ignore[call-arg]
    return result[: len(x)]


@_compile
def _reflected(place, side):  # type: ignore[no-untyped-def]
    """Where the voxel beyond a face is taken from, along an axis of ``side`` voxels."""
    return abs(place) if place < side else 2 * (side - 1) - place


@_compile
def _filter_slabs(volumes, slabs, border, radius, steps, nearness, scale, value, feature, mean, means):  # type: ignore[no-untyped-def]
    """Filter slabs ``(S, 3)`` of volumes ``(B, D, H, W)``: volume, first slice, end. Rows are used again for each.

    The means of a slice follow as soon as the slices around it are read, while those are in a near cache. Where a line is no
    multiple of the lanes, the last vector goes beyond it: features there are written again, rightly, with the next line, and
    means are written to a line that has lanes to spare, as the rows have after the last voxel. Lines are copied voxel by voxel,
    which numba compiles into faster code than a copy of slices.
    """
    depth, height, width = volumes.shape[1:]
    tall, wide = height + 2 * border, width + 2 * border
    plane = tall * wide
    inset = border - radius  # 1 for Sobel responses, which nothing is written of, and nobody looks at, on the outmost faces
    for volume, first, end in slabs:
        for read in range(end - first + 2 * border):
            slice_ = volumes[volume, _reflected(first + read - border, depth)]
            for y in range(tall):
                line = slice_[_reflected(y - border, height)]
                at = read * plane + y * wide + border
                for x in range(width):
                    value[at + x] = line[x]
                for x in range(1, border + 1):
                    value[at - x] = line[x]
                    value[at + width - 1 + x] = line[width - 1 - x]
            known = read - inset
            if known >= inset:
                edge = inset * (wide + 1)
                for at in range(known * plane + edge, (known + 1) * plane - edge, LANES):
                    _features_of_lanes(value, at, wide, plane, scale, feature)  # type: ignore[call-arg]
            done = known - radius
            if done >= border:
                for y in range(height):
                    at = done * plane + (y + border) * wide + border
                    for x in range(0, width, LANES):
                        _mean_of_lanes(value, feature, at + x, steps, nearness, mean, x)  # type: ignore[call-arg]
                    line = means[volume, first + done - border, y]
                    for x in range(width):
                        line[x] = mean[x]


# --- for tensors ---------------------------------------------------------------------------------------------------


def apply_to(volumes: torch.Tensor) -> bool:
    """Whether the loops can take these volumes: float32 in the processor's memory."""
    return volumes.device.type == "cpu" and volumes.dtype == torch.float32


def weighted_mean(volumes: torch.Tensor, of_gradients: bool, radius: int, sigma_d: float, sigma_r: float) -> torch.Tensor:
    """Average over the window, weighted by distance and by difference of values or of Sobel responses.

    Volumes, and slabs of large ones, are shared among as many threads as torch has.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)`` float32. Borders are reflected.
    of_gradients : bool
        Whether the range kernel is on the three Sobel responses; otherwise it is on the values.
    radius : int
        Voxels of the window on each side.
    sigma_d, sigma_r : float
        Widths of the domain kernel, in voxels, and of the range kernel.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    border = radius + of_gradients
    depth, height, width = volumes.shape[2:]
    tall, wide = height + 2 * border, width + 2 * border
    offsets = [offset for offset in product(range(-radius, radius + 1), repeat=3) if offset > (0, 0, 0)]
    steps = np.array([(z * tall + y) * wide + x for z, y, x in offsets])
    nearness = np.array([-(z * z + y * y + x * x) * log2(e) / (2 * sigma_d**2) for z, y, x in offsets], np.float32)
    scale = np.float32(sqrt(log2(e) / 2) / sigma_r)  # of features: the exponent is then a squared distance
    result = volumes.new_empty(volumes.shape)
    given, means = volumes[:, 0].contiguous().numpy(), result[:, 0].numpy()
    firsts = product(range(len(volumes)), range(0, depth, SLAB))
    slabs = np.array([(volume, z, min(z + SLAB, depth)) for volume, z in firsts], int).reshape(-1, 3)

    def work(slabs: np.ndarray) -> None:
        voxels = (min(SLAB, depth) + 2 * border) * tall * wide
        value, *feature = np.zeros((4 if of_gradients else 2, voxels + LANES), np.float32)
        mean = np.empty(width + LANES, np.float32)
        _filter_slabs(given, slabs, border, radius, steps, nearness, scale, value, tuple(feature), mean, means)

    threads = min(torch.get_num_threads(), len(slabs))
    if threads < 2:  # the start of a thread would cost as much as a sample or two
        work(slabs)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, [slabs[i::threads] for i in range(threads)]))
    return result
