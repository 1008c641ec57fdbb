"""ADVENT (Vu et al. 2019): a domain adversary on maps of the prediction's self-information."""

import torch

from voxuda.adversary import EntropyDiscriminator, reverse_gradient
from voxuda.losses import adversarial_loss, self_information
from voxuda.methods.base import Batch, Method, supervised_pass


class ADVENT(Method):
    """The adversary sees -p log p of each class. It learns at full rate and the student at ``WEIGHT``, through a reversed
    gradient, where the original takes turns."""

    WEIGHT = 1e-3

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.discriminator = EntropyDiscriminator(width)

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        features, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        logits = self.student.classify(features), self.student(batch.target)
        maps = (reverse_gradient(self_information(part), self.WEIGHT) for part in logits)
        return {"seg": seg, "dis": adversarial_loss(*(self.discriminator(part) for part in maps))}
