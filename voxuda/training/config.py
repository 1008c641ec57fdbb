"""What a run is: its configuration and its sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from voxuda.errors import InputError, check_types
from voxuda.methods.options import VoxUDAOptions

Scale = Literal["smoke", "laptop", "paper"]
BatchNorm = Literal["target", "running"]
Recipe = Literal["convolution", "tilt-series"]
SourceSet = Literal["table1", "table2"]

SCALES: dict[str, dict] = {
    "smoke": dict(per_source=4, per_target=6, epochs=2, width=8, batch_size=8, source_snr=(0.3, 0.5)),
    "laptop": dict(per_source=48, per_target=100, epochs=10, width=8, batch_size=8, source_snr=(0.3, 0.5)),
    "paper": dict(per_source=500, per_target=574, epochs=300, width=32, batch_size=16, source_snr=(0.03, 0.05)),
}
"""Samples per source molecule and SNR, target samples per molecule (60 % of them for training), and training size.

smoke runs in seconds and shows that everything works, not how well; laptop takes minutes on two cores; paper has the
paper's 3,000 source samples, 1,033 target samples for training, width, batch and epochs.
"""

MOST = 1_000_000
"""The largest number of epochs, channels or samples of a step: far beyond use, and a damaged number is found."""


@dataclass(frozen=True)
class Config:
    """One run."""

    #: One of the paper's (source-only, supervised, dann, pdam, asc, asc-slices, le-uda, le-uda-slices, vox-uda) or a later one
    #: (mean-teacher, fda, minent, advent, cbst, mic, tent, domain-randomisation, zero-shot).
    method: str = "vox-uda"
    scale: Scale = "smoke"  #: Sizes; smoke runs in seconds, laptop in minutes on two cores, paper has the paper's sizes.
    #: Labelled folder, for example of ``voxuda simulate source``; simulated at the size of the scale when absent.
    source: str | None = None
    #: Folder or star file of subtomograms; 60 % of each class is for training, without labels, the rest for testing.
    target: str | None = None
    #: How the target is simulated when no folder is given; "convolution" takes a second, "tilt-series" a minute at scale laptop
    #: and is what a microscope does. Both have as many samples; by tilt series their classes are as the paper's.
    recipe: Recipe = "convolution"
    #: Molecules of a simulated source, those of Table I or of Table II, with stand-ins where the paper's are not embedded.
    source_set: SourceSet = "table1"
    epochs: int | None = None  #: Overrides the scale.
    width: int | None = None  #: Channels of the network's first stage; overrides the scale.
    batch_size: int | None = None  #: Samples of each domain in a step; overrides the scale.
    learning_rate: float = 1e-3  #: Adam's, divided by 10 after each third of training as in the paper.
    #: Statistics in force when the network is used; "target" measures them anew on the unlabelled target samples (AdaBN),
    #: "running" keeps the averages of training. The paper is silent, and it matters more than most modules.
    batch_norm: BatchNorm = "target"
    seed: int = 0  #: Seed of weights, data order, noise and simulated data.
    device: Literal["cpu", "cuda", "auto"] = "cpu"  #: "cpu", "cuda" or "auto".
    #: "32-true" or "bf16-mixed"; the latter on a processor for samples of 24 voxels a side or more.
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    vox_uda: VoxUDAOptions = field(default_factory=VoxUDAOptions)  #: Options of the method vox-uda.

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; it must lie between 0 and 2^32 - 1.")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; it must be positive.")
        for name in ("source", "target"):  # absolute, so that a run can be scored from any folder
            folder = getattr(self, name)
            object.__setattr__(self, name, None if folder is None else str(Path(folder).absolute()))

    def size(self, name: str) -> int:
        """``epochs``, ``width`` or ``batch_size``: the override, else the scale's."""
        override = getattr(self, name)
        value = SCALES[self.scale][name] if override is None else override
        if not 1 <= value <= MOST:
            raise InputError(f"{name} is {value}; it must lie between 1 and {MOST}.")
        return value

    def sizes(self) -> dict:
        """All sizes in force, which with the configuration itself decide what a run is."""
        return {**SCALES[self.scale], **{name: self.size(name) for name in ("epochs", "width", "batch_size")}}
