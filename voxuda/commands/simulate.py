"""`voxuda simulate`: make the two domains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from voxuda import data, molecules, simulate


@dataclasses.dataclass
class _Simulate:
    molecules: list[str]
    """Embedded molecules, such as 1bxn 3gl1; `voxuda molecules list` names them."""
    out: Path
    """New folder for volumes.mrcs, masks.mrcs, densities.mrcs and samples.csv."""
    n_per_molecule: int = 10
    """Samples per molecule (source: and SNR)."""
    seed: int = 0
    """The same seed gives the same samples."""
    size: int = 32
    """Side of a sample in voxels."""


@dataclasses.dataclass
class SimulateSource(_Simulate):
    """Simulate labelled source samples by the published recipe.

    Example: voxuda simulate source --molecules 1bxn 3gl1 --n-per-molecule 20 --snr 0.03 0.05 --out source
    """

    snr: tuple[float, ...] = (0.03, 0.05)
    """Signal-to-noise variance ratios; every molecule is made at each."""

    def run(self) -> None:
        """Simulate and save."""
        data.check_new_folder(self.out)
        library = [molecules.load(name) for name in self.molecules]
        samples = simulate.simulate_source(
            library, n_per_molecule=self.n_per_molecule, snr=self.snr, seed=self.seed, size=self.size, progress=True
        )
        print(f"{len(samples.table)} source samples in {data.save(samples, self.out)}")


@dataclasses.dataclass
class SimulateTarget(_Simulate):
    """Simulate target samples: unpredictable noise level, defocus and voxel size, background and neighbours.

    Example: voxuda simulate target --molecules 4v4r 4cr2 4v94 --n-per-molecule 60 --out target
    """

    snr: tuple[float, ...] = (0.01, 0.1)
    """Lowest and highest signal-to-noise variance ratio; each sample draws its own."""

    def run(self) -> None:
        """Simulate and save."""
        data.check_new_folder(self.out)
        library = [molecules.load(name) for name in self.molecules]
        samples = simulate.simulate_target(
            library, n_per_molecule=self.n_per_molecule, snr=self.snr, seed=self.seed, size=self.size, progress=True
        )
        print(f"{len(samples.table)} target samples in {data.save(samples, self.out)}")


@dataclasses.dataclass
class Simulate:
    """Simulate subtomograms with masks: `source` by the published recipe, `target` with a domain gap."""

    command: Annotated[
        Annotated[SimulateSource, tyro.conf.subcommand("source", prefix_name=False)]
        | Annotated[SimulateTarget, tyro.conf.subcommand("target", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        """Pass on."""
        self.command.run()
