"""ADVENT (Vu et al. 2019): a domain adversary on maps of the prediction's self-information."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.methods.losses import adversarial_loss, self_information
from voxuda.networks.choices import Normalisation
from voxuda.networks.discriminators import EntropyDiscriminator, reverse_gradient


class ADVENT(Method):
    """The adversary sees -p log p of each class and learns which domain they are of; the student is pushed, with ``WEIGHT``, to
    make those of the target look like the source's.

    Both learn in one step through a reversed gradient, at one rate, where the original takes turns and its adversary, of five
    convolutions, learns at a tenth.
    """

    WEIGHT = 1e-3

    def __init__(self, width: int, *, normalisation: Normalisation = "batch") -> None:
        super().__init__(width, normalisation=normalisation)
        self.discriminator = EntropyDiscriminator(width)

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        features, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        on_source = self_information(self.student.classify(features).detach())
        # The loss below is the mean of both domains, so the target's part has half its weight.
        on_target = reverse_gradient(self_information(self.student(batch.target)), 2 * self.WEIGHT)
        return {"seg": seg, "dis": adversarial_loss(self.discriminator(on_source), self.discriminator(on_target))}
