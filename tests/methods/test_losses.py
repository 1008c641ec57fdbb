import pytest
import torch
from torch.nn import functional as F

from voxuda.methods.losses import consistency_loss, segmentation_loss
from voxuda.methods.pseudo_labels import IGNORE
from voxuda.networks.voxresnet import TAPS


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


def test_segmentation_loss_is_cross_entropy_and_soft_dice(generator):
    logits = (5 * torch.randn(2, 2, 3, 4, 5, generator=generator)).requires_grad_()
    labels = torch.randint(-1, 2, (2, 3, 4, 5), generator=generator)
    p, truth = logits.softmax(1)[:, 1][labels != IGNORE], labels[labels != IGNORE]
    dice = 1 - (2 * p[truth == 1].sum() + 1) / (p.sum() + truth.sum() + 1)
    expected = F.cross_entropy(logits, labels, ignore_index=IGNORE) + dice
    found = segmentation_loss(logits, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, expected)))


def test_consistency_loss_is_a_cosine_similarity(generator):
    a, b = ({tap: torch.randn(2, 5, 2, 3, 4, generator=generator) for tap in TAPS} for _ in range(2))
    means = torch.stack([1 - F.cosine_similarity(a[tap], b[tap], dim=1).mean() for tap in TAPS])
    torch.testing.assert_close(consistency_loss(a, b, (1, 2, 3, 4)), means @ torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_consistency_loss_has_the_gradient_that_autograd_finds(generator):
    """With vectors of length 0, one too short to have a direction, and a short one beside a long one among them."""
    a, b = (torch.rand(2, 3, 2, 2, 2, generator=generator, dtype=torch.float64) - 0.5 for _ in range(2))
    a[0, :, 0, 0, 0] = b[1, :, 1, 1, 1] = a[1, :, 0, 1, 0] = b[1, :, 0, 1, 0] = 0
    a[0, :, 1, 0, 1] *= 1e-9
    a[1, :, 1, 0, 0] *= 1e-9
    b[1, :, 1, 0, 0] *= 1e9
    found, expected = ([x.float().requires_grad_() for x in (a, b)] for _ in range(2))
    consistency_loss(*(dict.fromkeys(TAPS, x) for x in found), (1, 1, 1, 1)).backward()
    a, b = expected
    lengths = (a.square().sum(1) * b.square().sum(1)).clamp_min(1e-16)
    (4 * (1 - (a * b).sum(1) / lengths.sqrt()).mean()).backward()
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-7)


def test_consistency_loss_closed_form():
    a = {tap: torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1, 1) for tap in TAPS}
    b = {tap: torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1, 1) for tap in TAPS}
    assert consistency_loss(a, a).item() == pytest.approx(0, abs=1e-6)
    assert consistency_loss(a, b).item() == pytest.approx(1.0)
    only_c = dict(a, c=b["c"])
    assert consistency_loss(a, only_c).item() == pytest.approx(0.2)
