"""The command line: thin commands over the package's functions."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tqdm import tqdm

from voxuda import data, derivation, evaluation, experiments, molecules, runs, simulate, training
from voxuda.volumes import InputError, Volume, check_new_file, check_volume, read_mrc, write_mrc, zscore


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
class Train:
    """Train one method; Ctrl-C and `--resume` lose at most an epoch.

    Without --source and --target the domains are simulated at the size of --scale.

    Seconds, to see that it works: voxuda train --method vox-uda --scale smoke --out runs/first

    Minutes, our balanced variant: voxuda train --method vox-uda --vox-uda.pseudo balanced --vox-uda.adversary 0
    --scale laptop --out runs/balanced

    Your own folders: voxuda train --method dann --source source --target target --epochs 20 --out runs/dann
    """

    config: Annotated[runs.Config, tyro.conf.arg(name="")]
    out: Path
    """Folder of the run: config.json, log.jsonl, weights.safetensors, checkpoint/."""
    resume: bool = False
    """Go on from the last checkpoint in --out; with no other option, with the options of that run."""

    def run(self) -> None:
        """Train."""
        config = self.config
        if self.resume and config == runs.Config() and (self.out / "config.json").exists():
            config = runs.read_config(self.out)
        training.train(config, self.out, resume=self.resume)
        print(f"run finished in {self.out}; next: voxuda evaluate {self.out}")


@dataclasses.dataclass
class Evaluate:
    """Score a run on its held-out target samples, or on a labelled folder; writes RUN/scores.json.

    Example: voxuda evaluate runs/first
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder made by `voxuda train`."""
    target: Path | None = None
    """A folder with volumes.mrcs and masks.mrcs; by default the run's own test samples."""

    def run(self) -> None:
        """Evaluate with both kinds of batch norm statistics."""
        report = evaluation.evaluate_run(self.run_folder, self.target)
        overall = report["overall"]
        print(f"{report['method']} on {overall['n']} samples, batch norm statistics: {report['batch_norm']}; in percent")
        print(f"{'':>10}{'n':>6}{'IoU':>8}{'95 %':>16}{'Dice':>8}{'95 %':>16}")
        for name, row in [("overall", overall), *report["classes"].items()]:
            cells = [
                f"{100 * row[m]:8.1f}{'{:.1f} - {:.1f}'.format(*(100 * v for v in row[f'{m}_interval'])):>16}"
                for m in ("iou", "dice")
            ]
            print(f"{name:>10}{row['n']:>6}{''.join(cells)}")


@dataclasses.dataclass
class Segment:
    """Segment subtomograms with a trained run; writes one mask MRC per file.

    Example: voxuda segment runs/first sub1.mrc sub2.mrc --out masks
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder made by `voxuda train`."""
    files: Annotated[tyro.conf.Positional[list[Path]], tyro.conf.arg(metavar="FILE...")]
    """MRC volumes whose sides are multiples of 8, or stacks of them; protein bright."""
    out: Path = Path("masks")
    """New folder for the masks."""

    def run(self) -> None:
        """Segment."""
        if not self.files:
            raise InputError("no file was given; name at least one MRC volume.")
        network = runs.load_network(self.run_folder)
        out = data.check_new_folder(self.out)
        volumes: dict[str, Volume] = {}
        for path in self.files:
            volume = read_mrc(path)
            data.check_side(volume.data, path)
            for part in volume.data.reshape(-1, *volume.data.shape[-3:]):
                check_volume(part, str(path))
            plain = path.with_suffix("") if path.suffix in (".gz", ".bz2") else path
            name = f"{plain.stem}_mask{plain.suffix}"
            if name in volumes:
                raise InputError(f"{path}: {name} would be written twice; segment files of the same name one by one.")
            volumes[name] = volume
        with data.new_folder(out) as work:
            for name, volume in tqdm(volumes.items(), unit="file", desc="segmenting"):
                stack = torch.from_numpy(volume.data).reshape(-1, 1, *volume.data.shape[-3:])
                mask = (evaluation.predict(network, zscore(stack)) > 0.5).numpy().reshape(volume.data.shape)
                write_mrc(work / name, mask, volume.voxel_size, origin=volume.origin)
        print(f"{len(volumes)} masks in {out}")


@dataclasses.dataclass
class Reproduce:
    """Run a table of the book: every row, several seeds; finished runs are kept, interrupted ones go on.

    Example: voxuda reproduce modules --scale laptop --seeds 3 --jobs 2 --out runs/laptop
    """

    table: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TABLE")]
    """modules: which part closes how much of the gap; share: what the balanced variant's prior is worth."""
    out: Path
    """Folder of the runs and of TABLE-SCALE.json."""
    scale: runs.Scale = "smoke"
    """smoke: seconds a run; laptop: minutes; paper: the paper's sizes."""
    seeds: int = 1
    """Runs of each row."""
    only: list[str] = dataclasses.field(default_factory=list)
    """Just these rows."""
    jobs: int = 1
    """Runs side by side."""

    def run(self) -> None:
        """Run and print the table."""
        result = experiments.reproduce(self.table, self.out, scale=self.scale, seeds=self.seeds, only=self.only, jobs=self.jobs)
        print(experiments.markdown(result))


@dataclasses.dataclass
class MoleculesList:
    """List the embedded molecules with mass, radius and origin."""

    def run(self) -> None:
        """Print the table."""
        for name in molecules.available():
            m = molecules.load(name)
            print(f"{name:6}{m.mass / 1e3:8.0f} kDa {m.radius / 10:6.1f} nm {len(m.masses):6} beads  {m.provenance['source']}")


@dataclasses.dataclass
class MoleculesDerive:
    """Condense coordinates or maps into bead models, and say how well the beads stand for them.

    One coordinate file: voxuda molecules derive 1f1b.cif.gz --out beads

    One density map, scaled to the mass of its molecule: voxuda molecules derive emd_1234.map --dalton 2.5e6 --out beads

    The embedded models anew, from the folder of their files (`voxuda.derivation.RECIPES` names them):
    voxuda molecules derive path/to/molecules --out beads
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """A PDB or mmCIF file, gzipped or not, an MRC map, or a folder with the files of the embedded models."""
    out: Path
    """Folder for NAME.npz files, which `voxuda simulate --molecules` takes as they are."""
    only: list[str] = dataclasses.field(default_factory=list)
    """With a folder: just these molecules."""
    beads: int = 800
    """With a file: how many beads."""
    dalton: float | None = None
    """With a map: the mass it stands for."""
    overwrite: bool = False
    """Replace files that exist."""

    def run(self) -> None:
        """Derive and report."""
        for name in self._names():
            path = self.out / f"{name}.npz"
            check_new_file(path, overwrite=self.overwrite)
            molecule = self._derive(name)
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{self.out}: cannot be made ({error.strerror}); give a folder for the output.") from error
            _write_molecule(path, molecule, self.overwrite)

    def _names(self) -> list[str]:
        if self.source.is_dir():
            return self.only or list(derivation.RECIPES)
        return [self.source.name.split(".")[0].lower()]

    def _derive(self, name: str) -> molecules.Molecule:
        if self.source.is_dir():
            return derivation.derive_file(name, self.source)
        about = {"source": self.source.name}
        if self.source.suffix in (".mrc", ".map", ".rec"):
            return derivation.derive_map(name, self.source, self.dalton, beads=self.beads, provenance=about)
        return derivation.derive_coordinates(name, self.source, beads=self.beads, provenance=about)


@dataclasses.dataclass
class MoleculesFetch:
    """Download a structure from the Protein Data Bank and condense it into beads.

    Example: voxuda molecules fetch 1f1b --out 1f1b.npz, then voxuda simulate source --molecules 1f1b.npz --out source
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ID")]
    """PDB id."""
    assembly: bool = False
    """Biological assembly 1 instead of the asymmetric unit."""
    out: Path | None = None
    """Bead file; NAME.npz by default."""
    overwrite: bool = False
    """Replace a file that exists."""

    def run(self) -> None:
        """Fetch and report."""
        path = self.out or Path(f"{self.name.lower()}.npz")
        check_new_file(path, overwrite=self.overwrite)
        _write_molecule(path, derivation.fetch(self.name, assembly=self.assembly), self.overwrite)


def _write_molecule(path: Path, molecule: molecules.Molecule, overwrite: bool) -> None:
    molecules.write_beads(path, molecule, overwrite=overwrite)
    fit = molecule.provenance["agreement"]
    print(
        f"{path}: {molecule.mass / 1e3:.0f} kDa in {len(molecule.masses)} beads,"
        f" correlation {fit['correlation']:.4f}, mask IoU {fit['mask_iou']:.4f}"
    )


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


@dataclasses.dataclass
class Molecules:
    """The molecules: list the embedded ones, derive them anew, fetch others."""

    command: Annotated[
        Annotated[MoleculesList, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[MoleculesDerive, tyro.conf.subcommand("derive", prefix_name=False)]
        | Annotated[MoleculesFetch, tyro.conf.subcommand("fetch", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        """Pass on."""
        self.command.run()


Command = (
    Annotated[Simulate, tyro.conf.subcommand("simulate", prefix_name=False)]
    | Annotated[Train, tyro.conf.subcommand("train", prefix_name=False)]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate", prefix_name=False)]
    | Annotated[Segment, tyro.conf.subcommand("segment", prefix_name=False)]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce", prefix_name=False)]
    | Annotated[Molecules, tyro.conf.subcommand("molecules", prefix_name=False)]
)

DESCRIPTION = """Vox-UDA for cryo-ET subtomograms: simulate, train, evaluate, segment.

Start with:
  voxuda train --method vox-uda --scale smoke --out runs/first
  voxuda evaluate runs/first

Add --debug to see where an error came from."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``voxuda``; returns the exit code, 2 for input that cannot be used."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        chosen = tyro.cli(
            Command,  # type: ignore[arg-type]
            args=[a for a in arguments if a != "--debug"],
            prog="voxuda",
            description=DESCRIPTION,
        )
        chosen.run()
    except InputError as error:
        if debug:
            raise
        print(f"voxuda: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError) as error:  # what no check has foreseen, still in one sentence
        if debug:
            raise
        about = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(f"voxuda: {about or 'out of memory'}; --debug says where.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("voxuda: interrupted; `voxuda train` goes on with --resume, `voxuda reproduce` by itself.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
