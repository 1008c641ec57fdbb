"""Signs of a good network that need no labels of the target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from voxuda.training.evaluation import iou_and_dice, predict

SAMPLES = 64
"""Most samples that are looked at."""


@dataclass(frozen=True)
class Signs:
    """What a network's own predictions on unlabelled samples say of it."""

    #: Mean Dice of a sample's mask and the mask of its mirror image turned back, over the three axes. Two empty masks count 0,
    #: unlike in scores: a network that finds nothing agrees with itself.
    agreement: float
    entropy: float  #: Mean entropy of a voxel's probability, in bits.
    foreground_share: dict[str, float]  #: ``predicted`` here, and of the ``source``'s masks.


def read_signs(network: nn.Module, volumes: torch.Tensor, source_share: float) -> Signs:
    """Signs of a network on unlabelled volumes.

    Parameters
    ----------
    network : Module
        With the batch norm statistics in force.
    volumes : Tensor
        ``(N, 1, D, H, W)``; of more than ``SAMPLES``, as many are drawn, always the same.
    source_share : float
        Share of foreground voxels in the masks of the source.
    """
    drawn = torch.randperm(len(volumes), generator=torch.Generator().manual_seed(0))[:SAMPLES].sort().values
    volumes = volumes[drawn.to(volumes.device)]
    probability = predict(network, volumes)
    masks = probability > 0.5
    dice = [mirror_dice(masks, predict(network, volumes.flip(axis + 1)).flip(axis) > 0.5) for axis in (1, 2, 3)]
    entropy = (torch.special.entr(probability) + torch.special.entr(1 - probability)) / math.log(2)
    shares = {"predicted": float(masks.float().mean()), "source": source_share}
    return Signs(float(torch.stack(dice).mean()), float(entropy.mean()), shares)


def mirror_dice(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Dice ``(N,)`` of masks ``(N, D, H, W)``, 0 where both are empty."""
    return torch.where((one | other).flatten(1).any(1), iou_and_dice(one, other)[1], 0.0)
