import numpy as np
import pytest
from scipy import stats

from voxuda.experiments import intervals


def test_one_seed_is_the_plain_bootstrap_of_scipy():
    values = np.random.default_rng(0).normal(size=60)
    low, high = intervals.interval([values])
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(1))
    assert low == pytest.approx(expected.confidence_interval.low, abs=0.02)
    assert high == pytest.approx(expected.confidence_interval.high, abs=0.02)


def test_variance_is_that_of_seeds_and_of_samples():
    """Closed form of two stages, as the bootstrap sees them: variance between seeds / S + variance within / (S n)."""
    rng = np.random.default_rng(0)
    runs = [rng.normal(rng.normal(), 2, size=50) for _ in range(8)]
    means = intervals.resampled_means(runs, draws=20000)
    expected = np.var([r.mean() for r in runs]) / 8 + np.mean([np.var(r) for r in runs]) / (8 * 50)
    assert means.var() == pytest.approx(expected, rel=0.06)
    assert means.mean() == pytest.approx(np.mean([r.mean() for r in runs]), abs=0.02)


@pytest.fixture
def few_draws(monkeypatch):
    """400 worlds for each interval, where a test makes hundreds of intervals."""
    monkeypatch.setattr(intervals, "DRAWS", 400)


def test_intervals_cover_what_they_promise(few_draws):
    """Of 200 worlds with 12 seeds the true mean, 0, lies in the interval nearly as often as stated."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = intervals.interval([rng.normal(rng.normal(), 1, size=20) for _ in range(12)])
        covered += low <= 0 <= high
    assert 0.84 < covered / 200 < 0.99


def test_pairing_takes_out_what_both_share():
    rng = np.random.default_rng(0)
    hard = [rng.normal(scale=10, size=40) for _ in range(3)]  # samples differ much, and alike for both
    better = [h + 1 + rng.normal(scale=0.1, size=40) for h in hard]
    mean, (low, high) = intervals.difference(hard, better)
    assert mean == pytest.approx(1, abs=0.05) and 0.9 < low < mean < high < 1.1
    assert intervals.difference(better, hard)[0] == pytest.approx(-mean)
    with pytest.raises(ValueError, match="shorter"):
        intervals.difference(hard, better[:2])


def test_with_three_seeds_the_bootstrap_is_too_narrow_and_students_interval_is_not(few_draws):
    """Scores as ours scatter: by 1.5 points between seeds and by 8 between 120 samples."""
    rng = np.random.default_rng(0)
    inside = {"bootstrap": 0, "student": 0}
    for _ in range(300):
        runs = [rng.normal(rng.normal(scale=1.5), 8, size=120) for _ in range(3)]
        for name, (low, high) in {
            "bootstrap": intervals.interval(runs),
            "student": intervals.student([run.mean() for run in runs])[1:],
        }.items():
            inside[name] += low <= 0 <= high
    assert 0.8 < inside["bootstrap"] / 300 < 0.92 < inside["student"] / 300 < 0.98


def test_seeds_needed_is_where_students_test_has_the_power():
    assert intervals.seeds_needed(1.0, 1.0) == 10  # as textbooks have it for the paired t test; by the normal distribution 8
    assert intervals.seeds_needed(3.0, 1.0) == 73 and intervals.seeds_needed(0.1, 5.0) == 2
    rng = np.random.default_rng(0)
    seen = [(stats.ttest_1samp(rng.normal(1.0, 1.0, (20000, n)), 0, axis=1).pvalue < 0.05).mean() for n in (9, 10)]
    assert seen[0] < 0.77 and seen[1] > 0.79
