"""Particles as peaks of the probability, which may touch without becoming one; read a few sections at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, spatial

BALL = 12 * math.sqrt(3) * math.pi / (2 * math.pi * math.e) ** 1.5
"""Answer of the negative Laplacian of a Gaussian, times the variance, in the middle of a ball of ones and radius √3 σ."""

TRUNCATE = 4.0
"""Standard deviations after which the Gaussian is cut off."""

FINE = 3.0
"""Standard deviation in voxels that is fine enough; a wider Gaussian works on averages over cubes of voxels."""


@dataclass(frozen=True)
class Peaks:
    """Particles, the strongest first."""

    centres: np.ndarray  #: Positions z, y, x in voxels, ``(K, 3)``; the centre of the first voxel of the volume is 0.
    scores: np.ndarray  #: How much a peak looks like a ball, ``(K,)``; 1 is a ball of ones on a ground of zeros.


def find_peaks(
    read: Callable[[int, int], np.ndarray], depth: int, diameter: float, least: float = 0.5, *, sections: int = 32
) -> Peaks:
    """Find balls of one diameter in a volume by the Laplacian of a Gaussian.

    Of all Gaussians the one with the radius divided by √3 answers most to a ball (Lindeberg, 1998, Feature detection with
    automatic scale selection). Filaments and membranes of this thickness answer, too, with scores of up to 0.9. Outside the
    volume the values count as 0.

    Parameters
    ----------
    read : callable
        Returns sections ``start`` to ``stop`` of the volume, ``(n, H, W)``.
    depth : int
        Number of sections.
    diameter : float
        Diameter of a ball in voxels. Of two peaks that are less than a radius apart along every axis the higher one is kept.
    least : float
        Lowest score that counts.
    sections : int
        Sections searched at a time, after averaging, beside those around them that their scores depend on.
    """
    from skimage.transform import downscale_local_mean  # slow to import

    each = max(1, int(diameter / 2 / math.sqrt(3) / FINE))  # side of the cubes over which voxels are averaged
    radius, count = diameter / 2 / each, -(-depth // each)
    sigma = radius / math.sqrt(3)
    halo = round(TRUNCATE * sigma) + 2  # what the scores of a section and of its neighbours depend on
    centres, scores = [np.zeros((0, 3))], [np.zeros(0)]
    for start in range(0, count, sections):
        first, stop = max(0, start - halo), min(start + sections, count)
        parts = (read(i * each, min((i + 1) * each, depth)) for i in range(first, min(stop + halo, count)))
        slab = np.concatenate([downscale_local_mean(part.astype(np.float32), (each,) * 3) for part in parts])
        score = ndimage.gaussian_laplace(slab, sigma, mode="constant", truncate=TRUNCATE)
        score *= -(sigma**2) / BALL
        inside = slice(start - first, stop - first)
        highest = score == ndimage.maximum_filter(score, 3, mode="constant", cval=-np.inf)
        found = np.argwhere(highest[inside] & (score[inside] >= least)) + np.array([start - first, 0, 0])
        scores.append(score[tuple(found.T)])
        centres.append(found + _offset(score, found) + np.array([first, 0, 0]))
    every, where = np.concatenate(scores), np.concatenate(centres)
    order = np.argsort(-every, kind="stable")
    every, where = every[order], where[order]
    near = spatial.KDTree(where).query_pairs(radius, p=np.inf, output_type="ndarray")
    kept = np.setdiff1d(np.arange(len(every)), near.max(1, initial=-1))  # the first of two is the higher one
    return Peaks((where[kept] + 0.5) * each - 0.5, every[kept].astype(float))


def _offset(score: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Offsets ``(K, 3)`` of maxima from their voxels, by a parabola along each axis."""
    offset = np.zeros(found.shape)
    for axis, side in enumerate(score.shape):
        one = np.eye(3, dtype=int)[axis]
        free = (found[:, axis] > 0) & (found[:, axis] < side - 1)
        low, middle, high = (score[tuple((found[free] + step * one).T)].astype(float) for step in (-1, 0, 1))
        offset[free, axis] = (high - low) / 2 / np.maximum(2 * middle - low - high, 1e-9)
    return offset.clip(-0.5, 0.5)
