"""IoU, Dice, scores by class, bootstrap intervals, and the scores of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from voxuda.data.domain import Domain
from voxuda.data.subtomograms import load_domain
from voxuda.errors import InputError
from voxuda.training.run_folder import load_network, read_config, save_json


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


def resampled_means(runs: Sequence[Sequence[float]], *, draws: int = 4000, seed: int = 0) -> np.ndarray:
    """Means of bootstrap worlds, ``(draws,)``: seeds drawn with replacement, then samples within each.

    Parameters
    ----------
    runs : sequence of sequence of float
        The scores of each seed's test samples.
    draws : int
        Number of worlds.
    seed : int
        Seed of the drawing.
    """
    rng = np.random.default_rng(seed)
    within = np.stack([rng.choice(np.asarray(run, float), (draws, len(runs), len(run))).mean(2) for run in runs])
    chosen = rng.integers(len(runs), size=(draws, len(runs)))  # a seed drawn twice brings two draws of its samples
    return within[chosen, np.arange(draws)[:, None], np.arange(len(runs))].mean(1)


def bootstrap(*runs: Sequence[float], level: float = 0.95, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``(N,)`` values, or of several runs' of a seed each."""
    low, high = np.quantile(resampled_means(runs, draws=draws, seed=seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@torch.no_grad()
def predict(network: nn.Module, volumes: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
    """Foreground probability ``(N, D, H, W)`` of volumes ``(N, 1, D, H, W)``, with the batch norm statistics in force."""
    network.eval()
    device = next(network.parameters()).device
    parts = [network(part.to(device)).float().softmax(1)[:, 1].cpu() for part in volumes.split(batch_size)]
    return torch.cat(parts)


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
        bootstrap interval over samples; ``pooled`` over all voxels; ``foreground_share`` of prediction and truth;
        ``samples``, the IoU of each.
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
        "samples": [round(float(v), 4) for v in iou],
    }


def evaluate_run(run: str | Path, target: str | Path | None = None) -> dict:
    """Score a run with both kinds of batch norm statistics and write ``RUN/scores.json``, or ``RUN/scores-TARGET.json``.

    Parameters
    ----------
    run : path
        Folder made by ``voxuda train``.
    target : path, optional
        A labelled folder, whose name the file of scores gets; by default the target samples that the run did not train on.

    Returns
    -------
    dict
        Of :func:`scores` with the run's own choice of statistics, ``iou`` and ``dice`` overall once more on top, and the
        same for both choices under ``by_batch_norm``; ``target`` is the folder, or None for the run's own samples.

    Raises
    ------
    InputError
        Not a finished run, or a target without masks.
    """
    from voxuda.training.domains import load_target  # the simulators, slow to import

    config = read_config(run)
    networks = {kind: load_network(run, kind) for kind in ("target", "running")}
    domain = load_domain(target) if target else load_target(config)[1]
    if domain.masks is None:
        raise InputError(f"{target or config.target}: has no masks; scores need labels.")
    results = {kind: scores(predict(network, domain.volumes) > 0.5, domain) for kind, network in networks.items()}
    chosen = results[config.batch_norm]
    report = {
        "method": config.method, "batch_norm": config.batch_norm, "target": str(target) if target else None,
        "iou": chosen["overall"]["iou"], "dice": chosen["overall"]["dice"], **chosen, "by_batch_norm": results,
    }  # fmt: skip
    save_json(report, Path(run) / (f"scores-{Path(target).resolve().name}.json" if target else "scores.json"))
    return report
