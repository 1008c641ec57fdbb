import pytest
import torch
from torch import nn

from voxuda.errors import InputError
from voxuda.methods.pseudo_labels import IGNORE, balanced_labels, confident_labels
from voxuda.networks.teacher import Teacher


def test_teacher_closed_form():
    student = nn.Linear(1, 1, bias=False)
    nn.init.constant_(student.weight, 1.0)
    teacher = Teacher(student, decay=0.9)
    nn.init.constant_(student.weight, 3.0)
    expected = 1.0
    for t in range(1, 30):
        teacher.update(student)
        alpha = min(1 - 1 / (t + 1), 0.9)
        expected = alpha * expected + (1 - alpha) * 3.0
        assert teacher.network.weight.item() == pytest.approx(expected, rel=1e-5)
    assert not teacher.network.weight.requires_grad
    with pytest.raises(InputError, match="decay"):
        Teacher(student, decay=1.0)


def test_labels():
    p = torch.tensor([[0.0, 0.14, 0.16, 0.84, 0.86, 1.0]]).reshape(1, 1, 1, 6)
    assert confident_labels(p, 0.85).flatten().tolist() == [0, 0, IGNORE, IGNORE, 1, 1]
    assert balanced_labels(p, 2 / 6).flatten().tolist() == [0, 0, 0, IGNORE, 1, 1]
    big = torch.rand(4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = balanced_labels(big, 0.05)
    assert (labels == 1).float().mean() == pytest.approx(0.05, abs=1e-3)
    assert big[labels == 1].min() == big.flatten().quantile(0.95).clamp_min(big[labels == 1].min())
    with pytest.raises(InputError, match="eta"):
        confident_labels(p, 0.3)
    with pytest.raises(InputError, match="share"):
        balanced_labels(big, 0.0)
