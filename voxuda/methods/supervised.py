"""Full supervision with the target's labels, the upper bound."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass


class Supervised(Method):
    """The paper's "fully supervised"; the only method that reads target labels."""

    needs_target_labels = True

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        assert batch.target_labels is not None
        return {"seg": supervised_pass(self.student, batch.target, batch.target_labels)[1]}
