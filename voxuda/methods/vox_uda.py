"""Vox-UDA, with its noise generation module, denoised pseudo-labels and adversary."""

from __future__ import annotations

import torch

from voxuda.denoising.bilateral import bilateral_filter, improved_bilateral_filter
from voxuda.denoising.choices import Kind
from voxuda.denoising.noise import generate_noise, ngm_denoise, noise_level
from voxuda.methods.base import AdversarialMethod, Batch, supervised_pass
from voxuda.methods.losses import consistency_loss, segmentation_loss
from voxuda.methods.options import VoxUDAOptions
from voxuda.methods.pseudo_labels import balanced_labels, confident_labels
from voxuda.networks.choices import Normalisation
from voxuda.networks.teacher import Teacher
from voxuda.signal.normalise import unit_range, zscore


def denoise(volumes: torch.Tensor, options: VoxUDAOptions) -> torch.Tensor:
    """Scale target volumes ``(B, 1, D, H, W)`` to [0, 1], denoise them, and normalise them to mean 0 and variance 1."""
    scaled = unit_range(volumes)
    if options.denoiser == "ibf":
        scaled = improved_bilateral_filter(scaled, options.sigma_d, options.sigma_r, options.window, options.gradient)
    elif options.denoiser == "bf":
        scaled = bilateral_filter(scaled, options.sigma_d, options.sigma_r, options.window)
    elif options.denoiser == "ngm":
        scaled = ngm_denoise(scaled, options.rho, options.reading)
    return zscore(scaled)


class VoxUDA(AdversarialMethod):
    """The full method; ``options`` sets each choice and ablation."""

    def __init__(self, width: int, options: VoxUDAOptions | None = None, *, normalisation: Normalisation = "batch") -> None:
        self.options = options or VoxUDAOptions()
        super().__init__(width, self.options.adversary, normalisation=normalisation)
        self.teacher = Teacher(self.student, self.options.ema)

    def prepare(self, target: torch.Tensor) -> None:
        # The filter does not depend on the network, so each target sample is denoised only once.
        self.target = target
        self.denoised = torch.cat([denoise(part, self.options) for part in target.split(64)])

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        o = self.options
        source, seg = supervised_pass(self.student, batch.source, batch.source_labels)
        losses = {"seg": seg}
        if o.noise != "none":
            noised, noised_seg = supervised_pass(self.student, self.add_noise(batch), batch.source_labels)
            losses["con"] = consistency_loss(source, noised, o.lambdas)
            if o.segment_noised:
                losses["seg"] = (seg + noised_seg) / 2
        if o.adversary or o.pseudo != "none":
            target = self.student.features(batch.target)
            if o.adversary:
                losses["dis"] = self.adversarial(source["v6"], target["v6"], progress)
            if o.pseudo != "none" and progress >= o.warm_up:
                labels = self.pseudo_labels(batch)
                losses["pseudo"] = segmentation_loss(self.student.classify(target), labels)
        return losses

    def add_noise(self, batch: Batch) -> torch.Tensor:
        """Add noise to the source ``(B, 1, D, H, W)``, at the level measured in a few target samples (Eq 6)."""
        kind: Kind = self.options.noise  # type: ignore[assignment]
        o = self.options
        pick = torch.randperm(len(self.target), generator=batch.generator, device=batch.generator.device)[: o.n_sampled]
        sigma = noise_level(self.target[pick], o.rho, o.reading, o.average)
        return batch.source + generate_noise(batch.source, sigma, batch.generator, kind)

    def pseudo_labels(self, batch: Batch) -> torch.Tensor:
        """Return labels ``(B, D, H, W)`` from the teacher's prediction for the denoised target."""
        foreground = self.teacher.foreground(self.denoised[batch.target_index])
        if self.options.pseudo == "balanced":
            share = self.options.share
            if share is None:
                share = max(batch.source_labels.float().mean().item(), 1 / foreground.numel())  # a batch may have none
            return balanced_labels(foreground, share)
        return confident_labels(foreground, self.options.eta)

    def after_step(self) -> None:
        self.teacher.update(self.student)
