"""Particles as peaks of the probability, which touch without becoming one; read a few sections at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

BALL = 12 * math.sqrt(3) * math.pi / (2 * math.pi * math.e) ** 1.5
"""Answer of the negative Laplacian of a Gaussian, times the variance, in the middle of a ball of ones and radius √3 σ."""

TRUNCATE = 4.0
"""Standard deviations after which the Gaussian is cut off."""


@dataclass(frozen=True)
class Peaks:
    """Particles, the strongest first."""

    centres: np.ndarray  #: Positions z, y, x in voxels, ``(K, 3)``; the centre of the first voxel of the volume is 0.
    scores: np.ndarray  #: How much a peak looks like a ball, ``(K,)``; 1 is a ball of ones on a ground of zeros.


def find_peaks(
    read: Callable[[int, int], np.ndarray], depth: int, diameter: float, least: float = 0.5, *, sections: int = 32
) -> Peaks:
    """Find balls of one diameter in a volume by the Laplacian of a Gaussian.

    Lindeberg, Feature detection with automatic scale selection, 1998: of all Gaussians the one with the radius divided by √3
    answers most to a ball.

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
        Sections searched at a time, beside those around them that their scores depend on.
    """
    sigma, radius = diameter / 2 / math.sqrt(3), round(diameter / 2)
    halo = round(TRUNCATE * sigma) + 1 + radius
    centres, scores = [np.zeros((0, 3))], [np.zeros(0)]
    for start in range(0, depth, sections):
        first, stop = max(0, start - halo), min(start + sections, depth)
        volume = read(first, min(stop + halo, depth)).astype(np.float32)
        # Outside the volume the probability counts as 0.
        score = ndimage.gaussian_laplace(volume, sigma, mode="constant", truncate=TRUNCATE) * (-(sigma**2) / BALL)
        highest = score == ndimage.maximum_filter(score, 2 * radius + 1, mode="constant", cval=-np.inf)
        found = np.argwhere(highest[start - first : stop - first] & (score[start - first : stop - first] >= least))
        centres.append(found + np.array([start, 0, 0]))
        scores.append(score[tuple((found + np.array([start - first, 0, 0])).T)])
    every = np.concatenate(scores)
    order = np.argsort(-every, kind="stable")
    return Peaks(np.concatenate(centres)[order].astype(float), every[order].astype(float))
