import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from voxuda import evaluation


def test_iou_and_dice_against_scikit_learn(generator):
    a, b = (torch.rand(2, 6, 500, generator=generator) > 0.6).unbind(0)
    iou, dice = evaluation.iou_and_dice(a, b)
    for i in range(6):
        assert iou[i] == pytest.approx(jaccard_score(b[i], a[i])) and dice[i] == pytest.approx(f1_score(b[i], a[i]))
    empty = torch.zeros(1, 5, dtype=torch.bool)
    assert evaluation.iou_and_dice(empty, empty)[0] == 1 and evaluation.iou_and_dice(~empty, empty)[0] == 0


def test_bootstrap_covers_the_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        low, high = evaluation.bootstrap(rng.normal(size=40), draws=400, seed=trial)
        hits += low <= 0 <= high
    assert 85 <= hits <= 99
