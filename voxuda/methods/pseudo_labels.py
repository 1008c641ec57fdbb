"""Choose which voxels of a teacher's prediction become pseudo-labels for the student.

Labels are made from foreground probabilities ``(B, D, H, W)``; they are ``(B, D, H, W)`` int64, 0, 1 or ``IGNORE``.
"""

from __future__ import annotations

import math

import torch

from voxuda.errors import InputError

IGNORE = -1
"""Label of voxels that are left out of the loss."""


def ramp_up(progress: float) -> float:
    """Return the ramp-up weight of a teacher, exp(-5 (1 - p)²), which reaches 1 at ``progress`` p = 1."""
    return math.exp(-5 * (1 - progress) ** 2)


def confident_labels(foreground: torch.Tensor, eta: float = 0.85) -> torch.Tensor:
    """Label voxels whose more likely class has probability ≥ ``eta``, and the others ``IGNORE``.

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
    """Label the top ``share`` of the batch's probabilities as foreground, for class-balanced labels.

    Voxels below half of the lowest of these are background, the rest ``IGNORE``. ``share`` is prior knowledge of how much of a
    crop is molecule.

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
    """Label the most confident ``portion`` of the voxels predicted as each class, as in CBST (Zou et al. 2018).

    For each class c, k_c is the lowest confidence within its portion; a voxel gets the class of the largest p_c / k_c if that
    is at least 1, else ``IGNORE``. This keeps the common class, whose voxels are all confident, from swamping the rare one.

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
