"""Training on the source without adaptation, for use on the target."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass


class SourceOnly(Method):
    """The paper's "w/o adaptation"."""

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        return {"seg": supervised_pass(self.student, batch.source, batch.source_labels)[1]}
