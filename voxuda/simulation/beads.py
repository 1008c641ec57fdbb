"""Derive beads from coordinates, a map or a Protein Data Bank entry, by clustering and fitting.

Atoms and map voxels are points, with positions ``(N, 3)`` in angstrom, order z, y, x, and masses ``(N,)`` in dalton. The given
``provenance`` is recorded with the beads, and their agreement with all points is added to it as ``"agreement"``.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch

from voxuda.data.mrc import read_mrc
from voxuda.errors import InputError
from voxuda.simulation.molecules import MASK_THRESHOLD, Molecule, density

_PDB_URL = "https://files.rcsb.org/download/{}.cif.gz"

VOXEL_SIZE = 10.0
"""Edge of a voxel of the density of atoms, in angstrom."""


def derive_map(
    name: str, path: str | Path, mass: float | None, *, beads: int = 800, provenance: dict | None = None
) -> Molecule:
    """Make a molecule from an MRC map, scaled to a total mass in dalton, since the scale of a map is arbitrary.

    Raises
    ------
    InputError
        The mass is not positive, or the file is not a map whose header gives the voxel size.
    """
    if mass is None or not 0 < mass < float("inf"):
        raise InputError(f"{path}: a map needs the mass of its molecule, a positive number of dalton; pass --dalton.")
    edge = read_mrc(path).voxel_size
    if edge <= 0:
        raise InputError(f"{path}: the header gives no voxel size; set it, in angstrom.")
    positions, masses = read_map_points(path, mass)
    molecule = derive(name, positions, masses, beads=beads, provenance={**(provenance or {}), "scaled_to_dalton": str(mass)})
    volume, shift = map_on_grid(positions, masses, edge)
    molecule = fit_to_map(molecule, volume, shift, edge)
    molecule.provenance["agreement"] = agreement(molecule, volume, shift, edge)
    return molecule


def derive_coordinates(
    name: str, path: str | Path, *, beads: int = 800, assembly: bool = False, provenance: dict | None = None
) -> Molecule:
    """Make a molecule from a coordinate file, see :func:`read_atoms`."""
    positions, masses = read_atoms(path, assembly=assembly)
    molecule = derive(name, positions, masses, beads=beads, provenance=provenance)
    centred = positions - (positions.min(0) + positions.max(0)) / 2
    size = 2 * int(np.ceil(np.abs(centred).max() / VOXEL_SIZE) + 3)
    reference = torch.from_numpy(atom_density(centred, masses, size))
    molecule.provenance["agreement"] = agreement(molecule, reference, torch.zeros(3))
    return molecule


def agreement(
    molecule: Molecule, reference: torch.Tensor, shift: torch.Tensor, voxel_size: float = VOXEL_SIZE
) -> dict[str, float]:
    """Compare beads, shifted by ``shift`` ``(3,)`` in angstrom, with a reference density ``(D, D, D)`` in Da/nm³.

    Returns the ``correlation`` of the densities, the ``mask_iou`` of the masks at 300 Da/nm³ and the number of ``voxels`` in
    the reference mask.
    """
    beads = (molecule.positions + shift)[None], molecule.masses[None], molecule.spreads[None]
    rendered = density(*beads, reference.shape[-1], voxel_size)[0, 0]
    both = torch.stack([rendered.double().flatten(), reference.double().flatten()])
    mine, theirs = both > MASK_THRESHOLD
    return {
        "correlation": float(torch.corrcoef(both)[0, 1]),
        "mask_iou": float((mine & theirs).sum() / (mine | theirs).sum()),
        "voxels": int(theirs.sum()),
    }


def read_atoms(path: str | Path, *, assembly: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Read all atoms but hydrogen and water as points, from PDB or mmCIF, gzipped or not.

    ``assembly`` builds biological assembly 1 instead of taking the asymmetric unit as deposited.

    Raises
    ------
    InputError
        The file is missing or unreadable, holds no atoms, or names no assembly.
    """
    import gemmi

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a PDB or mmCIF file.")
    try:
        structure = gemmi.read_structure(str(path))
        structure.setup_entities()
    except Exception as error:
        raise InputError(f"{path}: not a readable PDB or mmCIF file ({error}).") from error
    structure.remove_waters()
    if len(structure) == 0:
        raise InputError(f"{path}: holds no atoms; give a PDB or mmCIF file with coordinates.")
    model = structure[0]
    if assembly:
        if not structure.assemblies:
            raise InputError(f"{path}: names no biological assembly; leave out --assembly.")
        model = gemmi.make_assembly(structure.assemblies[0], model, gemmi.HowToNameCopiedChain.AddNumber)
    kept = [
        (atom.pos.z, atom.pos.y, atom.pos.x, atom.element.weight * atom.occ)
        for chain in model
        for residue in chain
        for atom in residue
        if not atom.element.is_hydrogen
    ]
    if not kept:
        raise InputError(f"{path}: holds no atoms; give a PDB or mmCIF file with coordinates.")
    table = np.array(kept)
    return table[:, :3], table[:, 3]


def read_map_points(path: str | Path, mass: float) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels of positive density of an MRC map as points, their masses scaled to a total in dalton."""
    volume = read_mrc(path)
    if volume.data.ndim != 3 or not volume.data.max() > 0:
        raise InputError(f"{path}: holds no positive density in three dimensions; give one map in which protein is bright.")
    # Voxels under 2 % of the maximum hold the map's smoothing tail and no protein.
    index = np.argwhere(volume.data > 0.02 * volume.data.max())
    weights = volume.data[tuple(index.T)].astype(np.float64)
    return index * volume.voxel_size, weights * mass / weights.sum()


def derive(
    name: str, positions: np.ndarray, masses: np.ndarray, *, beads: int = 800, provenance: dict | None = None
) -> Molecule:
    """Condense points into beads by mass-weighted k-means; each bead has the variance of its points."""
    from sklearn.cluster import KMeans

    if beads < 1:
        raise InputError(f"beads is {beads}; it must be at least 1.")
    beads = min(beads, len(np.unique(positions, axis=0)))  # points in one place share a bead
    labels = KMeans(beads, n_init=1, max_iter=50, random_state=0).fit(positions, sample_weight=masses).labels_
    total = np.bincount(labels, masses, beads)
    centres = np.stack([np.bincount(labels, masses * positions[:, a], beads) / total for a in range(3)], 1)
    squares = ((positions - centres[labels]) ** 2).sum(1) / 3
    spreads = np.sqrt(np.bincount(labels, masses * squares, beads) / total)
    centres -= (positions.min(0) + positions.max(0)) / 2
    record = {"name": name, "beads": beads, "method": "mass-weighted k-means", **(provenance or {})}
    places, weights, widths = (torch.tensor(array, dtype=torch.float32) for array in (centres, total, spreads))
    return Molecule(name, places, weights, widths, record)


def fit_to_map(molecule: Molecule, target: torch.Tensor, shift: torch.Tensor, voxel_size: float) -> Molecule:
    """Fit beads by gradient descent to the density that :func:`map_on_grid` gives for the same points.

    K-means alone loses the edges of a map, whose voxels are as coarse as the beads.
    """
    place = (molecule.positions + shift).requires_grad_()
    log_mass = molecule.masses.log().requires_grad_()
    log_spread = molecule.spreads.clamp_min(1.0).log().requires_grad_()
    optimizer = torch.optim.Adam([{"params": [place], "lr": 0.2}, {"params": [log_mass, log_spread], "lr": 0.03}])
    for _ in range(150):
        rendered = density(place[None], log_mass.exp()[None], log_spread.exp()[None], len(target), voxel_size)
        loss = torch.nn.functional.mse_loss(rendered[0, 0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    record = {**molecule.provenance, "method": "mass-weighted k-means, then gradient descent on the map"}
    return Molecule(molecule.name, place.detach() - shift, log_mass.detach().exp(), log_spread.detach().exp(), record)


def map_on_grid(positions: np.ndarray, masses: np.ndarray, voxel_size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Put map points back on a cubic grid ``(D, D, D)`` in Da/nm³, and return it with a shift ``(3,)`` in angstrom.

    The shift makes positions relative to the centre of the bounding box, such as those of beads, relative to voxel ``D // 2``.
    """
    low = positions.min(0)
    index = np.rint((positions - low) / voxel_size).astype(int)
    size = int(index.max()) + 5
    start = size // 2 - (index.max(0) + 1) // 2
    volume = torch.zeros(size, size, size)
    volume[tuple(torch.from_numpy((index + start).T))] = torch.tensor(masses, dtype=torch.float32)
    centre = (positions.min(0) + positions.max(0)) / 2
    shift = (start - size // 2) * voxel_size + centre - low
    return volume / (voxel_size / 10) ** 3, torch.tensor(shift, dtype=torch.float32)


def fetch(name: str, *, assembly: bool = False, checksum: str | None = None, cache: str | Path | None = None) -> Molecule:
    """Download an mmCIF file from the Protein Data Bank into the user's cache folder and condense it into beads.

    ``checksum`` is the SHA-256 that the download must have; the actual one is in ``provenance["sha256"]``. By default it is
    that of the first download, stored beside the file, so that a revised entry or a damaged file is detected.

    Raises
    ------
    InputError
        The id is malformed, or the file is not available (offline, or no such entry) or has another checksum.
    """
    import pooch

    key = name.lower()
    pooch.get_logger().setLevel("WARNING")
    if not (len(key) == 4 and key.isalnum() and key[0].isdigit()):
        raise InputError(f"{name}: not a PDB id; an id is a digit followed by three letters or digits, such as 1f1b.")
    url, folder = _PDB_URL.format(key), Path(cache or pooch.os_cache("voxuda"))
    pin = folder / f"{key}.cif.gz.sha256"
    if checksum is None and pin.is_file():
        checksum = pin.read_text().strip()
    try:
        path = pooch.retrieve(url, known_hash=checksum, fname=f"{key}.cif.gz", path=folder, progressbar=True)
    except ValueError as error:
        asked = f"recorded in {pin}" if pin.is_file() and checksum == pin.read_text().strip() else "asked for"
        raise InputError(f"{url}: does not have the checksum {asked}; the entry may have been revised since.") from error
    except Exception as error:
        raise InputError(
            f"{url}: could not be downloaded; check the id and the network, or give a local file to `voxuda molecules derive`."
        ) from error
    record = {"source": f"PDB {key.upper()}", "licence": "CC0-1.0", "unit": "assembly 1" if assembly else "asymmetric unit"}
    record["sha256"] = pooch.file_hash(path)
    try:
        with gzip.open(path) as file:
            file.read()  # a download that was cut off ends before its checksum
    except (OSError, EOFError) as error:
        Path(path).unlink(missing_ok=True)
        raise InputError(f"{url}: the download is damaged and was removed; try again.") from error
    pin.write_text(record["sha256"] + "\n")
    return derive_coordinates(key, path, assembly=assembly, provenance=record)


def atom_density(positions: np.ndarray, masses: np.ndarray, size: int) -> np.ndarray:
    """Spread atoms trilinearly over ``(D, D, D)`` voxels about voxel ``size // 2``, in Da/nm³, as Situs ``pdb2vol`` does."""
    scaled = positions / VOXEL_SIZE + size // 2
    low = np.floor(scaled).astype(int)
    fraction = scaled - low
    volume = np.zeros((size, size, size))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, fraction, 1 - fraction), axis=1)
        np.add.at(volume, tuple((low + corner).T), masses * weight)
    return volume
