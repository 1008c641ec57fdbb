import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import f1_score, jaccard_score

from voxuda.data.domain import Domain
from voxuda.training import evaluation


def test_iou_and_dice_against_scikit_learn(generator):
    a, b = (torch.rand(2, 6, 500, generator=generator) > 0.6).unbind(0)
    iou, dice = evaluation.iou_and_dice(a, b)
    for i in range(6):
        assert iou[i] == pytest.approx(jaccard_score(b[i], a[i])) and dice[i] == pytest.approx(f1_score(b[i], a[i]))
    empty = torch.zeros(1, 5, dtype=torch.bool)
    assert evaluation.iou_and_dice(empty, empty)[0] == 1 and evaluation.iou_and_dice(~empty, empty)[0] == 0


def test_bootstrap_is_that_of_scipy():
    values = np.random.default_rng(0).normal(size=60)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(1))
    assert evaluation.bootstrap(values, draws=4000) == pytest.approx(tuple(expected.confidence_interval), abs=0.02)


def test_bootstrap_covers_the_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        low, high = evaluation.bootstrap(rng.normal(size=40), draws=400, seed=trial)
        hits += low <= 0 <= high
    assert 85 <= hits <= 99


def test_scores_by_class_pooled_and_shares():
    truth = torch.zeros(3, 1, 2, 2, 2, dtype=torch.bool)
    truth[0, 0, 0] = truth[1, 0, 0] = truth[2, 0, 0, 0] = True  # 4, 4 and 2 voxels
    predicted = truth[:, 0].clone()
    predicted[1, 0, 0] = False  # misses 2 of 4
    predicted[2, 1, 1] = True  # adds 2 to 2
    result = evaluation.scores(predicted, Domain(torch.zeros(3, 1, 2, 2, 2), truth, ["a", "b", "b"]))
    assert result.samples == [1.0, 0.5, 0.5]
    assert result.overall.iou == pytest.approx(2 / 3) and result.overall.n == 3
    assert result.classes["a"].iou == 1 and result.classes["b"].iou == 0.5
    assert result.classes["b"].dice == pytest.approx(2 / 3)
    assert result.pooled["iou"] == pytest.approx(8 / 12)
    assert result.foreground_share == {"predicted": pytest.approx(10 / 24), "truth": pytest.approx(10 / 24)}
