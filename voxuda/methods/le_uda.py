"""LE-UDA (Zhao et al. 2022), two teachers over two looks of two domains, after the public code of its predecessor MT-UDA."""

import math

import torch

from voxuda.methods.base import Batch, TeacherMethod
from voxuda.methods.losses import adversarial_loss, prediction_distance, segmentation_loss, self_information
from voxuda.methods.mean_teacher import jitter
from voxuda.methods.pdam import translate
from voxuda.methods.pseudo_labels import ramp_up
from voxuda.networks.choices import Normalisation
from voxuda.networks.discriminators import EntropyDiscriminator, reverse_gradient
from voxuda.signal.spectra import radial_power


class LEUDA(TeacherMethod):
    """Train the student on source labels, two teachers and an adversary.

    One teacher is consistent with the student on source-like volumes, the source and the target in the source's look. The
    other sees the same samples in the target's look, that is, the translated source and the unchanged target, and its entropies
    must equal the student's. The adversary, on entropy maps, aligns the source in the target's look with the target.

    Both teachers are moving averages of one student at one rate, so they are one network, kept once. LE-UDA's code was never
    released, so two points are unverified: the form of its adversary, taken from ADVENT, and its weight, our choice. Unlike
    LE-UDA, looks are exchanged by matching amplitudes and not by a CycleGAN, all source labels are used, and testing uses the
    unchanged target.
    """

    SOURCE_TEACHER = 1.0
    TARGET_TEACHER = 0.1
    ADVERSARY = 1e-2

    def __init__(self, width: int, *, normalisation: Normalisation = "batch") -> None:
        super().__init__(width, normalisation=normalisation)
        self.discriminator = EntropyDiscriminator(width)

    def prepare(self, target: torch.Tensor) -> None:
        self.target_power = radial_power(target)

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        power = radial_power(batch.source)
        source, target = batch.source, batch.target
        source_as_target = translate(source, power, self.target_power, batch.generator)
        target_as_source = translate(target, self.target_power, power, batch.generator)
        logits = {name: self.student(x) for name, x in [("s", source), ("ts", target_as_source), ("st", source_as_target)]}
        teachers = {
            name: self.teacher.foreground(jitter(x, batch.generator))
            for name, x in [("s", source), ("ts", target_as_source), ("st", source_as_target), ("t", target)]
        }
        alike = (prediction_distance(logits["s"], teachers["s"]) + prediction_distance(logits["ts"], teachers["ts"])) / 2
        entropy = (entropy_distance(logits["s"], teachers["st"]) + entropy_distance(logits["ts"], teachers["t"])) / 2
        maps = [reverse_gradient(self_information(x), self.ADVERSARY) for x in (logits["st"], self.student(target))]
        ramp = ramp_up(progress)
        return {
            "seg": segmentation_loss(logits["s"], batch.source_labels),
            "con": self.SOURCE_TEACHER * ramp * alike,
            "ent": self.TARGET_TEACHER * ramp * entropy,
            "dis": adversarial_loss(*(self.discriminator(part) for part in maps)),
        }


def entropy_distance(logits: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Return the mean over voxels of Σ_c (p log₂ p - q log₂ q)², where p is the student's and q the teacher's probability.

    Student logits are ``(B, 2, ...)``, the teacher's foreground probability is ``(B, ...)``.
    """
    q = torch.stack([1 - foreground, foreground], 1).clamp_min(1e-7)
    return (self_information(logits) + q * q.log() / math.log(2)).square().sum(1).mean()


class LEUDASlices(LEUDA):
    """LE-UDA with a network that treats z slices separately, as the paper describes it; looks and adversary are as in LEUDA."""

    planar = True
