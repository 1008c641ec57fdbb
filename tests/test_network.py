"""VoxResNet, adversary, teacher and losses."""

import pytest
import torch
from torch import nn

from voxuda.adversary import Discriminator, reversal_strength, reverse_gradient
from voxuda.losses import adversarial_loss, consistency_loss, segmentation_loss
from voxuda.teacher import IGNORE, Teacher, balanced_labels, confident_labels
from voxuda.volumes import InputError
from voxuda.voxresnet import TAPS, VoxResNet


def test_voxresnet_sizes_as_published():
    network = VoxResNet(32)
    assert round(network.trunk_parameters() / 1e6, 3) == 1.635
    features = network.features(torch.zeros(1, 1, 32, 32, 32))
    shapes = {tap: tuple(features[tap].shape[1:]) for tap in TAPS}
    assert shapes == {"c": (32, 32, 32, 32), "v2": (64, 16, 16, 16), "v4": (64, 8, 8, 8), "v6": (64, 4, 4, 4)}
    assert network(torch.zeros(2, 1, 16, 24, 32)).shape == (2, 2, 16, 24, 32)


@pytest.mark.parametrize(("tap", "field"), [("c", 5), ("v2", 23)])
def test_receptive_field(tap, field):
    torch.manual_seed(0)
    network = VoxResNet(2).double().eval()
    x = torch.zeros(1, 1, 48, 48, 48, dtype=torch.float64, requires_grad=True)
    f = network.features(x)[tap]
    middle = f.shape[-1] // 2
    f[:, :, middle, middle, middle].sum().backward()
    reached = (x.grad[0, 0].abs().amax((1, 2)) > 0).nonzero()
    assert int(reached.max() - reached.min()) + 1 <= field
    assert int(reached.max() - reached.min()) + 1 >= field - 4  # a ReLU may close the outermost paths


def test_gradient_reversal_reverses():
    x = torch.randn(3, requires_grad=True)
    (2 * reverse_gradient(x, 0.5)).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((3,), -1.0))
    assert reversal_strength(0) == 0 and reversal_strength(1) == pytest.approx(0.9999, abs=1e-4)


def test_discriminator_shape_and_loss():
    logits = Discriminator(4)(torch.randn(3, 4, 4, 4, 4))
    assert logits.shape == (3, 1)
    zero = torch.zeros(3, 1)
    assert adversarial_loss(zero, zero) == pytest.approx(0.6931, abs=1e-4)
    assert adversarial_loss(zero - 9, zero + 9) < 1e-3


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
    with pytest.raises(InputError, match="share"):
        balanced_labels(big, 0.0)


def test_segmentation_loss_closed_form_and_ignored_voxels():
    labels = torch.tensor([[[[0, 1, 1, IGNORE]]]])
    logits = torch.zeros(1, 2, 1, 1, 4)
    dice = 1 - (2 * 0.5 * 2 + 1) / (0.5 * 3 + 2 + 1)
    assert segmentation_loss(logits, labels) == pytest.approx(0.6931 + dice, abs=1e-4)
    other = logits.clone()
    other[..., 3] = 50.0 * torch.tensor([1.0, -1.0]).reshape(2, 1, 1)
    torch.testing.assert_close(segmentation_loss(other, labels), segmentation_loss(logits, labels))
    free = torch.zeros(1, 2, 1, 1, 4, requires_grad=True)
    loss = segmentation_loss(free, torch.full((1, 1, 1, 4), IGNORE))
    loss.backward()
    assert loss.item() == 0 and free.grad.abs().max() == 0


def test_consistency_loss_closed_form():
    a = {tap: torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1, 1) for tap in TAPS}
    b = {tap: torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1, 1) for tap in TAPS}
    assert consistency_loss(a, a).item() == pytest.approx(0, abs=1e-6)
    assert consistency_loss(a, b).item() == pytest.approx(1.0)
    only_c = dict(a, c=b["c"])
    assert consistency_loss(a, only_c).item() == pytest.approx(0.2)
