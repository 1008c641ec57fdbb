"""CBST (Zou et al. 2018), self-training on the most confident voxels of each class."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.methods.losses import segmentation_loss
from voxuda.methods.pseudo_labels import class_balanced_labels


class CBST(Method):
    """After ``WARM_UP``, train the student on its most confident predictions, a share of each class that grows from 20 to 50 %.

    The original relabels all target samples in rounds; here the current student labels each batch.
    """

    WARM_UP = 0.3
    PORTIONS = (0.2, 0.5)

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        _, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        if progress < self.WARM_UP:
            return {"seg": seg}
        logits = self.student(batch.target)
        labels = class_balanced_labels(logits.detach().float().softmax(1)[:, 1], self.portion(progress))
        return {"seg": seg, "pseudo": segmentation_loss(logits, labels)}

    def portion(self, progress: float) -> float:
        """Return the share of each class that counts, from the first to the last of ``PORTIONS`` after the warm-up."""
        first, last = self.PORTIONS
        return first + (last - first) * (progress - self.WARM_UP) / (1 - self.WARM_UP)
