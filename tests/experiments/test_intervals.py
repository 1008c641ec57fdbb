import math

import numpy as np
import pytest
from scipy import special, stats

from voxuda.experiments import intervals


def test_seeds_needed_is_where_students_test_has_the_power():
    assert intervals.seeds_needed(1.0, 1.0) == 10  # as textbooks have it for the paired t test; by the normal distribution 8
    assert intervals.seeds_needed(3.0, 1.0) == 73 and intervals.seeds_needed(0.1, 5.0) == 2
    rng = np.random.default_rng(0)
    seen = [(stats.ttest_1samp(rng.normal(1.0, 1.0, (20000, n)), 0, axis=1).pvalue < 0.05).mean() for n in (9, 10)]
    assert seen[0] < 0.77 and seen[1] > 0.79


def scattered(rng, claims=20, seeds=3, d0=4.0):
    """Differences of mean 0 whose variances have the prior of the moderated t, with s0 = 1."""
    return np.sqrt(d0 / rng.chisquare(d0, (claims, 1))) * rng.normal(size=(claims, seeds))


def test_moderated_t_is_students_where_variances_share_nothing():
    values = [1.0, 2.5, 3.0]
    found = intervals.moderated([values])
    assert found.degrees == 0 and found.intervals[0] == pytest.approx(intervals.student(values))
    mean, low, high = intervals.moderated([values], family=20).intervals[0]
    assert high - mean == mean - low == pytest.approx(stats.t.ppf(1 - 0.05 / 40, 2) * stats.sem(values)), "Bonferroni"


def test_moderated_t_is_z_where_all_variances_are_one():
    few = intervals.moderated([[-1, 0, 1], [4, 3, 5], [9, 8, 10]], family=1)
    assert math.isinf(few.degrees) and few.deviation == 1
    assert [high - mean for mean, _, high in few.intervals] == pytest.approx([stats.t.ppf(0.975, 6) / 3**0.5] * 3)
    many = intervals.moderated([[-1.0, 1.0] * 5000] * 2, family=1)
    assert many.intervals[0][2] == pytest.approx(stats.norm.ppf(0.975) / 100, rel=1e-3)


def test_moderated_t_by_its_equations():
    rng = np.random.default_rng(0)
    claims = [*scattered(rng, claims=30, d0=2.0), *scattered(rng, claims=10, seeds=5, d0=2.0)]
    found = intervals.moderated(claims)
    d, s2, d0 = np.array([len(c) - 1 for c in claims]), np.array([np.var(c, ddof=1) for c in claims]), found.degrees
    # Smyth 2004, section 6.2: log s^2 is a scaled log F of d and d0 degrees.
    logs = np.log(s2) - special.digamma(d / 2) + np.log(d / 2)
    assert logs.var(ddof=1) == pytest.approx(special.polygamma(1, d / 2).mean() + special.polygamma(1, d0 / 2))
    assert logs.mean() == pytest.approx(2 * np.log(found.deviation) - special.digamma(d0 / 2) + np.log(d0 / 2))
    outlying = stats.f.cdf(s2 / found.deviation**2, d, d0) > 0.95
    assert 0 < outlying.sum() < 4
    posterior = np.where(outlying, s2, (d0 * found.deviation**2 + d * s2) / (d0 + d))
    degrees = np.where(outlying, d, np.minimum(d0 + d, 4 * d.mean()))
    half = stats.t.ppf(1 - 0.05 / 80, degrees) * np.sqrt(posterior / (d + 1))
    assert [high - mean for mean, _, high in found.intervals] == pytest.approx(half)
    many = intervals.moderated(scattered(rng, claims=20000))
    assert many.degrees == pytest.approx(4, rel=0.1) and many.deviation == pytest.approx(1, rel=0.05)


def test_a_claim_that_scatters_far_more_than_the_others_has_students_interval():
    *found, (mean, _, high) = intervals.moderated([*[[-1.0, 0.0, 1.0]] * 30, [-9.0, 1.0, 11.0]]).intervals
    assert high - mean == pytest.approx(stats.t.ppf(1 - 0.05 / 62, 2) * 10 / 3**0.5)
    assert [high for _, _, high in found] == pytest.approx([stats.t.ppf(1 - 0.05 / 62, 8) * (130 / 31 / 3) ** 0.5] * 30)


def test_moderated_t_of_a_single_seed_and_of_the_same_runs():
    single, same, one, other = intervals.moderated([[5.0], [0.0] * 3, [1.0, 2.0, 3.0], [0.0, 4.0, 2.0]], family=1).intervals
    s0 = intervals.moderated([[1.0, 2.0, 3.0], [0.0, 4.0, 2.0]]).deviation
    assert single == pytest.approx((5, 5 - stats.t.ppf(0.975, 4) * s0, 5 + stats.t.ppf(0.975, 4) * s0))
    assert same[2] == pytest.approx(one[2] - 2) == pytest.approx(other[2] - 2), "all have the one variance of the prior"
    assert intervals.moderated([[5.0]]).intervals == [(5, -math.inf, math.inf)], "nothing is known"
    assert intervals.moderated([[0.0, 0.0]]).intervals == [(0, 0, 0)] and intervals.moderated([]).intervals == []


def test_moderated_intervals_cover_what_they_promise_and_are_narrower_than_students():
    rng = np.random.default_rng(0)
    inside, widths = [], []
    for _ in range(100):
        claims = scattered(rng)
        found = intervals.moderated(claims, family=1).intervals
        inside += [low <= 0 <= high for _, low, high in found]
        widths.append(
            np.mean([high - low for _, low, high in found]) / np.mean([np.ptp(intervals.student(c)[1:]) for c in claims])
        )
    assert 0.93 < np.mean(inside) < 0.97 and np.mean(widths) < 0.8


@pytest.mark.parametrize("reference", [1.0, 2.0])
def test_moderated_intervals_hold_together_where_all_claims_share_a_row(reference):
    """Under the bound of limma alone, 12 % of such worlds have an interval that misses."""
    rng = np.random.default_rng(0)
    whole = []
    for _ in range(200):
        found = intervals.moderated(
            reference * rng.normal(size=3) - np.exp(0.4 * rng.normal(size=(20, 1))) * rng.normal(size=(20, 3))
        )
        whole.append(all(low <= 0 <= high for _, low, high in found.intervals))
    assert np.mean(whole) > 0.93
