"""PDAM (Liu et al. 2020) for voxels instead of instances, with translation, inpainting, two adversaries and source weights."""

import torch
from torch.nn import functional as F

from voxuda.methods.base import Batch, Method
from voxuda.methods.losses import adversarial_loss, segmentation_loss, self_information
from voxuda.networks.choices import Normalisation
from voxuda.networks.discriminators import Discriminator, EntropyDiscriminator, reversal_strength, reverse_gradient
from voxuda.signal.normalise import zscore
from voxuda.signal.spectra import match_power, radial_power


def inpaint(volumes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Paint over hallucinated molecules, which translation adds and the labels do not have.

    A voxel outside the mask whose surroundings are brighter than the mask on average is replaced by the mean of the ordinary
    background around it. Brightness is the mean over 5³ voxels, so that a noise peak does not count as a molecule. Volumes are
    ``(B, 1, D, H, W)``, molecules bright; labels ``(B, D, H, W)``, 1 within the mask.
    """
    inside = (labels == 1)[:, None].float()
    axes = (1, 2, 3, 4)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool3d(x, 5, stride=1, padding=2)

    smooth = mean(volumes)
    bright = (smooth * inside).sum(axes, keepdim=True) / inside.sum(axes, keepdim=True).clamp_min(1)
    hallucinated = (inside == 0) & (smooth > bright) & (inside.sum(axes, keepdim=True) > 0)
    ordinary = ((inside == 0) & ~hallucinated).float()
    around = mean(volumes * ordinary) / mean(ordinary).clamp_min(1e-6)
    return torch.where(hallucinated, around, volumes)


def translate(volumes: torch.Tensor, power: torch.Tensor, wanted: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Translate volumes ``(B, 1, D, D, D)`` to the look of the other domain, with mean 0 and variance 1.

    The translation is :func:`~voxuda.signal.spectra.match_power`.
    """
    white = torch.randn(volumes.shape, generator=generator, device=volumes.device)
    return zscore(match_power(volumes, power, wanted, white))


class PDAM(Method):
    """Panoptic domain adaptive mask R-CNN without the parts for instances.

    Kept: source volumes in the target's look, inpainted; an adversary on v6 and one on entropy maps; a lower weight of the
    source's segmentation loss where the adversaries easily distinguish its features from the target's. The translation matches
    amplitudes shell by shell and adds noise, where the original trains a CycleGAN. Dropped, since there are no instances: box
    and mask heads and their adversary.
    """

    def __init__(self, width: int, *, normalisation: Normalisation = "batch") -> None:
        super().__init__(width, normalisation=normalisation)
        self.on_features = Discriminator(2 * width)
        self.on_entropy = EntropyDiscriminator(width)

    def prepare(self, target: torch.Tensor) -> None:
        self.target_power = radial_power(target)

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        power = radial_power(batch.source)
        translated = translate(batch.source, power, self.target_power, batch.generator)
        translated = inpaint(translated, batch.source_labels)
        features = [self.student.features(volumes) for volumes in (translated, batch.target)]
        logits = [self.student.classify(part) for part in features]
        strength = reversal_strength(progress)
        deep = [self.on_features(reverse_gradient(part["v6"], strength)) for part in features]
        maps = [self.on_entropy(reverse_gradient(self_information(part), strength)) for part in logits]
        weight = (source_weight(deep[0]) + source_weight(maps[0])) / 2
        return {
            "seg": weight * segmentation_loss(logits[0], batch.source_labels),
            "dis": adversarial_loss(*deep),
            "dis_entropy": adversarial_loss(*maps),
        }


def source_weight(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean of (1 - p) / p over source samples, clamped to 0.5 to 1.5; p is the adversary's source probability.

    Domain logits ``(B, 1)`` are positive for the target, so the ratio is e^logit.
    """
    return logits.detach().float().exp().mean().clamp(0.5, 1.5)
