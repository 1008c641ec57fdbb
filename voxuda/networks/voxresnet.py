"""VoxResNet (Chen et al. 2018) and its four taps."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from voxuda.networks.choices import Normalisation
from voxuda.networks.normalisation import normaliser

TAPS = ("c", "v2", "v4", "v6")
"""Layers whose features Vox-UDA compares (taps), the second convolution and the second, fourth and sixth residual module."""


def convolution(channels: int, out: int, planar: bool, stride: int = 1) -> nn.Conv3d:
    """Return a convolution with a 3³ kernel or, if ``planar``, with a 3² kernel within z slices."""
    kernel, steps, padding = ((1, 3, 3), (1, stride, stride), (0, 1, 1)) if planar else (3, stride, 1)
    return nn.Conv3d(channels, out, kernel, stride=steps, padding=padding)


class VoxRes(nn.Module):
    """Pre-activation residual module with BN, ReLU, conv, BN, ReLU, conv, plus the input."""

    def __init__(self, channels: int, planar: bool = False, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        self.body = nn.Sequential(
            normaliser(normalisation, channels, planar), nn.ReLU(), convolution(channels, channels, planar),
            normaliser(normalisation, channels, planar), nn.ReLU(), convolution(channels, channels, planar),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class PointwiseHead(nn.Linear):
    """Classifier of a full-size tap, a 1³ convolution computed as a linear map of the channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class PatchHead(nn.ConvTranspose3d):
    """Classifier of a smaller tap, a transposed convolution whose kernel equals its stride.

    It is computed as the equivalent linear map from the channels of each voxel to all scores of its patch. torch's own
    transposed convolution takes up to eight times as long.
    """

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        assert self.bias is not None
        patch = math.prod(self.stride)
        scores = F.linear(x.movedim(1, -1), self.weight.flatten(1).T, self.bias.repeat_interleave(patch))
        apart = scores.unflatten(-1, (self.out_channels, *self.stride)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return apart.flatten(6, 7).flatten(4, 5).flatten(2, 3)


class VoxResNet(nn.Module):
    """VoxResNet with three halvings of the volume and a classifier on each tap; the four outputs are summed.

    The trunk has 1.635 million parameters at width 32. Each head maps its tap to full-size class scores in one transposed
    convolution whose kernel equals its stride, so that no voxel is written twice.

    ``width`` is the number of channels of the first stage, 32 in the paper; later stages have twice as many. A ``planar``
    network treats each z slice as a separate image, for methods made for images. ``normalisation`` is "batch",
    "group" or "renorm", see :mod:`voxuda.networks.normalisation`.
    """

    def __init__(self, width: int = 32, *, planar: bool = False, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        wide = 2 * width

        def norm(channels: int) -> nn.Module:
            return normaliser(normalisation, channels, planar)

        self.conv1a = convolution(1, width, planar)
        self.conv1b = nn.Sequential(norm(width), nn.ReLU(), convolution(width, width, planar))

        def halved(channels: int) -> nn.Sequential:
            strided = convolution(channels, wide, planar, stride=2)
            residual = [VoxRes(wide, planar, normalisation) for _ in range(2)]
            return nn.Sequential(norm(channels), nn.ReLU(), strided, *residual)

        self.stage2, self.stage4, self.stage6 = halved(width), halved(wide), halved(wide)
        self.heads = nn.ModuleDict({"c": PointwiseHead(width, 2)})
        for tap, stride in (("v2", 2), ("v4", 4), ("v6", 8)):
            steps = (1, stride, stride) if planar else (stride,) * 3
            self.heads[tap] = PatchHead(wide, 2, steps, stride=steps)

    def features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the four taps of volumes ``(B, 1, D, H, W)`` whose sides are multiples of 8.

        ``c`` is ``(B, width, D, H, W)``; ``v2``, ``v4`` and ``v6`` are ``(B, 2 width, ...)`` at 1/2, 1/4 and 1/8 of the side.
        """
        c = self.conv1b(self.conv1a(x))
        v2 = self.stage2(c)
        v4 = self.stage4(v2)
        return {"c": c, "v2": v2, "v4": v4, "v6": self.stage6(v4)}

    def classify(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Sum the four classifiers of the taps to logits ``(B, 2, D, H, W)``."""
        return torch.stack([self.heads[tap](features[tap]) for tap in TAPS]).sum(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits ``(B, 2, D, H, W)`` of volumes ``(B, 1, D, H, W)``."""
        return self.classify(self.features(x))

    def trunk_parameters(self) -> int:
        """Count the parameters without those of the heads."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith("heads"))


@torch.no_grad()
def target_batch_norm(network: nn.Module, volumes: torch.Tensor, batch_size: int = 16) -> dict[str, torch.Tensor]:
    """Measure a network's batch norm statistics on unlabelled volumes ``(N, 1, D, H, W)`` (AdaBN, Li et al. 2016).

    The volumes are shuffled with a fixed seed into batches of nearly equal size, so that every batch is a fair sample. The
    network itself is unchanged. Load the result, running means and variances averaged over batches, with
    ``load_state_dict(..., strict=False)``; it is empty for a network without batch norm, for example with group norm.
    """
    if not any(isinstance(layer, _BatchNorm) for layer in network.modules()):
        return {}
    measured = copy.deepcopy(network).train()
    order = torch.randperm(len(volumes), generator=torch.Generator().manual_seed(0)).to(volumes.device)
    batches = volumes[order].tensor_split(math.ceil(len(volumes) / batch_size))
    update_bn(batches, measured, next(measured.parameters()).device)
    return {k: v for k, v in measured.state_dict().items() if "running_" in k}
