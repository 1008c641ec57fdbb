"""Signs of a good network that need no target labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from voxuda.training.evaluation import iou_and_dice, predict

SAMPLES = 64
"""Maximum number of samples used."""


@dataclass(frozen=True)
class Signs:
    """Signs of a network's quality, from its own predictions on unlabelled samples."""

    #: Mean Dice between a sample's mask and that of its mirror image, flipped back, over the three axes. Two empty masks count
    #: 0, unlike in scores, since a network that finds nothing agrees with itself.
    agreement: float
    entropy: float  #: Mean entropy per voxel, in bits.
    foreground_share: dict[str, float]  #: Share of foreground voxels, ``predicted`` and in the ``source`` masks.


def read_signs(network: nn.Module, volumes: torch.Tensor, source_share: float) -> Signs:
    """Compute the signs of a network on unlabelled volumes.

    Parameters
    ----------
    network : Module
        Network with the batch norm statistics to use.
    volumes : Tensor
        ``(N, 1, D, H, W)``; if there are more than ``SAMPLES``, a fixed random subset of that size is used.
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
    """Compute Dice ``(N,)`` of masks ``(N, D, H, W)``, 0 if both are empty."""
    return torch.where((one | other).flatten(1).any(1), iou_and_dice(one, other)[1], 0.0)
