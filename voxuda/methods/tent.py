"""TENT (Wang et al. 2021): after training on the source, only batch norm adapts, to lower the entropy on the target."""

import torch
from torch import nn

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.methods.losses import self_information

NORMALISERS = (nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm)
"""The second takes the place of the first where several GPUs train together."""


class TENT(Method):
    """For the last tenth of training scales and offsets of the normalisation, and nothing else, learn without any label.

    The original adapts to the test samples as they come; here it is the target's training samples, so that the test is as
    unseen as for every other method. The learning rate starts anew with the first epoch that
    begins in that tenth; Adam's moments stay.
    """

    START = 0.9

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        adapting = progress >= self.START
        for layer in self.student.modules():
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(not adapting or isinstance(layer, NORMALISERS))
        if not adapting:
            return {"seg": supervised_pass(self.student, batch.source, batch.source_labels)[1]}
        return {"ent": self_information(self.student(batch.target)).sum(1).mean()}

    def rate(self, progress: float) -> float:
        return 1.0 if progress >= self.START else super().rate(progress)
