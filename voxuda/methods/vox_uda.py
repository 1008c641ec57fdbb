"""Vox-UDA: noise generation module, denoised pseudo-labels, adversary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from voxuda.denoising.bilateral import Gradient, bilateral_filter, improved_bilateral_filter
from voxuda.denoising.noise import Average, Kind, Reading, generate_noise, ngm_denoise, noise_level
from voxuda.errors import InputError, check_types
from voxuda.methods.base import AdversarialMethod, Batch, supervised_pass
from voxuda.methods.losses import consistency_loss, segmentation_loss
from voxuda.methods.pseudo_labels import balanced_labels, confident_labels
from voxuda.networks.teacher import Teacher
from voxuda.signal.normalise import unit_range, zscore


@dataclass(frozen=True)
class VoxUDAOptions:
    """Everything the paper sets or leaves open; the defaults are the paper's where it speaks.

    Parameters
    ----------
    denoiser : str
        What the teacher's input goes through; "none" for the ablation.
    sigma_d : float
        Width of the bilateral domain kernel in voxels.
    sigma_r : float
        Width of the bilateral range kernel, on volumes scaled to [0, 1].
    window : int
        Odd side of the bilateral window in voxels.
    gradient : str
        Reading of "Sobel operator as the Laplacian operator" in the improved bilateral filter.
    n_sampled : int
        Target samples from which each step measures the noise level.
    rho : float
        Filter rate of the high-pass filter.
    reading : str
        What the filter rate is the share of: the cube removed, or the cube kept.
    average : str
        What is averaged over the sampled volumes: their variances, or the volumes themselves.
    noise : str
        Kind of the generated noise; "none" switches the noise generation module off.
    segment_noised : bool
        Segment the noised source too, not only tie its features (open in the paper).
    lambdas : tuple of float
        Consistency weights of c, v2, v4, v6.
    pseudo : str
        "confident" is the paper's threshold; "balanced" is ours, see ``share``; "none" for the ablation.
    eta : float
        Confidence threshold of "confident".
    share : float, optional
        Expected foreground share of "balanced": prior knowledge; ``None`` takes the share in the batch of source masks.
    ema : float
        Decay of the teacher (open).
    adversary : float
        Weight of the reversed gradient (open); 0 switches the adversary off.
    warm_up : float
        Share of training before pseudo-labels count (open).
    """

    denoiser: Literal["ngm", "bf", "ibf", "none"] = "ibf"
    sigma_d: float = 120.0
    sigma_r: float = 1.2
    window: int = 3
    gradient: Gradient = "sobel"
    n_sampled: int = 10
    rho: float = 0.244
    reading: Reading = "cube_removed"
    average: Average = "variances"
    noise: Literal["gaussian", "poisson", "speckle", "none"] = "gaussian"
    segment_noised: bool = True
    lambdas: tuple[float, float, float, float] = (0.2, 0.2, 0.3, 0.3)
    pseudo: Literal["confident", "balanced", "none"] = "confident"
    eta: float = 0.85
    share: float | None = 0.05
    ema: float = 0.99
    adversary: float = 1.0
    warm_up: float = 0.3

    def __post_init__(self) -> None:
        check_types(self)
        rules = [
            ("sigma_d", self.sigma_d > 0, "it must be positive"),
            ("sigma_r", self.sigma_r > 0, "it must be positive"),
            ("window", self.window >= 3 and self.window % 2 == 1, "it must be odd and at least 3"),
            ("n_sampled", self.n_sampled >= 1, "it must be at least 1"),
            ("rho", 0 <= self.rho < 1, "a filter rate is a share from 0 to below 1, such as 0.244"),
            ("lambdas", len(self.lambdas) == 4 and min(self.lambdas) >= 0, "give four weights, none negative"),
            ("eta", 0.5 <= self.eta <= 1, "a confidence lies between 0.5 and 1"),
            ("share", self.share is None or 0 < self.share < 1, "a foreground share lies between 0 and 1, such as 0.05"),
            ("ema", 0 <= self.ema < 1, "a decay is at least 0 and below 1"),
            ("adversary", 0 <= self.adversary < math.inf, "it must not be negative"),
            ("warm_up", 0 <= self.warm_up <= 1, "it is a share of training between 0 and 1"),
        ]
        for name, holds, rule in rules:
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)}; {rule}.")


def denoise(volumes: torch.Tensor, options: VoxUDAOptions) -> torch.Tensor:
    """What the teacher sees of target volumes ``(B, 1, D, H, W)``: scaled to [0, 1], denoised, mean 0 and variance 1."""
    scaled = unit_range(volumes)
    if options.denoiser == "ibf":
        scaled = improved_bilateral_filter(scaled, options.sigma_d, options.sigma_r, options.window, options.gradient)
    elif options.denoiser == "bf":
        scaled = bilateral_filter(scaled, options.sigma_d, options.sigma_r, options.window)
    elif options.denoiser == "ngm":
        scaled = ngm_denoise(scaled, options.rho, options.reading)
    return zscore(scaled)


class VoxUDA(AdversarialMethod):
    """The whole method; ``options`` names each choice and ablation."""

    def __init__(self, width: int, options: VoxUDAOptions | None = None) -> None:
        self.options = options or VoxUDAOptions()
        super().__init__(width, self.options.adversary)
        self.teacher = Teacher(self.student, self.options.ema)

    def prepare(self, target: torch.Tensor) -> None:
        # The filter sees no network, so each target sample is denoised once and for all.
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
        """Eq 6: the source, ``(B, 1, D, H, W)``, with noise of the level found in a few target samples."""
        kind: Kind = self.options.noise  # type: ignore[assignment]
        o = self.options
        pick = torch.randperm(len(self.target), generator=batch.generator, device=batch.generator.device)[: o.n_sampled]
        sigma = noise_level(self.target[pick], o.rho, o.reading, o.average)
        return batch.source + generate_noise(batch.source, sigma, batch.generator, kind)

    def pseudo_labels(self, batch: Batch) -> torch.Tensor:
        """Labels ``(B, D, H, W)`` from the teacher's view of the denoised target."""
        foreground = self.teacher.foreground(self.denoised[batch.target_index])
        if self.options.pseudo == "balanced":
            share = self.options.share
            if share is None:
                share = batch.source_labels.float().mean().item()
            return balanced_labels(foreground, share)
        return confident_labels(foreground, self.options.eta)

    def after_step(self) -> None:
        self.teacher.update(self.student)
