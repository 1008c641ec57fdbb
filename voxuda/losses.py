"""Segmentation, consistency (Eq 7) and adversarial losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional as F

from voxuda.teacher import IGNORE
from voxuda.voxresnet import TAPS


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy plus soft Dice loss of the foreground, over the voxels that are not ``IGNORE``.

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
    logits = logits.float()
    counted = labels != IGNORE
    voxels = counted.sum().clamp_min(1)
    entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / voxels
    probability = logits.softmax(1)[:, 1] * counted
    truth = (labels == 1).float()
    overlap = (probability * truth).sum()
    dice = 1 - (2 * overlap + 1) / (probability.sum() + truth.sum() + 1)
    return entropy + dice


def consistency_loss(
    clean: Mapping[str, torch.Tensor], noised: Mapping[str, torch.Tensor], lambdas: Sequence[float] = (0.2, 0.2, 0.3, 0.3)
) -> torch.Tensor:
    """Eq 7: weighted sum over the four taps of 1 - cosine similarity between channel vectors, averaged over voxels.

    Parameters
    ----------
    clean, noised : mapping of Tensor
        Tap name to features ``(B, C, D, H, W)``.
    lambdas : sequence of float
        Weights of the taps c, v2, v4, v6.
    """
    terms = [
        weight * (1 - F.cosine_similarity(clean[tap].float(), noised[tap].float(), dim=1)).mean()
        for weight, tap in zip(lambdas, TAPS, strict=True)
    ]
    return torch.stack(terms).sum()


def adversarial_loss(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of domain logits, mean of source (label 0) and target (label 1); both ``(B, 1)``."""
    on_source = F.binary_cross_entropy_with_logits(source.float(), torch.zeros_like(source, dtype=torch.float32))
    on_target = F.binary_cross_entropy_with_logits(target.float(), torch.ones_like(target, dtype=torch.float32))
    return (on_source + on_target) / 2
