"""`voxuda data` checks your own subtomograms, converts them for training, and downloads real data."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass
class DataCheck:
    """Read all subtomograms of a folder or a RELION star file, print a report, and suggest the next command.

    The first error stops the command with exit code 2 and one sentence; suspicious findings are warnings.

    Example: voxuda data check polyga

    SOURCE holds MRC files or stacks, or one sub-folder of them per class. Masks, which are optional, lie in a folder masks
    beside the volumes under the same names, or beside each NAME.mrc as NAME_mask.mrc: 1 inside, 0 outside.
    """

    #: Folder of MRC files or stacks, optionally with one sub-folder per class, or a star file.
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]

    def run(self) -> None:
        """Read and report."""
        from voxuda.data.checks import examine
        from voxuda.data.subtomograms import read_folder
        from voxuda.denoising.noise import noise_level
        from voxuda.signal.normalise import zscore

        folder = read_folder(self.source)
        volumes, masks = folder.stack(progress=True)
        report = examine(folder, volumes, masks, float(noise_level(zscore(volumes))))
        for name, text in report.rows.items():
            print(f"{name:<17} {text}")
        for text in report.warnings:
            print(f"warning: {text}")
        name = self.source.absolute().stem
        if report.inside_out:
            print(f"next: exchange 0 and 1 in the masks, then voxuda data check {shlex.quote(str(self.source))}")
            return
        crop = ["--voxel-size", f"{report.keep_voxels:g}"] if report.keep_voxels else []
        convert = ["data", "convert", str(self.source), *crop, "--invert", "--out", f"{name}-bright"]
        cropped = ["data", "convert", str(self.source), *crop, "--out", f"{name}-cropped"]
        train = ["train", "--method", "vox-uda", "--target", str(self.source), "--scale", "laptop", "--out", f"runs/{name}"]
        if report.dark or report.leans_dark:
            print(f"next{'' if report.dark else ', if protein is dark'}: voxuda {shlex.join(convert)}")
        if not report.dark:
            print(f"next{', if it is bright' if report.leans_dark else ''}: voxuda {shlex.join(cropped if crop else train)}")


@dataclasses.dataclass
class DataConvert:
    """Write subtomograms as cubes of one size into a new folder that `--source` and `--target` accept.

    Boxes and masks are cropped to cubes around the centre and resampled by Fourier cropping; see
    voxuda.data.subtomograms.SubtomogramFolder for the rules.

    Example: voxuda data convert particles.star --voxel-size 13.68 --invert --out polyga
    """

    #: Folder of MRC files or stacks, optionally with one sub-folder per class, or a star file.
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    out: Path  #: New folder for volumes.mrcs, masks.mrcs (if there are masks) and samples.csv.
    size: int = 32  #: Side of a sample in voxels, a multiple of 8.
    voxel_size: float | None = None  #: Voxel size of the samples in angstrom; by default the edge of the box divided by --size.
    invert: bool = False  #: Multiply by -1, for volumes in which protein is dark.
    true_voxel_size: float | None = None  #: True voxel size of SOURCE in angstrom, if its headers or star file do not give it.

    def run(self) -> None:
        """Read, convert, write."""
        from voxuda.data.files import check_new_folder, locked
        from voxuda.data.subtomograms import SubtomogramFolder

        with locked(self.out):
            check_new_folder(self.out)
            folder = SubtomogramFolder(**{name: value for name, value in vars(self).items() if name != "out"})
            folder.save(self.out, progress=True)
        print(f"{len(folder)} samples in {self.out}; look at them with `voxuda data check {shlex.quote(str(self.out))}`")


@dataclasses.dataclass
class DataFetch:
    """Download a public data set into a new folder, and verify its checksums.

    ribosomes-12A: 40 ribosomes from four tomograms as stacks of 37 tilt images, 4 MB, the test data of tomoDRGN.

    microtubule: a tomogram crop with one microtubule, 1 MB, test data of cylindra, and a label of its wall, fitted here.

    Needs git and a network.

    Example: voxuda data fetch ribosomes-12A --out stacks, then voxuda data ribosomes stacks --out ribosomes
    """

    #: Data set, ribosomes-12A or microtubule.
    name: Annotated[tyro.conf.Positional[Literal["ribosomes-12A", "microtubule"]], tyro.conf.arg(metavar="NAME")]
    out: Path  #: New folder.

    def run(self) -> None:
        """Download and check."""
        from voxuda.data import microtubule, ribosomes

        if self.name == "microtubule":
            microtubule.fetch(self.out)
            following = f"segment {shlex.quote(str(self.out / 'microtubule.mrc'))}"
        else:
            ribosomes.fetch(self.out)
            following = f"data ribosomes {shlex.quote(str(self.out))} --out ribosomes"
        print(f"{self.name} in {self.out}; next: voxuda {following}")


@dataclasses.dataclass
class DataRibosomes:
    """Make subtomograms with masks from the tilt stacks that `voxuda data fetch ribosomes-12A` downloads.

    Example: voxuda data ribosomes stacks --out ribosomes

    Two of the four tomograms: voxuda data ribosomes stacks --missing skip --out ribosomes
    """

    #: Folder with the star files, the average and the stacks.
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    out: Path  #: New folder for volumes.mrcs, masks.mrcs and samples.csv.
    missing: Literal["raise", "skip"] = "raise"  #: What to do if the stack of a particle is missing.

    def run(self) -> None:
        """Reconstruct, place the masks, report."""
        from voxuda.data import ribosomes
        from voxuda.data.files import check_new_folder, locked
        from voxuda.simulation.molecules import load, molecular_volume

        with locked(self.out):
            check_new_folder(self.out)
            volume = molecular_volume(load("4v4r"), ribosomes.VOXEL_SIZE)
            ribosomes.prepare(self.source, self.out, volume=volume, missing=self.missing)
        print("handedness is that of a ribosome; read as documented, the matrices in the files give its mirror image")
        print(f"samples in {self.out}; look at them with `voxuda data check {shlex.quote(str(self.out))}`")


Data = Annotated[
    Annotated[DataCheck, tyro.conf.subcommand("check")]
    | Annotated[DataConvert, tyro.conf.subcommand("convert")]
    | Annotated[DataFetch, tyro.conf.subcommand("fetch")]
    | Annotated[DataRibosomes, tyro.conf.subcommand("ribosomes")],
    tyro.conf.subcommand(
        "data",
        description="`check` and `convert` your own subtomograms; `fetch` real data, and reconstruct `ribosomes`.",
    ),
]
