"""ADVENT (Vu et al. 2019), a domain adversary on maps of the prediction's self-information."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.methods.losses import adversarial_loss, self_information
from voxuda.networks.choices import Normalisation
from voxuda.networks.discriminators import EntropyDiscriminator, reverse_gradient


class ADVENT(Method):
    """Make the target's maps of -p log p per class look like the source's to an adversary, with weight ``WEIGHT``.

    The adversary learns to predict the domain from these maps. It and the student learn in one step through a reversed
    gradient, at the same rate; the original alternates them, with an adversary of five convolutions and a tenth of the rate.
    """

    WEIGHT = 1e-3

    def __init__(self, width: int, *, normalisation: Normalisation = "batch") -> None:
        super().__init__(width, normalisation=normalisation)
        self.discriminator = EntropyDiscriminator(width)

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        features, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        on_source = self_information(self.student.classify(features).detach())
        # The loss below is the mean over both domains, which halves the target's weight.
        on_target = reverse_gradient(self_information(self.student(batch.target)), 2 * self.WEIGHT)
        return {"seg": seg, "dis": adversarial_loss(self.discriminator(on_source), self.discriminator(on_target))}
