"""How sure a mean over seeds is, how sure a difference, and how many seeds would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy import optimize, special, stats

LEVEL = 0.95
UPPER = (1 + LEVEL) / 2
OUTLYING = 0.05
"""Probability, by the prior, of a variance as large as a claim's, below which the claim is judged by its own variance."""
POWER = 0.8
"""Probability of seeing a difference that is there."""


def student(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a few values, one per seed, and Student's 95 % interval, for a claim that shares nothing with others."""
    mean = float(np.mean(values))
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=stats.sem(values))
    return mean, float(low), float(high)


@dataclass(frozen=True)
class Moderated:
    """Mean differences of several claims, and the variance that they share."""

    intervals: list[tuple[float, float, float]]  #: Mean, lower and upper end, one for each claim.
    degrees: float  #: Degrees of freedom of the prior, d0. With 0 nothing is shared, with infinity all have one variance.
    deviation: float  #: Standard deviation of the prior, s0; NaN where no claim has a scatter.


def moderated(claims: Sequence[Sequence[float]], family: int | None = None) -> Moderated:
    r"""Moderated-t intervals of the mean differences of several claims, simultaneous by Bonferroni.

    The differences of claim :math:`c` are paired by seed: :math:`n_c` values of mean :math:`\bar x_c`, each the mean over that
    seed's test samples. A seed has its own weights, training data and test samples, so the variance over seeds, :math:`s_c^2`
    of :math:`d_c = n_c - 1` degrees of freedom, includes that of samples. Few seeds leave :math:`s_c^2` uncertain, so the
    variances share a scaled inverse :math:`\chi^2` prior (Smyth 2004, doi:10.2202/1544-6115.1027; ``eBayes`` of limma), whose
    :math:`d_0` and :math:`s_0^2` follow from the mean and variance of :math:`\log s_c^2`:

    .. math::
        \tilde s_c^2 = \frac{d_0 s_0^2 + d_c s_c^2}{d_0 + d_c}, \qquad
        \bar x_c \pm t_{1 - 0.05/(2m),\, d_0 + d_c}\, \tilde s_c / \sqrt{n_c}.

    As in limma, the degrees are at most those of all claims together. They are also at most four times a claim's mean degrees:
    claims share a row, which contributes half of each variance, so further claims do not make it more certain (Satterthwaite's
    approximation). A claim whose variance is in the upper 5 % of the prior's, :math:`s_c^2 / s_0^2` above that quantile of
    :math:`F_{d_c,\, d_0}`, has Student's interval, by that variance alone. Variances of 0, where two rows show the same
    runs, are left out of the prior.

    Parameters
    ----------
    claims : sequence of sequences of float
        The differences of each claim, at least one; where there is only one, the claim has the prior's variance.
    family : int, optional
        Number of claims to correct for, m; by default all that are given.
    """
    means = np.array([np.mean(values) for values in claims])
    n = np.array([len(values) for values in claims])
    variances = np.array([np.var(values, ddof=1) if len(values) > 1 else 0.0 for values in claims])
    seen = variances > 0
    d0, prior = _prior(variances[seen], n[seen] - 1)
    most = min((n[seen] - 1).sum(), 4 * (n[seen] - 1).mean()) if seen.any() else 0
    tail = (1 - LEVEL) / 2 / (family or len(claims) or 1)
    # scipy's F has no infinite degrees; where there is one seed, or no prior, it is NaN, which is below nothing
    outlying = stats.f.sf(variances / prior, n - 1, min(d0, 1e9)) < OUTLYING
    found = []
    for mean, size, variance, borrowed in zip(means, n, variances, np.where(outlying, 0.0, d0), strict=True):
        own = size - 1
        degrees = max(own, min(borrowed + own, most))
        shared = 1.0 if math.isinf(borrowed) else borrowed / (borrowed + own) if borrowed else 0.0
        spread = (shared * prior if shared else 0.0) + (1 - shared) * variance
        half = stats.t.isf(tail, degrees) * math.sqrt(spread / size) if degrees else math.inf
        found.append((float(mean), float(mean - half), float(mean + half)))
    return Moderated(found, float(d0), math.sqrt(prior))


def _prior(variances: np.ndarray, degrees: np.ndarray) -> tuple[float, float]:
    """Degrees of freedom and variance of the prior, by the moments of their logarithms (limma's ``fitFDist``)."""
    if len(variances) < 2:  # nothing to learn from
        return 0.0, float(variances[0]) if len(variances) else math.nan
    logs = np.log(variances) - special.digamma(degrees / 2) + np.log(degrees / 2)
    excess = logs.var(ddof=1) - special.polygamma(1, degrees / 2).mean()
    if excess <= 0:  # they scatter no more than chance would have it
        return math.inf, float(np.average(variances, weights=degrees))
    # trigamma(x) = y has one root, and it lies between 1 / y and 1 / y + 1 / sqrt(y)
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1 / excess, 1 / excess + excess**-0.5)
    return 2 * half, float(np.exp(logs.mean() + special.digamma(half) - np.log(half)))


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
