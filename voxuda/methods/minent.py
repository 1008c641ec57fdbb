"""MinEnt (Vu et al. 2019), entropy minimisation on the target."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.methods.losses import self_information


class MinEnt(Method):
    """Minimise the mean entropy of target predictions, in bits, with a small weight."""

    WEIGHT = 1e-3

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        _, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        entropy = self_information(self.student(batch.target)).sum(1).mean()
        return {"seg": seg, "ent": self.WEIGHT * entropy}
