"""Spheres pulled together by a compiled loop, beside :func:`voxuda.simulation.packing.pull_by_the_rule`."""

from __future__ import annotations

import numpy as np

from voxuda.signal._lanes import compiled


@compiled
def pull(spheres, radii, lengths, pushes):
    """Pull spheres ``(M, 3)`` of ``radii`` ``(M,)`` in place, by ``lengths``; memory for ``pushes`` is ``(M, 3)``."""
    for length in lengths:
        for i in range(1, len(radii)):
            along, distance = _apart(spheres[0], spheres[i])
            _move(spheres[i], along, min(length / distance, np.float32(1)))
        _separate(spheres, radii, pushes)
    for _ in lengths:
        if _separate(spheres, radii, pushes) < 1e-3:
            break


@compiled
def _separate(spheres, radii, pushes):
    """Push overlapping pairs apart, all at once, by half of their overlap each; returns the largest overlap there was."""
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
    """The way from ``b`` to ``a``, and its length."""
    z, y, x = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return (z, y, x), max(np.sqrt(z * z + y * y + x * x), np.float32(1e-6))


@compiled
def _move(sphere, along, share):
    """Move a sphere in place by a share of a way; numba gives memory to whole arrays, which takes longer."""
    z, y, x = along
    sphere[0] += share * z
    sphere[1] += share * y
    sphere[2] += share * x
