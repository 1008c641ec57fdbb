"""Segmentation, consistency (Eq 7) and adversarial losses, each over a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from voxuda.methods.pseudo_labels import IGNORE
from voxuda.networks.voxresnet import TAPS

_SMALLEST = 1e-16
"""Squared product of two lengths below which their vectors have no direction."""


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return cross entropy plus soft Dice loss of the foreground, over the voxels that are not ``IGNORE``.

    Parameters
    ----------
    logits : Tensor
        ``(B, 2, D, H, W)``.
    labels : Tensor
        ``(B, D, H, W)`` int64.

    Returns
    -------
    Tensor
        Scalar; 0, with a gradient of 0, when every voxel is ignored.
    """
    counted, truth = (labels != IGNORE).float(), (labels == 1).float()
    # The softmax of two logits is the sigmoid of their difference, which takes half the time.
    margin = logits[:, 1].float() - logits[:, 0].float()
    probability = margin.sigmoid() * counted
    entropy = F.binary_cross_entropy_with_logits(margin, truth, counted, reduction="sum")
    dice = 1 - (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)
    return entropy / counted.sum().clamp_min(1) + dice


def consistency_loss(
    clean: Mapping[str, torch.Tensor], noised: Mapping[str, torch.Tensor], lambdas: Sequence[float] = (0.2, 0.2, 0.3, 0.3)
) -> torch.Tensor:
    """Return Eq 7, the weighted sum over the four taps of 1 - cosine similarity of channel vectors, averaged over voxels.

    Parameters
    ----------
    clean, noised : mapping of Tensor
        Features ``(B, C, D, H, W)`` by tap name.
    lambdas : sequence of float
        Weights of the taps c, v2, v4, v6.
    """
    terms = []
    for weight, tap in zip(lambdas, TAPS, strict=True):
        a, b = (features[tap].float().movedim(1, -1) for features in (clean, noised))  # channels last, as in memory
        terms.append(weight * (1 - _Cosine.apply(a, b)).mean())
    return torch.stack(terms).sum()


class _Cosine(torch.autograd.Function):
    """Cosine similarity ``(...)`` of channel vectors a and b of ``(..., C)`` features; 0 where one of them is 0.

    Its derivative with respect to a is (b / |b| - cos a / |a|) / |a|, here without the intermediate products that autograd
    would write and read. With torch's ``cosine_similarity`` a training step takes 1.08 times as long at widths 8 and 16.
    """

    @staticmethod
    def forward(ctx, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        aa, bb, ab = ((x * y).sum(-1, keepdim=True) for x, y in ((a, a), (b, b), (a, b)))
        lengths = aa * bb
        scale = lengths.clamp_min(_SMALLEST).rsqrt()
        cosine = ab * scale
        clamped = lengths < _SMALLEST  # where the scale is a constant
        ctx.save_for_backward(a, b, scale, *(torch.where(clamped, 0, cosine / squares) for squares in (aa, bb)))
        return cosine.squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor):  # type: ignore[override]
        a, b, scale, along_a, along_b = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        scale = gradient * scale
        return (b * scale).addcmul_(a, gradient * along_a, value=-1), (a * scale).addcmul_(b, gradient * along_b, value=-1)


def adversarial_loss(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the binary cross entropy of domain logits, the mean of source (label 0) and target (label 1), both ``(B, 1)``."""
    on_source = F.binary_cross_entropy_with_logits(source.float(), torch.zeros_like(source, dtype=torch.float32))
    on_target = F.binary_cross_entropy_with_logits(target.float(), torch.ones_like(target, dtype=torch.float32))
    return (on_source + on_target) / 2


def self_information(logits: torch.Tensor) -> torch.Tensor:
    """Return ADVENT's maps -p log₂ p per class, ``(B, 2, D, H, W)`` like the logits; their sum is the entropy in bits."""
    return -logits.softmax(1) * logits.log_softmax(1) / math.log(2)


def prediction_distance(logits: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of foreground probability, student logits ``(B, 2, ...)``, teacher's ``(B, ...)``."""
    return (logits.softmax(1)[:, 1] - foreground).square().mean()
