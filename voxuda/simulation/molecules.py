"""Embedded bead models of molecules, and their density. The module ``beads`` derives new ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from voxuda.data.files import check_new_file, write_atomically
from voxuda.errors import InputError
from voxuda.simulation.names import IN_CELLS as IN_CELLS
from voxuda.simulation.names import NINE as NINE
from voxuda.simulation.names import PAPER_SOURCE_SETS as PAPER_SOURCE_SETS
from voxuda.simulation.names import STAND_INS as STAND_INS
from voxuda.simulation.names import TARGET_MOLECULES as TARGET_MOLECULES

_LIBRARY = Path(__file__).with_name("library")

MASK_THRESHOLD = 300.0
"""Daltons per cubic nanometre above which a voxel belongs to the molecule (the paper's threshold, Fig. 1)."""


@dataclass(frozen=True)
class Molecule:
    """A molecule as a cloud of Gaussian beads."""

    name: str  #: PDB id, or name of the file it was derived from, in lower case.
    positions: torch.Tensor  #: ``(N, 3)`` bead centres in angstrom, order z, y, x, centred on the bounding box.
    masses: torch.Tensor  #: ``(N,)`` in dalton.
    spreads: torch.Tensor  #: ``(N,)`` standard deviation of each bead along each axis, in angstrom.
    provenance: dict  #: Source, licence and how the beads were derived.

    @property
    def radius(self) -> float:
        """Largest distance of a bead from the centre, in angstrom."""
        return float(self.positions.norm(dim=1).max())

    @property
    def mass(self) -> float:
        """Total mass in dalton."""
        return float(self.masses.sum())


def available() -> list[str]:
    """List the names of the embedded molecules."""
    return sorted(path.stem for path in _LIBRARY.glob("*.npz"))


def embedded_size(name: str) -> int:
    """Return the size of an embedded molecule on disk, in bytes."""
    return (_LIBRARY / f"{name}.npz").stat().st_size


def load(name: str) -> Molecule:
    """Load an embedded molecule by its PDB id, upper or lower case, or an ``.npz`` file made by ``voxuda molecules``.

    Raises
    ------
    InputError
        No such molecule is embedded (the message says how to get it), or the file is not a bead file.
    """
    if name.endswith(".npz"):
        return read_beads(name)
    key = name.lower()
    if key not in available():
        hint = f"; its stand-in is {STAND_INS[key]}" if key in STAND_INS else ""
        raise InputError(
            f"{name}: no embedded molecule of that name{hint}; choose from {', '.join(available())}, "
            f"or fetch and derive it with `voxuda molecules fetch {key}`."
        )
    return read_beads(_LIBRARY / f"{key}.npz")


def read_beads(path: str | Path) -> Molecule:
    """Read a molecule from an ``.npz`` file written by :func:`write_beads`."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; make one with `voxuda molecules derive` or `fetch`.")
    try:
        with np.load(path, allow_pickle=False) as file:
            provenance = json.loads(str(file["provenance"]))
            name = provenance["name"]
            positions, masses, spreads = (
                torch.from_numpy(file[k].astype(np.float32)) for k in ("positions", "masses", "spreads")
            )
    except Exception as error:
        raise InputError(f"{path}: not a bead file; make one with `voxuda molecules derive`.") from error
    return Molecule(name, positions, masses, spreads, provenance)


def write_beads(path: str | Path, molecule: Molecule, *, overwrite: bool = False) -> Path:
    """Write a molecule's beads to ``.npz``, positions and spreads in half precision (to 0.06 angstrom), masses in single.

    For errors see :func:`~voxuda.data.files.check_new_file` and :func:`~voxuda.data.files.write_atomically`.
    """
    path = Path(path)
    arrays = {k: getattr(molecule, k).numpy().astype(np.float16) for k in ("positions", "spreads")}
    arrays["masses"] = molecule.masses.numpy().astype(np.float32)
    about = {**molecule.provenance, "name": molecule.name}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, provenance=np.array(json.dumps(about)), **arrays)

    check_new_file(path, overwrite=overwrite)
    write_atomically(write, path)
    return path


# --- from beads to density -----------------------------------------------------------------------------------------


def density(
    positions: torch.Tensor, masses: torch.Tensor, spreads: torch.Tensor, size: int, voxel_size: float | torch.Tensor = 10.0
) -> torch.Tensor:
    r"""Compute the density of Gaussian beads on a grid, in dalton per cubic nanometre.

    Each bead is a separable Gaussian, so a volume is one matrix product of its axis profiles:
    :math:`\rho_{zyx} = \sum_n m_n\,g_{nz}\,g_{ny}\,g_{nx} / V`. A profile is the Gaussian of variance
    :math:`s_n^2 + h^2/6`, where :math:`h^2/6` is the variance of the trilinear kernel with which Situs ``pdb2vol`` spreads
    an atom over the voxels of edge :math:`h`.

    Parameters
    ----------
    positions : Tensor
        ``(B, N, 3)`` in angstrom, order z, y, x, relative to the centre voxel ``size // 2``.
    masses : Tensor
        ``(B, N)`` in dalton; 0 pads molecules with fewer beads.
    spreads : Tensor
        ``(B, N)`` in angstrom.
    size : int
        Side of the cube in voxels.
    voxel_size : float or Tensor
        Angstrom, one value or ``(B,)``.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``.
    """
    edge = torch.as_tensor(voxel_size, dtype=positions.dtype, device=positions.device).expand(len(positions))
    h = edge[:, None, None]
    grid = (torch.arange(size, dtype=positions.dtype, device=positions.device) - size // 2) * h  # (B, 1, size)
    variance = spreads[..., None].square() + h.square() / 6
    # Beyond 7 standard deviations a profile is held at e^-25, since smaller products would be denormals, which take a hundred
    # times as long to multiply.
    z, y, x = (
        torch.exp((-(grid - positions[..., axis, None]).square() / (2 * variance)).clamp_min(-25))
        * (h / (2 * torch.pi * variance).sqrt())
        for axis in range(3)
    )
    weighted = (masses[..., None] * z).transpose(1, 2)  # (B, size, N)
    plane = (y[..., :, None] * x[..., None, :]).flatten(2)  # (B, N, size * size)
    volume = torch.bmm(weighted, plane).unflatten(2, (size, size))
    cubic_nanometres = (edge / 10) ** 3
    return (volume / cubic_nanometres[:, None, None, None])[:, None]


def molecular_volume(molecule: Molecule, voxel_size: float) -> float:
    """Compute the volume in nm³ where a molecule's density exceeds :data:`MASK_THRESHOLD`; ``voxel_size`` is in angstrom."""
    size = 2 * (int(molecule.radius / voxel_size) + 3)
    beads = (molecule.positions[None], molecule.masses[None], molecule.spreads[None])
    inside = density(*beads, size, voxel_size) > MASK_THRESHOLD
    return float(inside.sum()) * (voxel_size / 10) ** 3
