"""The bilateral filters as compiled loops for float32 on a CPU, several times as fast as rows.

Their plain twin, Eqs 8 and 13 as written, is :func:`voxuda.denoising.bilateral.reference_filter`.

numba compiles them once for all shapes and caches the result on disk. A padded volume is one long row, in which a neighbour is
always the same number of steps away. Sixteen voxels are processed at once in the lanes of a vector, two neighbours of each at a
time, and all neighbours are summed before anything is written.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import e, log2, sqrt

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from voxuda.signal._lanes import LANES, Lanes, compiled, constant, exp2_of, in_all, rows_of

SLAB = 32
"""Slices per piece of work. The halo then costs little, and large volumes are shared evenly among threads."""


@intrinsic
def _mean_of_lanes(_, values, features, at, steps, nearness, out, place):
    """Compute Eq 8 for the voxels from ``at`` on and write from ``place`` on; each step is taken forwards and backwards."""

    def generate(context, builder, signature, arguments):
        rows = [rows_of(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 5)]
        (value,), feature, (mean,) = rows
        here, place = arguments[2], arguments[6]
        step, near = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (3, 4))
        mine = [row[here] for row in feature]
        total, weights = value[here], Lanes(builder, constant(1))  # q = p has weight 1
        sums = [cgutils.alloca_once_value(builder, lanes.vectors[0]) for lanes in (total, weights)]
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, step.shape)[0]) as loop:
            length = builder.load(builder.gep(step.data, [loop.index]))
            there = builder.add(here, length), builder.sub(here, length)
            x = in_all(builder, builder.load(builder.gep(near.data, [loop.index])))
            for row, p in zip(feature, mine, strict=True):
                change = row[there] - p
                x = x - change * change
            total, weights = (Lanes(builder, builder.load(sum_)) for sum_ in sums)
            for w, v in zip(exp2_of(x), value[there], strict=True):
                total, weights = w * v + total, weights + w
            for lanes, sum_ in zip((total, weights), sums, strict=True):
                builder.store(lanes.vectors[0], sum_)
        total, weights = (Lanes(builder, builder.load(sum_)) for sum_ in sums)
        mean[place] = total / weights
        return context.get_dummy_value()

    return numba.void(values, features, at, steps, nearness, out, place), generate


@intrinsic
def _features_of_lanes(_, values, at, width, plane, scale, features):
    """Write features of the voxels from ``at`` on, times ``scale``.

    One row takes the values, three rows take the Sobel responses along z, y and x.
    """

    def generate(context, builder, signature, arguments):
        (value,), feature = (rows_of(context, builder, signature.args[i], arguments[i]) for i in (0, 5))
        here, line, slice_ = arguments[1:4]
        scale = in_all(builder, arguments[4])
        if len(feature) == 1:
            feature[0][here] = scale * value[here]
            return context.get_dummy_value()
        along_z, along_y, along_x = feature

        def moved(place: ir.Value, step: ir.Value, n: int) -> ir.Value:
            return {-1: builder.sub, 1: builder.add}[n](place, step) if n else place

        def smooth(before: Lanes, middle: Lanes, after: Lanes) -> Lanes:
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


@compiled
def _reflected(place, side):
    """Return the index that reflection padding reads for ``place``, along an axis of ``side`` voxels."""
    return abs(place) if place < side else 2 * (side - 1) - place


@compiled
def _filter_slabs(volumes, slabs, border, radius, steps, nearness, scale, value, feature, mean, means):
    """Filter slabs ``(S, 3)`` of volumes ``(B, D, H, W)``, each given as volume, first slice and end; rows are reused.

    The means of a slice are computed as soon as the slices around it are read, while those are still in cache. Where a line is
    not a multiple of the lanes, the last vector runs past its end. Features there are overwritten correctly with the next line;
    means go to a buffer line with spare lanes, which the rows also have after the last voxel. Lines are copied voxel by voxel,
    which numba compiles into faster code than slice copies.
    """
    depth, height, width = volumes.shape[1:]
    tall, wide = height + 2 * border, width + 2 * border
    plane = tall * wide
    inset = border - radius  # 1 for Sobel responses, which are neither written nor read on the outermost faces
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
    """Return whether the loops support these volumes, which must be float32 on the CPU."""
    return volumes.device.type == "cpu" and volumes.dtype == torch.float32


def weighted_mean(volumes: torch.Tensor, of_gradients: bool, radius: int, sigma_d: float, sigma_r: float) -> torch.Tensor:
    """Filter float32 volumes ``(B, 1, D, H, W)`` by Sobel responses or by values; for arguments see the plain filters.

    Volumes, and slabs of large ones, are split among as many threads as torch uses.
    """
    border = radius + of_gradients
    depth, height, width = volumes.shape[2:]
    tall, wide = height + 2 * border, width + 2 * border
    offsets = [offset for offset in product(range(-radius, radius + 1), repeat=3) if offset > (0, 0, 0)]
    steps = np.array([(z * tall + y) * wide + x for z, y, x in offsets])
    nearness = np.array([-(z * z + y * y + x * x) * log2(e) / (2 * sigma_d**2) for z, y, x in offsets], np.float32)
    scale = np.float32(sqrt(log2(e) / 2) / sigma_r)  # makes the exponent a squared distance of features
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
    if threads < 2:  # starting a thread would cost as much as a sample or two
        work(slabs)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, [slabs[i::threads] for i in range(threads)]))
    return result
