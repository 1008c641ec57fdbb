"""Pseudo-labels: which voxels of a teacher's prediction supervise the student.

All take foreground probabilities ``(B, D, H, W)`` and give labels ``(B, D, H, W)`` int64: 0, 1 or ``IGNORE``.
"""

from __future__ import annotations

import math

import torch

from voxuda.errors import InputError

IGNORE = -1
"""Label of voxels that supervise nothing."""


def ramp_up(progress: float) -> float:
    """Weight of a teacher that has to learn first: exp(-5 (1 - p)²), 1 at ``progress`` p = 1."""
    return math.exp(-5 * (1 - progress) ** 2)


def confident_labels(foreground: torch.Tensor, eta: float = 0.85) -> torch.Tensor:
    """Labels of voxels whose more likely class has probability ≥ ``eta``; ``IGNORE`` elsewhere.

    Parameters
    ----------
    foreground : Tensor
        ``(B, D, H, W)`` probability.
    eta : float
        The paper's η.

    Returns
    -------
    Tensor
        ``(B, D, H, W)`` int64: 0, 1 or ``IGNORE``.
    """
    if not 0.5 <= eta <= 1:
        raise InputError(f"eta is {eta}; the confidence of the more likely of two classes lies between 0.5 and 1.")
    return torch.where(1 - foreground >= eta, 0, torch.where(foreground >= eta, 1, IGNORE))


def balanced_labels(foreground: torch.Tensor, share: float = 0.05) -> torch.Tensor:
    """Class-balanced labels: the top ``share`` of the batch's probabilities is foreground, background lies below half of that
    threshold, the rest is ``IGNORE``. ``share`` is prior knowledge of how much of a crop is molecule.

    Parameters
    ----------
    foreground : Tensor
        ``(B, D, H, W)`` probability.
    share : float
        Expected share of foreground voxels.

    Returns
    -------
    Tensor
        ``(B, D, H, W)`` int64: 0, 1 or ``IGNORE``.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}; the expected foreground share lies between 0 and 1, such as 0.05.")
    threshold = foreground.flatten().topk(max(1, round(share * foreground.numel()))).values[-1]
    return torch.where(foreground >= threshold, 1, torch.where(foreground < threshold / 2, 0, IGNORE))


def class_balanced_labels(foreground: torch.Tensor, portion: float) -> torch.Tensor:
    """CBST's labels (Zou et al. 2018): of the voxels predicted as a class, its most confident ``portion``.

    Each class c has the confidence k_c that its portion reaches; a voxel gets the class of the largest p_c / k_c if that is
    at least 1, else ``IGNORE``. The rare class is not drowned by the common one, whose voxels are all confident.

    Parameters
    ----------
    foreground : Tensor
        ``(B, D, H, W)`` probability.
    portion : float
        Share of each class that is kept, over the batch.

    Returns
    -------
    Tensor
        ``(B, D, H, W)`` int64: 0, 1 or ``IGNORE``.
    """
    if not 0 < portion <= 1:
        raise InputError(f"portion is {portion}; the share of each class that is kept lies between 0 and 1, such as 0.2.")
    ratios = []
    for probability in (1 - foreground, foreground):
        predicted = probability[probability >= 0.5]
        kept = max(1, round(portion * len(predicted)))
        threshold = predicted.topk(kept).values[-1] if len(predicted) else torch.inf
        ratios.append(probability / threshold)
    background, molecule = ratios
    label = torch.where(molecule > background, 1, 0)
    return torch.where(torch.maximum(background, molecule) >= 1, label, IGNORE)
