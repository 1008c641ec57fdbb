"""Without any target sample: noise of a random level, in the manner of the authors' later Vox-ZSDA."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.methods.losses import consistency_loss
from voxuda.signal.normalise import zscore

NOISE_RANGE = (0.0, 2.0)
"""Lowest and highest standard deviation of the noise, where the source has 1: up to four parts of noise in five."""


class ZeroShot(Method):
    """Domain randomisation where Vox-UDA measures.

    Every source sample gets white Gaussian noise of a level of its own, uniform in ``NOISE_RANGE``, and is brought back to
    variance 1; both versions are segmented, and the consistency loss ties their features. Nothing of the target is used, so
    the score that counts is the one with running batch norm statistics (``--batch-norm running``); what statistics of the
    target would add is the other.
    """

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        source, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        noised, noised_seg = supervised_pass(self.student, self.randomise(batch), batch.source_labels)
        return {"seg": (seg + noised_seg) / 2, "con": consistency_loss(source, noised)}

    def randomise(self, batch: Batch) -> torch.Tensor:
        """The source, ``(B, 1, D, H, W)``, each sample with noise of a random level."""
        low, high = NOISE_RANGE
        generator, device = batch.generator, batch.source.device
        sigma = low + (high - low) * torch.rand(len(batch.source), 1, 1, 1, 1, generator=generator, device=device)
        return zscore(batch.source + sigma * self.noise(batch.source, generator))

    def noise(self, volumes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """White noise of variance 1 for source volumes ``(B, 1, D, H, W)``."""
        return torch.randn(volumes.shape, generator=generator, device=volumes.device)
