"""Configuration and sizes of a run, and options of a segmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from voxuda.errors import InputError, check_types
from voxuda.methods.options import VoxUDAOptions
from voxuda.networks.choices import Normalisation

Scale = Literal["smoke", "laptop", "desk", "paper"]
BatchNorm = Literal["target", "running", "mixed"]
Recipe = Literal["convolution", "tilt-series", "phase-plate"]
SourceSet = Literal["table1", "table2", "nine"]

SCALES: dict[str, dict] = {
    "smoke": dict(per_source=4, per_target=6, epochs=2, width=8, batch_size=8, source_snr=(0.3, 0.5)),
    "laptop": dict(per_source=48, per_target=100, epochs=10, width=8, batch_size=8, source_snr=(0.3, 0.5)),
    "desk": dict(per_source=500, per_target=574, epochs=14, width=16, batch_size=16, source_snr=(0.03, 0.05)),
    "paper": dict(per_source=500, per_target=574, epochs=300, width=32, batch_size=16, source_snr=(0.03, 0.05)),
}
"""Samples per source molecule and SNR, target samples per molecule (60 % of them for training), and training size.

smoke runs in seconds and shows that everything works, not how well; laptop takes minutes on two cores; desk hours, with
the paper's samples and batch but half its width and 14 of its epochs; paper has the paper's 3,000 source samples, 1,033
target samples for training, width, batch and epochs.
"""

MOST = 1_000_000
"""Largest number of epochs, channels or samples in a step, far above any useful value, so that a damaged number is refused."""


@dataclass(frozen=True)
class Config:
    """One run."""

    #: One of the paper's (source-only, supervised, dann, pdam, asc, asc-slices, le-uda, le-uda-slices, vox-uda) or another
    #: one (mean-teacher, fda, minent, advent, cbst, mic, tent, domain-randomisation, zero-shot, self-training).
    method: str = "vox-uda"
    #: Sizes of data, network and training; smoke runs in seconds, laptop in minutes on two cores, desk in hours, paper has the
    #: paper's sizes.
    scale: Scale = "smoke"
    #: Folder of labelled samples, for example from ``voxuda simulate source``; by default simulated at the size of the scale.
    source: str | None = None
    #: Folder or star file of subtomograms; 60 % of each class is for training, without labels, the rest for testing.
    target: str | None = None
    #: How the target is simulated if no folder is given. "convolution" takes a second; "tilt-series" imitates a microscope and
    #: takes a minute at scale laptop; "phase-plate" is the same near focus with a phase plate. All have the same number of
    #: samples; tilt series have the paper's class proportions.
    recipe: Recipe = "convolution"
    #: Molecules of a simulated source, those of Table I or of Table II (with stand-ins where the paper's are not embedded) or
    #: all nine embedded ones that are not a class of the target, with the same total number of samples.
    source_set: SourceSet = "table1"
    epochs: int | None = None  #: Number of epochs; overrides the scale.
    width: int | None = None  #: Channels of the network's first stage; overrides the scale.
    batch_size: int | None = None  #: Samples of each domain in a step; overrides the scale.
    learning_rate: float = 1e-3  #: Learning rate of Adam, divided by 10 after each third of training as in the paper.
    #: Batch norm statistics of the trained network; "target" measures them on the unlabelled target samples (AdaBN), "running"
    #: keeps the averages of training, "mixed" is both in equal parts. The paper does not say which, and the choice can change
    #: a score by several points.
    batch_norm: BatchNorm = "target"
    #: Normalisation of the network's features by batch norm, by group norm with 4 groups, which has no statistics to choose
    #: from, or by batch renormalisation, which trains with nearly the running averages. The paper does not say which.
    normalisation: Normalisation = "batch"
    seed: int = 0  #: Seed of weights, data order, noise and simulated data.
    device: Literal["cpu", "cuda", "auto"] = "cpu"  #: Device for training; "auto" takes a GPU if there is one.
    #: Single precision, or mixed with bfloat16, which on a CPU needs samples of at least 24 voxels per side.
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
        """Return ``epochs``, ``width`` or ``batch_size``, from the override or else from the scale."""
        override = getattr(self, name)
        value = SCALES[self.scale][name] if override is None else override
        if not 1 <= value <= MOST:
            raise InputError(f"{name} is {value}; it must lie between 1 and {MOST}.")
        return value

    def sizes(self) -> dict:
        """Return all sizes in force, which together with the configuration define a run."""
        return {**SCALES[self.scale], **{name: self.size(name) for name in ("epochs", "width", "batch_size")}}


@dataclass(frozen=True)
class SegmentOptions:
    """How files are segmented, and what is written."""

    #: Name of a model of the package (balanced, vox-uda, vox-uda-bf, self-training), or folder of a finished run. The default
    #: is best on simulated tomograms with few particles, vox-uda-bf on a real microtubule, self-training in simulated crowded
    #: cells; see results/tomogram-rules.json and results/microtubule.json.
    model: str = "balanced"
    true_voxel_size: float | None = None  #: True voxel size of all files in angstrom; replaces that of their headers.
    invert: bool = False  #: Multiply by -1, for files in which protein is dark.
    threshold: float = 0.5  #: Probability of protein above which a voxel belongs to the mask.
    min_voxels: int = 0  #: Leave out connected components with fewer voxels than this.
    flips: bool = False  #: Average over the eight mirror images, which takes eight times as long and is slightly better.
    probabilities: bool = False  #: Write NAME_probabilities.mrc.
    #: Write NAME_uncertainty.mrc, the standard deviation of the probability over the mirror images; implies --flips.
    uncertainty: bool = False
    instances: bool = False  #: Write NAME_instances.mrc, which numbers the components from 1 on.
    #: Write NAME_particles.star for RELION 5, with centre, size and mean probability of each component.
    coordinates: bool = False
    #: Diameter of the particles in angstrom, for crowded tomograms. With it --coordinates gives one particle per peak of the
    #: probability, also where components touch, whatever --min-voxels says. A ball of this size scores 1, filaments and
    #: membranes somewhat less; --threshold is the lowest score, rlnAutopickFigureOfMerit has it.
    diameter: float | None = None
    picture: bool = True  #: Write NAME_mask.png, three slices with the outline of the mask.
    #: Normalise each tile by its own mean and standard deviation, the latter at least that of a typical tile ("tile"), or by
    #: those of the whole volume ("volume").
    normalise: Literal["tile", "volume"] = "tile"
    #: Use the batch norm statistics of the model ("model"), or measure them on each file ("volume").
    batch_norm: Literal["model", "volume"] = "model"
    tile: int = 32  #: Side of a tile in voxels, a multiple of 8; best the side of the training samples.
    overlap: int = 16  #: Voxels that neighbouring tiles share; a smaller overlap is faster but leaves seams.
    device: Literal["cpu", "cuda", "auto"] = "auto"  #: Device for the network; "auto" takes a GPU if there is one.

    def __post_init__(self) -> None:
        check_types(self)
        if self.true_voxel_size is not None and not 0.5 <= self.true_voxel_size <= 40:
            raise InputError(f"true_voxel_size is {self.true_voxel_size}; give angstrom, from 0.5 to 40.")
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}; it must lie between 0 and 1.")
        if self.tile % 8 or self.tile < 16:
            raise InputError(f"tile is {self.tile}; it must be a multiple of 8 and at least 16, best the side trained on.")
        if not 0 <= self.overlap < self.tile:
            limits = f"at least 0 and less than the tile of {self.tile}, best half of it"
            raise InputError(f"overlap is {self.overlap}; it must be {limits}.")
        if self.diameter is not None and not (self.coordinates and 80 <= self.diameter <= 1000):
            said = "give angstrom, from 80 to 1000" if self.coordinates else "it is for --coordinates, so add that"
            raise InputError(f"diameter is {self.diameter}; {said}.")
        if self.min_voxels < 0:
            raise InputError(f"min_voxels is {self.min_voxels}; it must be at least 0.")
