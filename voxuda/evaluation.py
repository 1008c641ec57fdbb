"""IoU, Dice, scores by class, bootstrap intervals, and batch norm at test time."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from voxuda.data import Domain


def iou_and_dice(predicted: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Foreground IoU and Dice of each sample; both 1 where prediction and truth are both empty.

    Parameters
    ----------
    predicted, truth : Tensor
        ``(N, ...)`` bool.

    Returns
    -------
    tuple of Tensor
        IoU ``(N,)`` and Dice ``(N,)``, 0 to 1.
    """
    a, b = predicted.flatten(1).bool(), truth.flatten(1).bool()
    both = (a & b).sum(1).double()
    total = (a.sum(1) + b.sum(1)).double()
    empty = total == 0
    iou = torch.where(empty, 1.0, both / (total - both).clamp_min(1))
    return iou, torch.where(empty, 1.0, 2 * both / total.clamp_min(1))


def bootstrap(values: np.ndarray, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``(N,)`` values."""
    rng = np.random.default_rng(seed)
    means = rng.choice(values, (draws, len(values))).mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@torch.no_grad()
def predict(network: nn.Module, volumes: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
    """Foreground probability ``(N, D, H, W)`` of volumes ``(N, 1, D, H, W)``, with the batch norm statistics in force."""
    network.eval()
    parts = [network(part).float().softmax(1)[:, 1].cpu() for part in volumes.split(batch_size)]
    return torch.cat(parts)


@torch.no_grad()
def target_batch_norm(network: nn.Module, volumes: torch.Tensor, batch_size: int = 16) -> dict[str, torch.Tensor]:
    """Batch norm statistics of a network on unlabelled volumes ``(N, 1, D, H, W)`` (AdaBN, Li et al. 2016).

    The network itself is left as it was.

    Returns
    -------
    dict of Tensor
        The running means and variances, to be loaded with ``load_state_dict(..., strict=False)``.
    """
    before = {k: v.clone() for k, v in network.state_dict().items()}
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
    network.train()
    for part in volumes.split(batch_size):
        network(part)
    statistics = {k: v.clone() for k, v in network.state_dict().items() if "running_" in k}
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.load_state_dict(before)
    return statistics


def scores(predicted: torch.Tensor, domain: Domain) -> dict:
    """Scores of masks against a labelled domain.

    Parameters
    ----------
    predicted : Tensor
        ``(N, D, H, W)`` bool.
    domain : Domain
        With masks.

    Returns
    -------
    dict
        ``overall`` and one entry a class under ``classes``: mean ``iou`` and ``dice`` over samples, each with a 95 %
        bootstrap interval over samples; ``pooled`` over all voxels; ``foreground_share`` of prediction and truth.
    """
    assert domain.masks is not None
    truth = domain.masks[:, 0]
    iou, dice = (metric.numpy() for metric in iou_and_dice(predicted, truth))

    def summary(index: np.ndarray) -> dict:
        return {
            "n": len(index),
            "iou": float(iou[index].mean()),
            "iou_interval": bootstrap(iou[index]),
            "dice": float(dice[index].mean()),
            "dice_interval": bootstrap(dice[index]),
        }

    names = np.array(domain.classes)
    pooled_iou, pooled_dice = iou_and_dice(predicted.flatten()[None], truth.flatten()[None])
    return {
        "overall": summary(np.arange(len(names))),
        "classes": {name: summary(np.flatnonzero(names == name)) for name in sorted(set(names.tolist()))},
        "pooled": {"iou": float(pooled_iou), "dice": float(pooled_dice)},
        "foreground_share": {"predicted": float(predicted.float().mean()), "truth": float(truth.float().mean())},
    }
