"""Layers that normalise features by batch norm, group norm or batch renormalisation, and mixed batch norm statistics."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from voxuda.errors import InputError
from voxuda.networks.choices import Normalisation

GROUPS = 4
"""Number of channel groups in group norm."""


def normaliser(kind: Normalisation, channels: int, planar: bool = False) -> nn.Module:
    """Return a layer that normalises features ``(B, channels, D, H, W)``; with ``planar``, group norm is per z slice.

    Raises
    ------
    InputError
        The number of channels is not a multiple of the groups of group norm.
    """
    if kind == "group":
        if channels % GROUPS:
            raise InputError(f"width is {channels}; group norm has {GROUPS} groups of channels, so give a multiple of that.")
        return SliceGroupNorm(GROUPS, channels) if planar else GroupNorm(GROUPS, channels)
    return BatchRenorm3d(channels) if kind == "renorm" else nn.BatchNorm3d(channels)


class GroupNorm(nn.GroupNorm):
    """Group norm of features ``(B, channels, D, H, W)`` with channels last in memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # With channels last, torch's own takes six times as long in bfloat16, and in float32 longer than the two copies.
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last_3d)


class SliceGroupNorm(nn.GroupNorm):
    """Group norm of each z slice separately."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slices = super().forward(x.transpose(1, 2).flatten(0, 1))
        return slices.unflatten(0, (len(x), -1)).transpose(1, 2)


class BatchRenorm3d(nn.BatchNorm3d):
    r"""Batch renormalisation (Ioffe 2017) of features ``(B, channels, D, H, W)``.

    In training :math:`y = \gamma\,(r\,(x - \mu_B)/\sigma_B + d) + \beta` with :math:`r = \sigma_B / \sigma` and
    :math:`d = (\mu_B - \mu) / \sigma`, where :math:`\mu, \sigma` are the running averages; no gradient flows through r and d.
    Except where r or d is clipped, this normalises to :math:`(x - \mu)/\sigma`, as evaluation does. It begins as batch norm;
    after ``WARM_UP`` batches the limits, :math:`1/r_{max} \le r \le r_{max}` and :math:`|d| \le d_{max}`, widen linearly to
    ``R_MAX`` and ``D_MAX``, as in Ioffe's paper but over a hundredth of its batches. Unlike there, variances are averaged, as
    in batch norm, not standard deviations. Parameters and buffers are those of batch norm; with ``momentum`` ``None`` it is
    batch norm.
    """

    WARM_UP = 50
    R_MAX, R_WIDE = 3.0, 400  #: Widest limit of r, and the number of batches after which it is reached.
    D_MAX, D_WIDE = 5.0, 250  #: The same for d.

    def limits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the current r_max and d_max, scalars."""
        # Computed on the device, since reading the counter would make the CPU wait for a GPU.
        assert self.num_batches_tracked is not None
        after = self.num_batches_tracked - self.WARM_UP
        r, d = ((after / (wide - self.WARM_UP)).clamp(0, 1) for wide in (self.R_WIDE, self.D_WIDE))
        return 1 + (self.R_MAX - 1) * r, self.D_MAX * d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.momentum is None:  # None while update_bn measures, and in a teacher
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        with torch.no_grad():
            variance, mean = torch.var_mean(x.float(), (0, 2, 3, 4), correction=0)
            deviation = (self.running_var + self.eps).sqrt()
            r_max, d_max = self.limits()
            r = ((variance + self.eps).sqrt() / deviation).clamp(1 / r_max, r_max)
            d = ((mean - self.running_mean) / deviation).clamp(-d_max, d_max)
            self.num_batches_tracked += 1
        # Batch norm with scale γ r and offset γ d + β, which updates the running averages.
        scale, offset = self.weight * r, self.weight * d + self.bias
        return F.batch_norm(x, self.running_mean, self.running_var, scale, offset, True, self.momentum, self.eps)


def mixed_batch_norm(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return running means and variances of an equal mixture of two populations, from those of each.

    The mean is (μ₁ + μ₂) / 2, the variance (σ₁² + σ₂²) / 2 + ((μ₁ - μ₂) / 2)². Both arguments are state dictionaries; other
    entries are left out.
    """
    mixed = {}
    for key in (name for name in other if name.endswith("running_mean")):
        mean, variance = key, key.removesuffix("mean") + "var"
        a, b = one[mean].float(), other[mean].float()
        mixed[mean] = (a + b) / 2
        mixed[variance] = (one[variance].float() + other[variance].float()) / 2 + ((a - b) / 2).square()
    return mixed
