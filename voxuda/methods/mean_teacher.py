"""Mean teacher (Tarvainen and Valpola 2017) with the weights of UA-MT (Yu et al. 2019), predictions consistent under noise."""

import torch

from voxuda.methods.base import Batch, TeacherMethod, supervised_pass
from voxuda.methods.losses import prediction_distance
from voxuda.methods.pseudo_labels import ramp_up


def jitter(volumes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Add Gaussian noise of standard deviation 0.1, clipped at ±0.2, to volumes ``(B, 1, D, H, W)``."""
    noise = torch.randn(volumes.shape, generator=generator, device=volumes.device)
    return volumes + (0.1 * noise).clamp(-0.2, 0.2)


class MeanTeacher(TeacherMethod):
    """Match the student's softmax on target samples to that of its moving average on noised ones, with growing weight."""

    WEIGHT = 0.1

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        _, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        wanted = self.teacher.foreground(jitter(batch.target, batch.generator))
        distance = prediction_distance(self.student(batch.target), wanted)
        return {"seg": seg, "con": self.WEIGHT * ramp_up(progress) * distance}
