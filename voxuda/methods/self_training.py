"""Our self-training, from a source of random size, noise level and noise colour."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F

from voxuda.methods.base import Batch, TeacherMethod, supervised_pass
from voxuda.methods.options import VoxUDAOptions
from voxuda.methods.pseudo_labels import confident_labels
from voxuda.methods.vox_uda import denoise
from voxuda.methods.zero_shot import ZeroShot
from voxuda.signal.fourier import spectrum, volume_of
from voxuda.signal.normalise import zscore

SIZES = (0.8, 2.5)
"""Smallest and largest scale factor of a source sample. The paper's source molecules are 10 to 15 nm across, those of cells up
to 34."""

COLOURED = 0.5
"""Share of source samples whose noise has the target's amplitude spectrum; the others get white noise."""

WARM_UP = 0.3
"""Share of training before the teacher's labels count."""

SURE = 0.65
"""Smallest probability of the more likely class at which a voxel is labelled."""


class SelfTraining(ZeroShot, TeacherMethod):
    """Widen the source until it covers the target, then label the target with a teacher.

    Every source sample is mirrored and resized at random about a point near its molecules, and one copy gets noise of random
    level, white or with the target's colour. After ``WARM_UP``, a teacher predicts each denoised target sample and its mirror
    image, and labels the voxels with a class probability of at least ``SURE``. The foreground share need not be known.
    """

    def prepare(self, target: torch.Tensor) -> None:
        plain = VoxUDAOptions(denoiser="bf")
        self.denoised = torch.cat([denoise(part, plain) for part in target.split(64)])
        self.amplitude = spectrum(target).abs().square().mean(0).sqrt()

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        volumes, labels = resize_at_random(batch.source, batch.source_labels, batch.generator)
        losses = super().losses(dataclasses.replace(batch, source=volumes, source_labels=labels), progress)
        if progress >= WARM_UP:
            found = self.pseudo_labels(batch)
            axes = mirror_axes(batch.generator)
            losses["pseudo"] = supervised_pass(self.student, batch.target.flip(axes), found.flip(axes))[1]
        return losses

    def noise(self, volumes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw noise of variance 1 for source volumes ``(B, 1, D, H, W)``, for some of them with the target's colour."""
        white = super().noise(volumes, generator)
        coloured = zscore(volume_of(spectrum(white) * self.amplitude, volumes.shape[-1]))
        chosen = torch.rand(len(volumes), 1, 1, 1, 1, generator=generator, device=volumes.device) < COLOURED
        return torch.where(chosen, coloured, white)

    def pseudo_labels(self, batch: Batch) -> torch.Tensor:
        """Return labels ``(B, D, H, W)`` from the teacher's predictions for the denoised target and its mirror image."""
        denoised, axes = self.denoised[batch.target_index], mirror_axes(batch.generator)
        foreground = (self.teacher.foreground(denoised) + self.teacher.foreground(denoised.flip(axes)).flip(axes)) / 2
        return confident_labels(foreground, SURE)


def mirror_axes(generator: torch.Generator) -> list[int]:
    """Draw the spatial axes to mirror, each with probability 1/2, counted from the last."""
    return [axis for axis in (-3, -2, -1) if torch.rand((), generator=generator, device=generator.device) < 0.5]


def resize_at_random(
    volumes: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror a batch, and resize each sample by a log-uniform factor from ``SIZES`` about a random point.

    The point lies between the centres of the sample and of its mask.

    Parameters
    ----------
    volumes, labels : Tensor
        ``(B, 1, D, H, W)``, and ``(B, D, H, W)`` int64 of 0 and 1.
    generator : Generator
        Source of randomness, on the same device.

    Returns
    -------
    tuple of Tensor
        Volumes, with mean 0 and variance 1, and labels, shaped like the inputs. Shrunk samples are padded by reflection.
    """

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, device=volumes.device)

    axes = mirror_axes(generator)
    volumes, masks = volumes.flip(axes), labels.flip(axes)[:, None].float()
    low, high = SIZES
    scale = low * (high / low) ** uniform(len(volumes))
    weight = masks / masks.sum((2, 3, 4), keepdim=True).clamp_min(1)
    # Along x, y and z, the order of affine_grid.
    place = [torch.linspace(-1, 1, n, device=volumes.device) for n in volumes.shape[:1:-1]]
    sums = [weight.sum(kept)[:, 0] for kept in ((2, 3), (2, 4), (3, 4))]
    middle = torch.stack([(s * p).sum(1) for s, p in zip(sums, place, strict=True)], 1) * uniform(len(volumes), 1)
    limit = (1 - 1 / scale).clamp_min(0)[:, None]  # the visible part of an enlarged sample lies within it
    affine = torch.zeros(len(volumes), 3, 4, device=volumes.device)
    affine.diagonal(dim1=1, dim2=2)[:] = 1 / scale[:, None]
    affine[:, :, 3] = middle.maximum(-limit).minimum(limit)
    grid = F.affine_grid(affine, list(volumes.shape), align_corners=False)
    shown = F.grid_sample(torch.cat([volumes, masks], 1), grid, padding_mode="reflection", align_corners=False)
    return zscore(shown[:, :1]), (shown[:, 1] > 0.5).long()
