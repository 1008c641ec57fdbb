"""DANN (Ganin et al. 2016), source segmentation plus a domain adversary on v6."""

import torch

from voxuda.methods.base import AdversarialMethod, Batch, supervised_pass


class DANN(AdversarialMethod):
    """The paper's single-discriminator baseline; the adversary's loss is the mean over both domains (in DANN, the sum)."""

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        source, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        target = self.student.features(batch.target)
        return {"seg": seg, "dis": self.adversarial(source["v6"], target["v6"], progress)}
