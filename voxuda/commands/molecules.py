"""`voxuda molecules` lists, derives and fetches bead models of molecules."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from voxuda.errors import InputError

if TYPE_CHECKING:
    from voxuda.simulation.molecules import Molecule


@dataclasses.dataclass
class MoleculesList:
    """List the embedded molecules with mass, radius and origin."""

    def run(self) -> None:
        """Print the table."""
        from voxuda.simulation import molecules

        for name in molecules.available():
            m = molecules.load(name)
            print(f"{name:6}{m.mass / 1e3:8.0f} kDa {m.radius / 10:6.1f} nm {len(m.masses):6} beads  {m.provenance['source']}")


@dataclasses.dataclass
class MoleculesDerive:
    """Condense coordinates or a map into a bead model, and print how well the beads represent it.

    A coordinate file: voxuda molecules derive 1f1b.cif.gz --out beads

    A density map, scaled to the mass of its molecule: voxuda molecules derive emd_1234.map --dalton 2.5e6 --out beads
    """

    #: PDB or mmCIF file or MRC map, gzipped or not.
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    out: Path  #: Folder for NAME.npz, a file for `voxuda simulate --molecules`.
    beads: int = 800  #: Number of beads.
    dalton: float | None = None  #: Mass of the molecule in Da, required for a map.
    overwrite: bool = False  #: Replace files that exist.

    def run(self) -> None:
        """Derive and report."""
        from voxuda.data.files import check_new_file, locked
        from voxuda.data.listing import MRC
        from voxuda.simulation import beads

        name = self.source.name.split(".")[0].lower()
        about = {"source": self.source.name}
        path = self.out / f"{name}.npz"
        with locked(self.out):
            check_new_file(path, overwrite=self.overwrite)
            if MRC.fullmatch(self.source.name):
                molecule = beads.derive_map(name, self.source, self.dalton, beads=self.beads, provenance=about)
            else:
                molecule = beads.derive_coordinates(name, self.source, beads=self.beads, provenance=about)
            _write_molecule(path, molecule, self.overwrite)


@dataclasses.dataclass
class MoleculesFetch:
    """Download a structure from the Protein Data Bank and condense it into beads.

    Example: voxuda molecules fetch 1f1b --out 1f1b.npz, then voxuda simulate source --molecules 1f1b.npz --out source
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ID")]  #: PDB id.
    assembly: bool = False  #: Biological assembly 1 instead of the asymmetric unit.
    #: Required SHA-256 of the download; by default that of the first download, which each bead file also records.
    checksum: str | None = None
    out: Path | None = None  #: Bead file; NAME.npz by default.
    overwrite: bool = False  #: Replace a file that exists.

    def run(self) -> None:
        """Fetch and report."""
        from voxuda.data.files import check_new_file
        from voxuda.simulation import beads

        path = self.out or Path(f"{self.name.lower()}.npz")
        if path.suffix != ".npz":
            raise InputError(f"{path}: is a bead file's place; end its name in .npz, for `voxuda simulate --molecules`.")
        check_new_file(path, overwrite=self.overwrite, makes_folder=False)
        molecule = beads.fetch(self.name, assembly=self.assembly, checksum=self.checksum)
        _write_molecule(path, molecule, self.overwrite)


def _write_molecule(path: Path, molecule: Molecule, overwrite: bool) -> None:
    from voxuda.simulation import molecules

    molecules.write_beads(path, molecule, overwrite=overwrite)
    fit = molecule.provenance["agreement"]
    print(
        f"{path}: {molecule.mass / 1e3:.0f} kDa in {len(molecule.masses)} beads,"
        f" correlation {fit['correlation']:.4f}, mask IoU {fit['mask_iou']:.4f}"
    )


Molecules = Annotated[
    Annotated[MoleculesList, tyro.conf.subcommand("list")]
    | Annotated[MoleculesDerive, tyro.conf.subcommand("derive")]
    | Annotated[MoleculesFetch, tyro.conf.subcommand("fetch")],
    tyro.conf.subcommand("molecules", description="List the embedded molecules, derive your own, fetch others."),
]
