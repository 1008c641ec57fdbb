"""What every method is: networks, and the losses it minimises."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from voxuda.methods.losses import adversarial_loss, segmentation_loss
from voxuda.networks.choices import Normalisation
from voxuda.networks.discriminators import Discriminator, reversal_strength, reverse_gradient
from voxuda.networks.teacher import Teacher
from voxuda.networks.voxresnet import VoxResNet


@dataclass
class Batch:
    """What a step of one process sees."""

    source: torch.Tensor  #: ``(B, 1, D, H, W)``
    source_labels: torch.Tensor  #: ``(B, D, H, W)`` int64
    target: torch.Tensor  #: ``(B, 1, D, H, W)``
    target_labels: torch.Tensor | None  #: ``(B, D, H, W)`` int64; only the supervised upper bound may look
    target_index: torch.Tensor  #: ``(B,)``, where the target samples stand in the training set
    generator: torch.Generator  #: the step's randomness


class Method(nn.Module):
    """One row of a table: owns its networks, says what it minimises. The loop sums, steps and logs.

    Batch norm, about which the paper is silent: each stream of a step (source, noised source, target) is a forward of its own
    and is normalised by its own batch statistics, and all of them feed one set of running averages. Which statistics a
    trained network uses is a choice made afterwards, see ``batch_norm`` of :class:`voxuda.training.config.Config`. ``width``
    and ``normalisation`` are those of the student.
    """

    needs_target_labels = False
    planar = False  #: Whether the network treats each z slice as an image of its own.

    def __init__(self, width: int, *, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        self.student = VoxResNet(width, planar=self.planar, normalisation=normalisation)

    def prepare(self, target: torch.Tensor) -> None:
        """Called once before training with all unlabelled target volumes ``(N, 1, D, H, W)``."""

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Named scalars whose sum is minimised; ``progress`` runs from 0 to 1 over training."""
        raise NotImplementedError

    def forward(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """The losses: DistributedDataParallel averages the gradients of what a call of the module returns."""
        return self.losses(batch, progress)

    def after_step(self) -> None:
        """Called after every optimiser step."""

    def rate(self, progress: float) -> float:
        """Factor on the learning rate: a tenth after each third of training, as in the paper."""
        return 0.1 ** int(3 * progress + 1e-9)


class TeacherMethod(Method):
    """A method whose student has a moving average as its teacher."""

    def __init__(self, width: int, *, normalisation: Normalisation = "batch") -> None:
        super().__init__(width, normalisation=normalisation)
        self.teacher = Teacher(self.student)

    def after_step(self) -> None:
        self.teacher.update(self.student)


class AdversarialMethod(Method):
    """A method with a domain discriminator on the deepest tap, v6."""

    def __init__(self, width: int, weight: float = 1.0, *, normalisation: Normalisation = "batch") -> None:
        super().__init__(width, normalisation=normalisation)
        self.weight = weight
        self.discriminator = Discriminator(2 * width)

    def adversarial(self, source: torch.Tensor, target: torch.Tensor, progress: float) -> torch.Tensor:
        """L_dis on v6 features ``(B, C, d, h, w)`` of both domains, through the gradient reversal."""
        strength = self.weight * reversal_strength(progress)
        logits = [self.discriminator(reverse_gradient(f, strength)) for f in (source, target)]
        return adversarial_loss(*logits)


def supervised_pass(network: VoxResNet, volumes: torch.Tensor, labels: torch.Tensor):
    """Features and segmentation loss of one labelled batch, ``(B, 1, D, H, W)`` and ``(B, D, H, W)``."""
    features = network.features(volumes)
    return features, segmentation_loss(network.classify(features), labels)
