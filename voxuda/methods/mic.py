"""MIC (Hoyer et al. 2023): see the whole through its parts, by segmenting a target of which blocks are missing."""

import torch
from torch.nn import functional as F

from voxuda.methods.base import Batch, TeacherMethod, supervised_pass
from voxuda.methods.losses import segmentation_loss


class MIC(TeacherMethod):
    """The teacher labels the whole target sample, the student has to find the same with most blocks set to the mean, 0.

    The loss is weighted by the share of voxels of which the teacher is sure. The masked part of MIC alone, without the
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
        """The target, ``(B, 1, D, H, W)``, without about ``MASKED`` of its blocks."""
        z, y, x = batch.target.shape[2:]
        counts = [-(-side // self.BLOCK) for side in (z, y, x)]
        blocks = torch.rand(len(batch.target), 1, *counts, generator=batch.generator, device=batch.target.device)
        kept = (blocks >= self.MASKED).float()
        return batch.target * F.interpolate(kept, scale_factor=self.BLOCK)[..., :z, :y, :x]
