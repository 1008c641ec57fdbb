"""Gradient reversal and discriminators, for the domain adversary of DANN (Ganin et al. 2016)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, strength: float) -> torch.Tensor:  # type: ignore[override]
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):  # type: ignore[override]
        return -ctx.strength * gradient, None


def reverse_gradient(x: torch.Tensor, strength: float) -> torch.Tensor:
    """Return ``x``, of any shape, and multiply its gradient by ``-strength`` in the backward pass."""
    return _Reverse.apply(x, strength)


def reversal_strength(progress: float) -> float:
    """Compute DANN's schedule 2 / (1 + exp(-10 p)) - 1, from 0 at ``progress`` p = 0 to almost 1 at p = 1."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class Discriminator(nn.Module):
    """Classifier of features ``(B, channels, D, H, W)`` as source or target; three convolutions, global mean, one logit."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels, channels, 3, padding=1), nn.LeakyReLU(0.2),
            nn.Conv3d(channels, 2 * channels, 3, padding=1), nn.LeakyReLU(0.2),
            nn.Conv3d(2 * channels, 2 * channels, 3, padding=1), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.logit = nn.Linear(2 * channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return one logit per sample, ``(B, 1)``; positive means target."""
        return self.logit(self.body(features).mean((2, 3, 4)))


class EntropyDiscriminator(nn.Module):
    """Domain classifier of two maps ``(B, 2, D, H, W)`` made from a network's output.

    It has four convolutions of stride 2, the first with ``channels`` channels and each later one with twice as many as the one
    before, then a global mean and one logit.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [2, *(channels * 2**i for i in range(4))]
        layers = [nn.Sequential(nn.Conv3d(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.2)) for a, b in pairwise(widths)]
        self.body = nn.Sequential(*layers)
        self.logit = nn.Linear(widths[-1], 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return one logit per sample, ``(B, 1)``; positive means target."""
        return self.logit(self.body(maps).mean((2, 3, 4)))
