"""TENT (Wang et al. 2021), which adapts only the normalisation after source training, to lower the entropy on the target."""

import torch
from torch import nn

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.methods.losses import self_information

NORMALISERS = (nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm)
"""Layers that adapt; SyncBatchNorm replaces BatchNorm3d in training on several GPUs."""


class TENT(Method):
    """In the last tenth of training, train only the scales and offsets of the normalisation, without labels.

    The original adapts to the test samples as they arrive; here the method adapts to the target's training samples, so that
    the test samples stay unseen, as for every other method. The learning rate restarts with the first epoch that begins in that
    tenth; Adam's moments are kept.
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
