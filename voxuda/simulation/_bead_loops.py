"""Render beads by a compiled loop; the plain sum over all voxels is :func:`voxuda.simulation.molecules.density`."""

from __future__ import annotations

from math import e, log2, pi

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from voxuda.signal._lanes import FLOATS, LANES, Lanes, compiled, constant, exp2_of, in_all, rows_of

REACH = 5.0
"""Cut-off of a bead along each axis, in standard deviations; there it has 4e-6 of its height."""

_HALF = np.float32(log2(e) / 2)  # exp(-x² / 2) is 2^(-_HALF x²)
_LEAST = -float(_HALF) * REACH**2


@intrinsic
def _gaussians_of_lanes(_, apart, halving, height, profiles):
    """Write Gaussians along z, y and x to three rows of sixteen voxels, the first ``apart`` from the bead, 0 beyond its reach.

    At a distance d they are ``height`` times 2^(-``halving`` d²). Products of values beyond the reach would be denormals, which
    are slow.
    """

    def generate(context, builder, signature, arguments):
        apart = cgutils.unpack_tuple(builder, arguments[0])
        distance = Lanes(builder, *(in_all(builder, d).vectors[0] for d in apart))
        distance = distance + Lanes(builder, ir.Constant(FLOATS, list(map(float, range(LANES)))))
        x = Lanes(builder, constant(0)) - distance * distance * in_all(builder, arguments[1])
        values = exp2_of(x) * in_all(builder, arguments[2])
        least, nothing = constant(_LEAST), constant(0)
        values = values.each(lambda v, x: builder.select(builder.fcmp_ordered("<", x, least), nothing, v), x)
        for row, value in zip(rows_of(context, builder, signature.args[3], arguments[3]), values, strict=True):
            row[ir.Constant(ir.IntType(64), 0)] = value
        return context.get_dummy_value()

    return numba.void(apart, halving, height, profiles), generate


@intrinsic
def _add_to_lanes(_, voxels, at, line, lines, factor, along_y, along_x):
    """Add a factor times the products of two profiles to sixteen voxels of each line, from ``at`` on."""

    def generate(context, builder, signature, arguments):
        (row,), (y,), (x,) = (rows_of(context, builder, signature.args[i], arguments[i]) for i in (0, 5, 6))
        profile = x[ir.Constant(ir.IntType(64), 0)] * in_all(builder, arguments[4])
        with cgutils.for_range(builder, arguments[3]) as loop:
            place = builder.add(arguments[1], builder.mul(loop.index, arguments[2]))
            height = in_all(builder, builder.load(builder.gep(y.data, [loop.index])))
            row[place] = profile * height + row[place]
        return context.get_dummy_value()

    return numba.void(voxels, at, line, lines, factor, along_y, along_x), generate


@compiled
def _seen(bead, reach, size):
    """Return the first voxel that a bead reaches along an axis of ``size`` voxels, and the one after the last.

    Away from the faces the number of voxels depends only on the reach, and the last may lie just beyond it. The processor can
    then predict the length of the loop.
    """
    low = bead - reach
    first = int(low)
    first += first < low  # rounds up; numba's ceil calls a library
    return max(0, first), min(size, first + int(reach + reach) + 1)


@compiled
def add_beads(volume, positions, masses, spreads, rotation, centre, edge):
    """Add Gaussian beads to a volume in place, sixteen voxels of a line at a time.

    Shapes and units are those of :func:`voxuda.simulation.rendering.add_beads`; ``edge`` is in angstrom.

    A wide bead takes several vectors along each axis. Vectors along x start at the same places for all beads, since a vector
    that is read back whole soon after it was written whole does not wait for memory.
    """
    size, line = len(volume), volume.shape[2]
    voxels = volume.reshape(-1)
    along_z, along_y, along_x = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    turn, shift = rotation / edge, centre / edge + np.float32(size // 2)  # from angstrom to voxels
    volume_of_voxel = (edge / np.float32(10)) ** 3
    for n in range(len(masses)):
        a, b, c = positions[n]
        z = turn[0, 0] * a + turn[0, 1] * b + turn[0, 2] * c + shift[0]
        y = turn[1, 0] * a + turn[1, 1] * b + turn[1, 2] * c + shift[1]
        x = turn[2, 0] * a + turn[2, 1] * b + turn[2, 2] * c + shift[2]
        spread = spreads[n] / edge
        variance = spread * spread + np.float32(1 / 6)  # its own, plus that of the kernel that spreads it
        reach = np.float32(REACH) * np.sqrt(variance)
        (z0, z1), (y0, y1), (x0, x1) = _seen(z, reach, size), _seen(y, reach, size), _seen(x, reach, size)
        if z0 >= z1 or y0 >= y1 or x0 >= x1:
            continue
        halving, height = _HALF / variance, np.sqrt(np.float32(1 / (2 * pi)) / variance)
        mass = masses[n] / volume_of_voxel
        for z_ in range(z0, z1, LANES):
            for y_ in range(y0, y1, LANES):
                for x_ in range(x0 // LANES * LANES, x1, LANES):
                    apart = np.float32(z_) - z, np.float32(y_) - y, np.float32(x_) - x
                    _gaussians_of_lanes(apart, halving, height, (along_z, along_y, along_x))  # type: ignore[call-arg]
                    lines = min(y1 - y_, LANES)
                    for k in range(min(z1 - z_, LANES)):
                        at = ((z_ + k) * size + y_) * line + x_
                        _add_to_lanes(voxels, at, line, lines, mass * along_z[k], along_y, along_x)  # type: ignore[call-arg]
