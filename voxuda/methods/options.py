"""Options that the paper sets or leaves open in Vox-UDA; imports no torch, for configurations and the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from voxuda.denoising.choices import Average, Gradient, Reading
from voxuda.errors import InputError, check_types


@dataclass(frozen=True)
class VoxUDAOptions:
    """Everything the paper sets or leaves open; defaults are the paper's where it gives them."""

    denoiser: Literal["ngm", "bf", "ibf", "none"] = "ibf"  #: Filter applied to the teacher's input; "none" for the ablation.
    sigma_d: float = 120.0  #: Width of the bilateral domain kernel in voxels.
    sigma_r: float = 1.2  #: Width of the bilateral range kernel, on volumes scaled to [0, 1].
    window: int = 3  #: Odd side of the bilateral window in voxels.
    gradient: Gradient = "sobel"  #: Reading of "Sobel operator as the Laplacian operator" in the improved bilateral filter.
    n_sampled: int = 10  #: Number of target samples from which each step measures the noise level.
    rho: float = 0.244  #: Filter rate of the high-pass filter, a share of the spectrum.
    reading: Reading = "cube_removed"  #: Whether the cube that fills the share rho of the spectrum is removed or kept.
    average: Average = "variances"  #: Whether the variances of the sampled volumes or the volumes themselves are averaged.
    #: Kind of the generated noise; "none" switches the noise generation module off.
    noise: Literal["gaussian", "poisson", "speckle", "none"] = "gaussian"
    segment_noised: bool = True  #: Also segment the noised source, besides matching its features; not stated in the paper.
    lambdas: tuple[float, float, float, float] = (0.2, 0.2, 0.3, 0.3)  #: Consistency weights of the taps c, v2, v4, v6.
    #: Pseudo-labels by the paper's threshold ("confident"), by our foreground share ("balanced"), or "none" for the ablation.
    pseudo: Literal["confident", "balanced", "none"] = "confident"
    eta: float = 0.85  #: Confidence threshold of "confident".
    #: Expected foreground share for "balanced" (prior knowledge); ``None`` takes that of the source masks in the batch.
    share: float | None = 0.05
    ema: float = 0.99  #: Decay of the teacher; not stated in the paper.
    adversary: float = 1.0  #: Weight of the reversed gradient, not stated in the paper; 0 for no adversary.
    warm_up: float = 0.3  #: Share of training before pseudo-labels are used; not stated in the paper.

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
