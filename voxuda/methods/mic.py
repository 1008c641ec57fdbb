"""MIC (Hoyer et al. 2023), segmentation of target samples with masked blocks."""

import torch
from torch.nn import functional as F

from voxuda.methods.base import Batch, TeacherMethod, supervised_pass
from voxuda.methods.losses import segmentation_loss


class MIC(TeacherMethod):
    """Train the student on target samples with most blocks set to 0, the mean, to match the teacher on the whole sample.

    The loss is weighted by the share of voxels on which the teacher is confident. This is MIC's masked loss alone, without the
    method that it was first added to.
    """

    BLOCK = 8
    MASKED = 0.7
    SURE = 0.968

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        _, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        foreground = self.teacher.foreground(batch.target)
        sure = (torch.maximum(foreground, 1 - foreground) > self.SURE).float().mean()
        logits = self.student(self.mask(batch))
        return {"seg": seg, "masked": sure * segmentation_loss(logits, (foreground > 0.5).long())}

    def mask(self, batch: Batch) -> torch.Tensor:
        """Return the target ``(B, 1, D, H, W)`` with each block set to 0 with probability ``MASKED``."""
        z, y, x = batch.target.shape[2:]
        counts = [-(-side // self.BLOCK) for side in (z, y, x)]
        blocks = torch.rand(len(batch.target), 1, *counts, generator=batch.generator, device=batch.target.device)
        kept = (blocks >= self.MASKED).float()
        return batch.target * F.interpolate(kept, scale_factor=self.BLOCK)[..., :z, :y, :x]
