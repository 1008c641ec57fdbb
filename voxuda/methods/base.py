"""Base classes of the methods, each with its networks and the losses it minimises."""

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
    """Data of one training step of one process."""

    source: torch.Tensor  #: ``(B, 1, D, H, W)``
    source_labels: torch.Tensor  #: ``(B, D, H, W)`` int64
    target: torch.Tensor  #: ``(B, 1, D, H, W)``
    target_labels: torch.Tensor | None  #: ``(B, D, H, W)`` int64; only the supervised upper bound may use them
    target_index: torch.Tensor  #: ``(B,)``, indices of the target samples in the training set
    generator: torch.Generator  #: source of randomness for the step


class Method(nn.Module):
    """Base class of a method, with its networks and losses; the training loop sums the losses, steps and logs.

    The paper does not say how it uses batch norm. Here each stream of a step (source, noised source, target) has its own
    forward pass and is normalised by its own batch statistics, and all streams update one set of running averages. Which
    statistics a trained network uses is chosen afterwards, see ``batch_norm`` of :class:`voxuda.training.config.Config`.
    ``width`` and ``normalisation`` are those of the student.
    """

    needs_target_labels = False
    planar = False  #: Whether the network treats each z slice as a separate image.

    def __init__(self, width: int, *, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        self.student = VoxResNet(width, planar=self.planar, normalisation=normalisation)

    def prepare(self, target: torch.Tensor) -> None:
        """Prepare for training; called once with all unlabelled target volumes ``(N, 1, D, H, W)``."""

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Return named scalars whose sum is minimised; ``progress`` runs from 0 to 1 over training."""
        raise NotImplementedError

    def forward(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Return the losses, through a module call so that DistributedDataParallel averages their gradients."""
        return self.losses(batch, progress)

    def after_step(self) -> None:
        """Update state after every optimiser step."""

    def rate(self, progress: float) -> float:
        """Return the factor on the learning rate, which falls tenfold after each third of training, as in the paper."""
        return 0.1 ** int(3 * progress + 1e-9)


class TeacherMethod(Method):
    """A method whose teacher is a moving average of the student."""

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
        """Return L_dis on v6 features ``(B, C, d, h, w)`` of both domains, through gradient reversal."""
        strength = self.weight * reversal_strength(progress)
        logits = [self.discriminator(reverse_gradient(f, strength)) for f in (source, target)]
        return adversarial_loss(*logits)


def supervised_pass(network: VoxResNet, volumes: torch.Tensor, labels: torch.Tensor):
    """Return features and segmentation loss of one labelled batch, ``(B, 1, D, H, W)`` and ``(B, D, H, W)``."""
    features = network.features(volumes)
    return features, segmentation_loss(network.classify(features), labels)
