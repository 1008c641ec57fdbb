"""Training without target samples, on noise of random level, in the manner of the authors' later Vox-ZSDA."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.methods.losses import consistency_loss
from voxuda.signal.normalise import zscore

NOISE_RANGE = (0.0, 2.0)
"""Lowest and highest standard deviation of the noise, relative to the source's; up to 4/5 of the variance is noise."""


class ZeroShot(Method):
    """Draw the noise level at random, where Vox-UDA measures it in the target.

    Every source sample gets white Gaussian noise with its own level, uniform in ``NOISE_RANGE``, and is rescaled to variance 1.
    Both versions are segmented, and the consistency loss ties their features. No target data are used, so the score that counts
    is that with running batch norm statistics (``--batch-norm running``); the others show what target statistics would add.
    """

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        source, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        noised, noised_seg = supervised_pass(self.student, self.randomise(batch), batch.source_labels)
        return {"seg": (seg + noised_seg) / 2, "con": consistency_loss(source, noised)}

    def randomise(self, batch: Batch) -> torch.Tensor:
        """Add noise of a random level to each source sample ``(B, 1, D, H, W)``."""
        low, high = NOISE_RANGE
        generator, device = batch.generator, batch.source.device
        sigma = low + (high - low) * torch.rand(len(batch.source), 1, 1, 1, 1, generator=generator, device=device)
        return zscore(batch.source + sigma * self.noise(batch.source, generator))

    def noise(self, volumes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw white noise of variance 1 for source volumes ``(B, 1, D, H, W)``."""
        return torch.randn(volumes.shape, generator=generator, device=volumes.device)
