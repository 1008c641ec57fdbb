"""ASC (Xu et al. 2023), an amplitude swap, and consistency of teacher and student across the two looks."""

import math

import torch

from voxuda.methods.base import Batch, TeacherMethod, supervised_pass
from voxuda.methods.losses import prediction_distance
from voxuda.methods.pseudo_labels import ramp_up
from voxuda.signal.normalise import zscore
from voxuda.signal.spectra import swap_amplitude


def cut_box(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Draw CutMix's box ``(D, H, W)``, true within a cuboid whose sides are √p of the volume's, p from a quarter to a half."""
    proportion, *corner = torch.rand(4, generator=generator, device=generator.device).unbind()
    proportion = 0.25 + 0.25 * proportion
    box = torch.ones(shape, dtype=torch.bool, device=generator.device)
    for axis, (side, at) in enumerate(zip(shape, corner, strict=True)):
        length = side * proportion**0.5
        place = torch.arange(side, device=generator.device) - at * (side - length)
        along = (place >= 0) & (place < length)
        box = box & along.reshape([-1 if i == axis else 1 for i in range(3)])
    return box


class ASC(TeacherMethod):
    """Segment the source and the source in the target's look, with consistency between four views of the target.

    The student sees target samples mixed by CutMix, in their own look or the source's, and must match the teacher's predictions
    for the other look, mixed alike. As in the official code, spectra and network are three-dimensional and the band is 5 % of
    the side; the backbone is VoxResNet, as for every method here.
    """

    BAND = 0.05
    WEIGHT = 200

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        band = math.ceil(self.BAND * batch.source.shape[-1])
        in_look_of_target = zscore(swap_amplitude(batch.source, batch.target, band, planar=self.planar))
        in_look_of_source = zscore(swap_amplitude(batch.target, batch.source, band, planar=self.planar))
        seg = sum(
            supervised_pass(self.student, volumes, batch.source_labels)[1] for volumes in (batch.source, in_look_of_target)
        )
        box = cut_box(batch.target.shape[2:], batch.generator)

        def mix(x: torch.Tensor) -> torch.Tensor:
            """Paste the box of the previous sample into each sample of ``(B, ..., D, H, W)``."""
            return torch.where(box, x.roll(1, 0), x)

        looks = batch.target, in_look_of_source
        wanted = [mix(self.teacher.foreground(volumes)) for volumes in looks]
        found = [self.student(mix(volumes)) for volumes in looks]
        con = prediction_distance(found[1], wanted[0]) + prediction_distance(found[0], wanted[1])
        return {"seg": seg, "con": self.WEIGHT * ramp_up(progress) * con}


class ASCSlices(ASC):
    """ASC slice by slice, as the paper describes it, with two-dimensional spectra and network.

    Slices along z are stacked again. The mixed box stays a cuboid.
    """

    planar = True
