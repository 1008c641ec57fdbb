import pytest
import torch

from voxuda.methods.losses import adversarial_loss
from voxuda.networks.discriminators import Discriminator, reversal_strength, reverse_gradient


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
