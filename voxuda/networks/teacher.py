"""The EMA teacher."""

from __future__ import annotations

import copy

import torch
from torch import nn

from voxuda.errors import InputError
from voxuda.networks.normalisation import BatchRenorm3d


class Teacher(nn.Module):
    """Exponential moving average of a student network.

    The decay is ``min(1 - 1 / (t + 1), decay)``, which gives a plain average of the first students, then a moving one. Only
    parameters are averaged; batch norm and batch renormalisation always use the statistics of the current batch, as in ASC and
    UA-MT. The paper gives no decay.
    """

    step: torch.Tensor

    def __init__(self, student: nn.Module, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise InputError(f"decay is {decay}; it must be at least 0 and below 1.")
        self.network = copy.deepcopy(student).requires_grad_(False)
        for layer in self.network.modules():
            if isinstance(layer, BatchRenorm3d):
                layer.momentum = None  # the statistics of the batch, uncorrected
        self.decay = decay
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move every parameter towards the student's by θ' ← α θ' + (1 - α) θ."""
        # torch's AveragedModel takes 1.6 to 2.2 times as long. It also copies batch norm's statistics, and reads its counter
        # twice, which would make the CPU wait for a GPU.
        self.step += 1
        weight = (1 / (self.step + 1)).clamp_min(1 - self.decay)  # 1 - α, on the device, so nothing waits for its value
        mine: list[torch.Tensor] = list(self.network.parameters())
        theirs: list[torch.Tensor] = list(student.parameters())
        way = torch._foreach_sub(theirs, mine)
        torch._foreach_mul_(way, weight)
        torch._foreach_add_(mine, way)

    @torch.no_grad()
    def foreground(self, volumes: torch.Tensor) -> torch.Tensor:
        """Predict the foreground probability ``(B, D, H, W)`` of volumes ``(B, 1, D, H, W)``."""
        self.network.train()
        return self.network(volumes).float().softmax(1)[:, 1]
