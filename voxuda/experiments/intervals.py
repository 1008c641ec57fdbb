"""Confidence intervals of means and differences over seeds, and the number of seeds that a difference needs."""

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
"""Upper tail probability under the prior, below which a claim's variance is an outlier and is used alone for its interval."""
POWER = 0.8
"""Probability of detecting a true difference."""


def student(values: Sequence[float]) -> tuple[float, float, float]:
    """Compute the mean of a few values, one per seed, and Student's 95 % interval, for a claim that shares no variance."""
    mean = float(np.mean(values))
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=stats.sem(values))
    return mean, float(low), float(high)


@dataclass(frozen=True)
class Moderated:
    """Mean differences of several claims, and the variance that they share."""

    intervals: list[tuple[float, float, float]]  #: Mean, lower and upper end of each claim.
    degrees: float  #: Degrees of freedom of the prior, d0. At 0 nothing is shared, at infinity all claims have one variance.
    deviation: float  #: Standard deviation of the prior, s0; NaN if no claim varies between seeds.


def moderated(claims: Sequence[Sequence[float]], family: int | None = None) -> Moderated:
    r"""Compute moderated-t intervals of the mean differences of several claims, simultaneous by Bonferroni.

    The differences of claim :math:`c` are paired by seed: :math:`n_c` values of mean :math:`\bar x_c`, each the mean over that
    seed's test samples. A seed has its own weights, training data and test samples, so the variance over seeds, :math:`s_c^2`
    of :math:`d_c = n_c - 1` degrees of freedom, includes that of samples. Few seeds leave :math:`s_c^2` uncertain, so the
    variances share a scaled inverse :math:`\chi^2` prior (Smyth 2004, doi:10.2202/1544-6115.1027; ``eBayes`` of limma), whose
    :math:`d_0` and :math:`s_0^2` follow from the mean and variance of :math:`\log s_c^2`:

    .. math::
        \tilde s_c^2 = \frac{d_0 s_0^2 + d_c s_c^2}{d_0 + d_c}, \qquad
        \bar x_c \pm t_{1 - 0.05/(2m),\, d_0 + d_c}\, \tilde s_c / \sqrt{n_c}.

    As in limma, the degrees of freedom are at most those of all claims together. They are also at most four times the mean per
    claim: claims share a row, which contributes half of each variance, so further claims do not make it more certain
    (Satterthwaite's approximation). A claim whose variance is in the upper 5 % of the prior's, :math:`s_c^2 / s_0^2` above that
    quantile of :math:`F_{d_c,\, d_0}`, gets Student's interval from its own variance alone. Variances of 0, where two rows show
    the same runs, are left out of the prior.

    Parameters
    ----------
    claims : sequence of sequences of float
        Differences of each claim, at least one; a claim with only one gets the prior's variance.
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
    # scipy's F needs finite degrees; for one seed or no prior it is NaN, so the comparison is False
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
    """Fit the prior's degrees of freedom and variance to the moments of the log variances (limma's ``fitFDist``)."""
    if len(variances) < 2:  # too few for a fit
        return 0.0, float(variances[0]) if len(variances) else math.nan
    logs = np.log(variances) - special.digamma(degrees / 2) + np.log(degrees / 2)
    excess = logs.var(ddof=1) - special.polygamma(1, degrees / 2).mean()
    if excess <= 0:  # they vary no more than expected by chance
        return math.inf, float(np.average(variances, weights=degrees))
    # trigamma(x) = y has one root, and it lies between 1 / y and 1 / y + 1 / sqrt(y)
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1 / excess, 1 / excess + excess**-0.5)
    return 2 * half, float(np.exp(logs.mean() + special.digamma(half) - np.log(half)))


def seeds_needed(deviation: float, step: float) -> int:
    r"""Return the number of seeds with which Student's 95 % interval of a paired difference excludes 0 with probability 0.8.

    This is the smallest :math:`n \ge 2` with :math:`P(T > t_{0.975,\,n-1}) \ge 0.8`, where :math:`T` is noncentral Student of
    :math:`n - 1` degrees of freedom and noncentrality :math:`\sqrt n\,step / s`.

    Parameters
    ----------
    deviation : float
        Standard deviation of the difference from seed to seed.
    step : float
        True difference to detect, in the same unit.
    """
    z = NormalDist().inv_cdf
    n = max(2, math.ceil(((z(UPPER) + z(POWER)) * deviation / step) ** 2))  # enough if the deviation were known
    while stats.nct.sf(stats.t.ppf(UPPER, n - 1), n - 1, n**0.5 * step / deviation) < POWER:
        n += 1
    return n
