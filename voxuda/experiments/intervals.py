"""How sure a mean over samples and seeds is, how sure a difference, and how many seeds would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy import stats

from voxuda.training.evaluation import bootstrap, resampled_means

LEVEL = 0.95
DRAWS = 4000
UPPER = (1 + LEVEL) / 2
POWER = 0.8
"""Probability of seeing a difference that is there."""

__all__ = ["difference", "interval", "resampled_means", "seeds_needed", "student"]


def interval(runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over seeds and samples; with three seeds too narrow, see ``student``."""
    return bootstrap(*runs, draws=DRAWS)


def difference(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> tuple[float, tuple[float, float]]:
    """Mean of b - a and its interval, paired: run i of both was tested on the same samples; else :exc:`ValueError`."""
    pairs = [np.asarray(y, float) - np.asarray(x, float) for x, y in zip(a, b, strict=True)]
    return float(np.mean([pair.mean() for pair in pairs])), interval(pairs)


def student(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a few values, one a seed, and Student's 95 % interval: as wide as so few values make it, unlike a bootstrap."""
    mean = float(np.mean(values))
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=stats.sem(values))
    return mean, float(low), float(high)


def seeds_needed(deviation: float, step: float) -> int:
    r"""Seeds for which Student's 95 % interval of a paired difference of ``step`` excludes 0 with probability 0.8.

    The smallest :math:`n \ge 2` with :math:`P(T > t_{0.975,\,n-1}) \ge 0.8`, where :math:`T` is noncentral Student of
    :math:`n - 1` degrees of freedom and noncentrality :math:`\sqrt n\,step / s`.

    Parameters
    ----------
    deviation : float
        Standard deviation of the difference from seed to seed.
    step : float
        The difference that should be seen, in the same unit.
    """
    z = NormalDist().inv_cdf
    n = max(2, math.ceil(((z(UPPER) + z(POWER)) * deviation / step) ** 2))  # a known deviation would need as many
    while stats.nct.sf(stats.t.ppf(UPPER, n - 1), n - 1, n**0.5 * step / deviation) < POWER:
        n += 1
    return n
