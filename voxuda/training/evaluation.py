"""IoU, Dice, scores by class, bootstrap intervals, and the scores of a run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import nn

from voxuda.data.domain import Domain
from voxuda.data.files import locked
from voxuda.data.subtomograms import load_domain
from voxuda.errors import InputError
from voxuda.training.config import BatchNorm
from voxuda.training.run_folder import check_samples, load_network, read_config, save_json


def iou_and_dice(predicted: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute foreground IoU and Dice of each sample; both are 1 if prediction and truth are both empty.

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


def bootstrap(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of the mean of ``(N,)`` values, the samples of one run."""
    means = np.random.default_rng(seed).choice(np.asarray(values, float), (draws, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@torch.no_grad()
def predict(network: nn.Module, volumes: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
    """Predict foreground probabilities ``(N, D, H, W)`` of ``(N, 1, D, H, W)`` volumes with current batch norm statistics."""
    network.eval()
    device = next(network.parameters()).device
    parts = [network(part.to(device)).float().softmax(1)[:, 1].cpu() for part in volumes.split(batch_size)]
    return torch.cat(parts)


@dataclass(frozen=True)
class Score:
    """Means over samples, 0 to 1, with 95 % bootstrap intervals."""

    n: int  #: Number of samples.
    iou: float
    iou_interval: tuple[float, float]
    dice: float
    dice_interval: tuple[float, float]


@dataclass(frozen=True)
class Scores:
    """Scores of masks against a labelled domain."""

    overall: Score
    classes: dict[str, Score]
    pooled: dict[str, float]  #: ``iou`` and ``dice`` over all voxels of all samples.
    foreground_share: dict[str, float]  #: Share of foreground voxels, ``predicted`` and ``truth``.
    samples: list[float]  #: IoU of each sample.


@dataclass(frozen=True)
class Evaluation:
    """Scores of a run's network with each kind of batch norm statistics."""

    method: str
    batch_norm: BatchNorm  #: The run's own choice.
    target: str | None  #: Folder of the labelled samples; ``None`` for the run's own test samples.
    by_batch_norm: dict[BatchNorm, Scores]

    @property
    def scores(self) -> Scores:
        """Scores with the run's own choice of statistics."""
        return self.by_batch_norm[self.batch_norm]


def scores(predicted: torch.Tensor, domain: Domain) -> Scores:
    """Score masks against a labelled domain.

    Parameters
    ----------
    predicted : Tensor
        ``(N, D, H, W)`` bool.
    domain : Domain
        Labelled samples.

    Returns
    -------
    Scores
        Overall and by class, with 95 % bootstrap intervals over samples.
    """
    assert domain.masks is not None
    truth = domain.masks[:, 0]
    iou, dice = (metric.numpy() for metric in iou_and_dice(predicted, truth))

    def mean(index: np.ndarray) -> Score:
        i, d = iou[index], dice[index]
        return Score(len(index), float(i.mean()), bootstrap(i), float(d.mean()), bootstrap(d))

    names = np.array(domain.classes)
    pooled_iou, pooled_dice = iou_and_dice(predicted.flatten()[None], truth.flatten()[None])
    return Scores(
        mean(np.arange(len(names))),
        {name: mean(np.flatnonzero(names == name)) for name in sorted(set(names.tolist()))},
        {"iou": float(pooled_iou), "dice": float(pooled_dice)},
        {"predicted": float(predicted.float().mean()), "truth": float(truth.float().mean())},
        [round(float(v), 4) for v in iou],
    )


def evaluate_run(run: str | Path, target: str | Path | None = None) -> Evaluation:
    """Score a run with each kind of batch norm statistics and write ``RUN/scores.json``, or ``RUN/scores-TARGET.json``.

    Parameters
    ----------
    run : path
        Folder made by ``voxuda train``.
    target : path, optional
        Labelled folder, whose name goes into that of the scores file; by default the run's held-out target samples.

    Returns
    -------
    Evaluation
        Scores with each kind of batch norm statistics, and the run's own choice among them.

    Raises
    ------
    InputError
        The run is not finished, another job is writing it, its samples have changed since, or the target has no masks.
    """
    from voxuda.training.domains import load_target  # the simulators, slow to import

    config = read_config(run)
    path = Path(run) / (f"scores-{Path(target).resolve().name}.json" if target else "scores.json")
    with locked(run):
        if target and path.exists() and _target_of(path) != Path(target).resolve():
            raise InputError(f"{path}: has the scores of another folder of that name; move it elsewhere, or rename a folder.")
        networks: dict[BatchNorm, nn.Module] = {kind: load_network(run, kind) for kind in get_args(BatchNorm)}
        if not target:
            check_samples(run, config.target)
        domain = load_domain(target) if target else load_target(config)[1]
        if domain.masks is None:
            raise InputError(f"{target or config.target}: has no masks; scores need labels.")
        results = {kind: scores(predict(network, domain.volumes) > 0.5, domain) for kind, network in networks.items()}
        found = Evaluation(config.method, config.batch_norm, str(Path(target).resolve()) if target else None, results)
        about, overall = dataclasses.asdict(found), found.scores.overall
        each = about.pop("by_batch_norm")
        report = {**about, "iou": overall.iou, "dice": overall.dice, **each[config.batch_norm], "by_batch_norm": each}
        save_json(report, path)
    return found


def _target_of(scores: Path) -> Path:
    """Return the folder whose scores a file has."""
    try:
        return Path(json.loads(scores.read_text())["target"]).resolve()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{scores}: not a file of scores; move it elsewhere.") from error
