"""Compiled loops that pack spheres; the plain version is :func:`voxuda.simulation.packing.pull_by_the_rule`."""

from __future__ import annotations

import numpy as np

from voxuda.signal._lanes import compiled


@compiled
def pull(spheres, radii, lengths, pushes):
    """Pull spheres ``(M, 3)`` of ``radii`` ``(M,)`` together in place, in steps of ``lengths``.

    ``pushes`` ``(M, 3)`` is scratch memory.
    """
    for length in lengths:
        for i in range(1, len(radii)):
            along, distance = _apart(spheres[0], spheres[i])
            _move(spheres[i], along, min(length / distance, np.float32(1)))
        _separate(spheres, radii, pushes)
    for _ in lengths:
        if _separate(spheres, radii, pushes) < 1e-3:
            break


@compiled
def keep_apart(spots, radius, count, shape):
    """Choose at most ``count`` of ``spots`` ``(N, 3)``, in order, so that spheres of ``radius`` around them do not overlap.

    The box of ``shape`` repeats along its last two axes. Returns indices ``(K,)``.
    """
    # A cell is small enough to hold only one centre, so only the cells around a spot are checked.
    depth = int(shape[0] * np.sqrt(3) / (2 * radius)) + 1
    height = int(shape[1] * np.sqrt(3) / (2 * radius)) + 1
    width = int(shape[2] * np.sqrt(3) / (2 * radius)) + 1
    owner = np.full((depth, height, width), -1)
    kept = np.empty(count, np.int64)
    found = 0
    for i in range(len(spots)):
        if found == count:
            break
        z = int(spots[i, 0] / shape[0] * depth)
        y = int(spots[i, 1] / shape[1] * height)
        x = int(spots[i, 2] / shape[2] * width)
        free = owner[z, y, x] < 0
        for a in range(max(z - 2, 0), min(z + 3, depth)):
            for b in range(y - 2, y + 3):
                for c in range(x - 2, x + 3):
                    j = owner[a, b % height, c % width]
                    free = free and (j < 0 or _distance(spots[i], spots[j], shape) >= 2 * radius)
        if free:
            owner[z, y, x] = i
            kept[found] = i
            found += 1
    return kept[:found]


@compiled
def _distance(a, b, shape):
    """Distance between two points in a box that repeats along y and x."""
    dz, dy, dx = abs(a[0] - b[0]), abs(a[1] - b[1]), abs(a[2] - b[2])
    dy, dx = min(dy, shape[1] - dy), min(dx, shape[2] - dx)
    return np.sqrt(dz * dz + dy * dy + dx * dx)


@compiled
def _separate(spheres, radii, pushes):
    """Push all overlapping pairs apart at once, each sphere by half the overlap, and return the largest overlap."""
    largest = np.float32(0)
    pushes[:] = 0
    for i in range(len(radii)):
        for j in range(i):
            along, distance = _apart(spheres[i], spheres[j])
            overlap = radii[i] + radii[j] - distance
            if overlap > 0:
                largest = max(largest, overlap)
                share = np.float32(0.5) * overlap / distance
                _move(pushes[i], along, share)
                _move(pushes[j], along, -share)
    spheres += pushes
    return largest


@compiled
def _apart(a, b):
    """Return the vector from ``b`` to ``a`` and its length."""
    z, y, x = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return (z, y, x), max(np.sqrt(z * z + y * y + x * x), np.float32(1e-6))


@compiled
def _move(sphere, along, share):
    """Move a sphere in place by a share of a vector; whole-array operations would allocate memory, which is slower."""
    z, y, x = along
    sphere[0] += share * z
    sphere[1] += share * y
    sphere[2] += share * x
