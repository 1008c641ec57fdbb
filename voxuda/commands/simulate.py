"""`voxuda simulate` simulates the source and target domains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from voxuda.simulation.names import IN_CELLS

if TYPE_CHECKING:
    from voxuda.simulation.molecules import Molecule
    from voxuda.simulation.quick import Subtomograms


@dataclasses.dataclass
class _Simulate:
    molecules: list[str]  #: Embedded molecules, such as 1bxn 3gl1 (`voxuda molecules list` names them), or .npz files.
    out: Path  #: New folder for volumes.mrcs, masks.mrcs, densities.mrcs and samples.csv.
    n_per_molecule: int = 10  #: Samples per molecule, and for `source` per SNR.
    seed: int = 0  #: The same seed gives the same samples.
    size: int = 32  #: Side of a sample in voxels.


@dataclasses.dataclass
class SimulateSource(_Simulate):
    """Simulate labelled source samples by the published recipe.

    Example: voxuda simulate source --molecules 1bxn 3gl1 --n-per-molecule 20 --snr 0.03 0.05 --out source
    """

    snr: tuple[float, ...] = (0.03, 0.05)  #: Ratios of signal variance to noise variance; every molecule is simulated at each.

    def run(self) -> None:
        """Simulate and save."""
        from voxuda.simulation.quick import simulate_source

        _make(self, simulate_source, "source")


@dataclasses.dataclass
class SimulateTarget:
    """Simulate target samples from tilt series, as a microscope records them, with an unpredictable noise level.

    Each specimen is a slab of ice as crowded as a cell, with up to six molecules of interest among other complexes, vesicles
    and small proteins. Its images include contrast transfer, radiation damage, electron counting noise and detector blur; a
    tomogram is reconstructed from them, and the molecules are cropped from it. Every specimen has its own dose, thickness,
    defocus, tilt range and alignment.

    The paper's target in its proportions: voxuda simulate target --n 1033 --out target

    Thin ice and a high dose: voxuda simulate target --n 60 --thickness 800 1000 --dose 140 160 --out clear

    With a phase plate, near focus: voxuda simulate target --n 60 --defocus 3e3 1e4 --phase-shift 54 126 --out plate
    """

    out: Path  #: New folder for volumes.mrcs, masks.mrcs, densities.mrcs and samples.csv.
    n: int = 60  #: Total number of samples; two cores make several per second.
    #: Molecules of interest, embedded ones or .npz files; ribosome, 26S proteasome and TRiC by default.
    molecules: list[str] = dataclasses.field(default_factory=lambda: list(IN_CELLS))
    #: One number per molecule; by default 901 66 66 for three molecules, as in the paper, else equal.
    proportions: tuple[float, ...] | None = None
    #: Lowest and highest number of electrons per square angstrom, over the whole series.
    dose: tuple[float, float] = (60.0, 145.0)
    thickness: tuple[float, float] = (1000.0, 2500.0)  #: Thinnest and thickest ice in angstrom.
    defocus: tuple[float, float] = (20e3, 50e3)  #: Lowest and highest underfocus in angstrom.
    concentration: tuple[float, float] = (150.0, 300.0)  #: Lowest and highest total concentration in the specimen, in mg/ml.
    phase_shift: tuple[float, float] = (0.0, 0.0)  #: Lowest and highest phase shift of a phase plate in degrees; 0 without one.
    seed: int = 0  #: The same seed gives the same samples.
    size: int = 32  #: Side of a sample in voxels of 13.5 angstrom.
    device: Literal["cpu", "cuda", "auto"] = "cpu"  #: Device for densities, images and tomograms.

    def run(self) -> None:
        """Simulate and save."""
        from voxuda.simulation.tilt_series import simulate_tilt_series
        from voxuda.training.devices import choose_device

        def recipe(library: list[Molecule], device: Literal["cpu", "cuda", "auto"], **options) -> Subtomograms:
            return simulate_tilt_series(library, device=choose_device(device), **options)

        _make(self, recipe, "target")


@dataclasses.dataclass
class SimulateQuick(_Simulate):
    """Simulate target samples in a second, with white noise, background and neighbours, imaged by convolution.

    Example: voxuda simulate quick --molecules 4v4r 4cr2 4v94 --n-per-molecule 60 --out target
    """

    #: Lowest and highest ratio of signal variance to noise variance; each sample gets its own.
    snr: tuple[float, ...] = (0.01, 0.1)

    def run(self) -> None:
        """Simulate and save."""
        from voxuda.simulation.quick import simulate_target

        _make(self, simulate_target, "target")


def _make(command: SimulateSource | SimulateTarget | SimulateQuick, recipe: Callable[..., Subtomograms], word: str) -> None:
    """Simulate by ``recipe``, which takes the molecules and the other options by name, and save."""
    from voxuda.data.files import check_new_folder, locked
    from voxuda.simulation import molecules
    from voxuda.simulation.samples import save_samples

    options = {name: value for name, value in vars(command).items() if name not in ("molecules", "out")}
    with locked(command.out):
        check_new_folder(command.out)
        samples = recipe([molecules.load(name) for name in command.molecules], **options, progress=True)
        print(f"{len(samples.table)} {word} samples in {save_samples(samples, command.out)}")


Simulate = Annotated[
    Annotated[SimulateSource, tyro.conf.subcommand("source")]
    | Annotated[SimulateTarget, tyro.conf.subcommand("target")]
    | Annotated[SimulateQuick, tyro.conf.subcommand("quick")],
    tyro.conf.subcommand(
        "simulate",
        description="Simulate subtomograms with masks, `source` by the published recipe, `target` by tilt series, `quick` in a"
        " second.",
    ),
]
