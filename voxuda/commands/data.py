"""`voxuda data`: check subtomograms of your own, convert them for training, get real ribosomes."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from scipy import ndimage, stats

from voxuda.data import ribosomes
from voxuda.data.files import check_new_file, check_new_folder
from voxuda.data.subtomograms import SubtomogramFolder, read_folder
from voxuda.denoising import noise
from voxuda.experiments import evidence
from voxuda.signal.normalise import zscore
from voxuda.simulation.molecules import load, molecular_volume
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import save_json


@dataclasses.dataclass
class DataCheck:
    """Read all subtomograms of a folder or a RELION star file, print what they are, and say what to do next.

    Exit code 2 and one sentence at the first thing that cannot be used; what is merely suspicious is a warning.

    Example: voxuda data check polyga
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Folder of MRC files or stacks, with a sub-folder for each class if you like, or star file."""

    def run(self) -> None:
        """Read and report."""
        folder = read_folder(self.source)
        volumes, masks = folder.stack(progress=True)
        normal = zscore(volumes)
        rows, warnings = _boxes(folder, volumes.shape[-1])
        mean, deviation = volumes.mean(dim=(1, 2, 3, 4)).median(), volumes.std(dim=(1, 2, 3, 4)).median()
        rows["values"] = f"mean {mean:.4g}, standard deviation {deviation:.4g} (medians of the samples)"
        share = float(noise.noise_level(normal).square())  # of a variance of 1
        rows["high frequencies"] = f"{share:.1%} of the variance lies above the cube that the noise module removes"
        if share < 0.001:
            warnings.append("the volumes hold next to no high frequencies, so the noise module will measure next to no noise.")
        turn = False
        if masks is None:
            rows["masks"] = "none: the samples can be a target to train on, not to be scored on"
            rows["polarity"], more = _lean(normal)
            warnings += more
        else:
            rows["masks"], more = _foreground(folder, masks)
            rows["polarity"], turn = _polarity(normal, masks)
            warnings += more
            if turn:
                warnings.append("protein is dark in these volumes, and must be bright: convert them with --invert.")
        for name, text in rows.items():
            print(f"{name:<17} {text}")
        for text in warnings:
            print(f"warning: {text}")
        name = self.source.absolute().stem
        if turn:
            command = ["data", "convert", str(self.source), "--invert", "--out", f"{name}-bright"]
        else:
            target, out = str(self.source), f"runs/{name}"
            command = ["train", "--method", "vox-uda", "--target", target, "--scale", "laptop", "--out", out]
        print(f"next: voxuda {shlex.join(command)}")


def _boxes(folder: SubtomogramFolder, side: int) -> tuple[dict[str, str], list[str]]:
    """Rows of the table that the headers fill, and warnings."""
    entries = folder.entries
    shapes = Counter(entry.shape for entry in entries)
    smallest = min(min(shape) for shape in shapes)
    classes = Counter(entry.name for entry in entries)
    cropped = sum(n for shape, n in shapes.items() if len(set(shape)) > 1)
    before, after = entries[0].voxel_size, folder.voxel_size
    rows = {
        "samples": str(len(folder)),
        "classes": ", ".join(f"{name} {n}" for name, n in sorted(classes.items())),
        "box": ", ".join(" x ".join(map(str, shape)) for shape in shapes) + f" voxels, read as {side} x {side} x {side}",
        "voxel size": f"{before:.2f} Å, read as {after:.2f} Å" if before else "not in the headers",
    }
    warnings = []
    if cropped:
        warnings.append(f"{cropped} boxes have sides that differ; what lies outside the central cube is cut off.")
    if smallest < side:
        warnings.append(f"boxes of {smallest} voxels are stretched to {side}: their highest frequencies will be empty.")
    if len(folder) < 2:
        warnings.append("one sample is too few: training and testing need at least 2.")
    return rows, warnings


def _foreground(folder: SubtomogramFolder, masks: torch.Tensor) -> tuple[str, list[str]]:
    """The row about masks ``(N, 1, D, D, D)``, and warnings that name the samples whose mask is empty or full."""
    shares = masks.float().mean(dim=(1, 2, 3, 4))
    warnings = []
    for what, chosen in [("empty", shares == 0), ("full", shares == 1)]:
        names = [folder.entries[i].label for i in chosen.nonzero()[:, 0].tolist()]
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            warnings.append(f"the mask is {what} in {', '.join(names[:3])}{more}.")
    row = f"{len(masks)}, foreground min {shares.min():.2%}, median {shares.median():.2%}, max {shares.max():.2%}"
    return row, warnings


def _lean(normal: torch.Tensor) -> tuple[str, list[str]]:
    """The row about polarity where there are no masks, and a warning if it looks wrong: smoothed, bright bodies on even ground
    have positive skewness. Volumes ``(N, 1, D, D, D)``."""
    smoothed = ndimage.gaussian_filter(normal[:, 0].numpy(), (0, 2, 2, 2))
    skewness = stats.skew(smoothed.reshape(len(smoothed), -1), axis=1)
    bright = int((skewness > 0).sum())
    row = (
        f"not known without masks; smoothed, {bright} of {len(normal)} boxes lean bright (skewness {np.median(skewness):+.2f})"
    )
    if len(normal) >= 10 and bright <= len(normal) / 10:
        return row, ["nearly all boxes lean dark: if protein is dark in them, convert them with --invert."]
    return row, []


def _polarity(normal: torch.Tensor, masks: torch.Tensor) -> tuple[str, bool]:
    """The row about polarity, and whether protein is dark: the mean inside the masks against the mean outside.

    Parameters
    ----------
    normal : Tensor
        ``(N, 1, D, D, D)``, each with mean 0 and variance 1.
    masks : Tensor
        ``(N, 1, D, D, D)`` bool.
    """
    usable = [i for i, mask in enumerate(masks) if 0 < mask.sum() < mask.numel()]
    if not usable:
        return "not known: no mask has both an inside and an outside", False
    steps = torch.stack([normal[i][masks[i]].mean() - normal[i][~masks[i]].mean() for i in usable])
    mean, error = float(steps.mean()), float(steps.std(correction=0)) / len(steps) ** 0.5
    seen = "protein is bright" if mean > 2 * error else "protein is dark" if mean < -2 * error else "not clear"
    return (
        f"{seen}: inside the masks minus outside {mean:+.2f} ± {error:.2f} standard deviations of a volume,"
        f" above 0 in {(steps > 0).float().mean():.0%} of the samples"
    ), seen == "protein is dark"


@dataclasses.dataclass
class DataConvert:
    """Write subtomograms as cubes of one size into a new folder, which `--source` and `--target` take.

    Boxes are cropped to cubes around the centre, resampled by Fourier cropping, masks with them; see
    voxuda.data.subtomograms.SubtomogramFolder for the rules.

    Example: voxuda data convert particles.star --voxel-size 13.68 --invert --out polyga
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Folder of MRC files or stacks, with a sub-folder for each class if you like, or star file."""
    out: Path
    """New folder for volumes.mrcs, masks.mrcs (if there are masks) and samples.csv."""
    size: int = 32
    """Side of a sample in voxels, a multiple of 8."""
    voxel_size: float | None = None
    """Wanted edge of a voxel in angstrom; by default whatever the box comes to at that many voxels."""
    invert: bool = False
    """Multiply by -1: for volumes in which protein is dark."""

    def run(self) -> None:
        """Read, convert, write."""
        check_new_folder(self.out)
        folder = SubtomogramFolder(self.source, size=self.size, voxel_size=self.voxel_size, invert=self.invert)
        folder.save(self.out, progress=True)
        print(f"{len(folder)} samples in {self.out}; look at them with `voxuda data check {shlex.quote(str(self.out))}`")


@dataclasses.dataclass
class DataFetch:
    """Download a public data set, with checksums, into a new folder.

    ribosomes-12A: 40 ribosomes of four tomograms as stacks of 37 tilt images, 4 MB, the test data of tomoDRGN.

    Needs git and a network.

    Example: voxuda data fetch ribosomes-12A --out stacks, then voxuda data ribosomes stacks --out ribosomes
    """

    name: Annotated[tyro.conf.Positional[Literal["ribosomes-12A"]], tyro.conf.arg(metavar="NAME")]
    """Which: ribosomes-12A."""
    out: Path
    """New folder."""

    def run(self) -> None:
        """Download and check."""
        ribosomes.fetch(self.out)
        print(f"{self.name} in {self.out}; next: voxuda data ribosomes {self.out} --out ribosomes")


@dataclasses.dataclass
class DataRibosomes:
    """Make subtomograms with masks from the tilt stacks that `voxuda data fetch ribosomes-12A` gets.

    Example: voxuda data ribosomes stacks --out ribosomes

    Two of the four tomograms, and whether their poses are right: voxuda data ribosomes stacks --missing skip
    --evidence geometry.json --out ribosomes
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder with the star files, the average and the stacks."""
    out: Path
    """New folder for volumes.mrcs, masks.mrcs and samples.csv."""
    missing: Literal["raise", "skip"] = "raise"
    """What to do about particles whose stack is not there."""
    evidence: Path | None = None
    """New JSON file for Fourier shell correlations and pose ranks; takes a minute."""

    def run(self) -> None:
        """Reconstruct, place the masks, report."""
        check_new_folder(self.out)
        if self.evidence is not None:
            check_new_file(self.evidence, overwrite=False, makes_folder=False)
        volume = molecular_volume(load("4v4r"), ribosomes.VOXEL_SIZE)
        ribosomes.prepare(self.source, self.out, volume=volume, missing=self.missing)
        print("read in the hand of a ribosome, which is the mirror image of what the files' matrices say by the documentation")
        print(f"samples in {self.out}; look at them with `voxuda data check {self.out}`")
        if self.evidence is not None:
            particles, average = ribosomes.read(self.source, missing=self.missing)
            found = evidence.geometry_evidence(particles, average, seed=0)
            hand = evidence.hand_evidence(average, particles[0].voxel_size, seed=0)
            save_json({"collected_by": provenance(), **found, "hand": hand}, self.evidence)
            first = sum(rank == 1 for rank in found["rank"])
            print(f"{first} of {len(found['rank'])} particles rank their own pose first of 101: {self.evidence}")


@dataclasses.dataclass
class Data:
    """Subtomograms of your own: `check` what is there, `convert` it for training. Real ribosomes: `fetch`, `ribosomes`."""

    command: Annotated[
        Annotated[DataCheck, tyro.conf.subcommand("check", prefix_name=False)]
        | Annotated[DataConvert, tyro.conf.subcommand("convert", prefix_name=False)]
        | Annotated[DataFetch, tyro.conf.subcommand("fetch", prefix_name=False)]
        | Annotated[DataRibosomes, tyro.conf.subcommand("ribosomes", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        """Pass on."""
        self.command.run()
