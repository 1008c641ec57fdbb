"""Folders on disk: which subtomograms lie in one, and a new one that appears whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import starfile

from voxuda.volumes import InputError, read_mrc

PART = ".part"
"""Where a folder's files are written before they appear in it."""

MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".rec")

EXPORT = {
    ".hdf": "EMAN2's format; export it as MRC with `e2proc3d.py NAME.hdf NAME.mrc --unstacking`.",
    ".em": "the EM format; export it as MRC, in Dynamo with `dwrite(dread('NAME.em'), 'NAME.mrc')`.",
    ".gz": "compressed; unpack it with gunzip.",
}
"""What to do with a file that is not read, by suffix."""


@dataclass(frozen=True)
class Entry:
    """One subtomogram on disk.

    Parameters
    ----------
    path : Path
        Its MRC file.
    index : int, optional
        Its place in the file, from 0, when that is a stack.
    name : str
        Its class.
    mask : Path, optional
        The MRC file of its mask, which has the same place there.
    shape : tuple of int
        ``(D, H, W)`` in voxels.
    voxel_size : float
        Edge of a voxel in angstrom; 0 when nothing says.
    group : str, optional
        The specimen it was cut from, when a table says.
    """

    path: Path
    index: int | None
    name: str
    mask: Path | None
    shape: tuple[int, int, int]
    voxel_size: float
    group: str | None = None

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return str(self.path) if self.index is None else f"{self.path} volume {self.index}"


def list_entries(source: str | Path) -> list[Entry]:
    """All subtomograms of a folder or a RELION star file, from the headers alone.

    Three layouts: a folder written by this package (``volumes.mrcs``, with or without ``masks.mrcs`` and ``samples.csv``);
    a folder of MRC files, or of sub-folders of them that name the classes; a star file with the column ``rlnImageName``.
    The mask of ``NAME.mrc`` is ``masks/NAME.mrc`` or ``NAME_mask.mrc`` beside it, or stands at the same place below a folder
    ``masks`` at the top.

    Raises
    ------
    InputError
        Nothing is there, a file is unreadable or missing, a volume is not 3D, a mask has another shape, a mask has no volume,
        or only some volumes have masks.
    """
    source = Path(source)
    if source.suffix in EXPORT:
        raise InputError(f"{source}: {EXPORT[source.suffix]}")
    if source.suffix == ".star":
        entries = _of_star(source)
    elif source.is_file():
        raise InputError(f"{source}: is a file; give the folder it lies in, or a star file.")
    elif not source.is_dir():
        raise InputError(f"{source}: no such folder; make one with `voxuda simulate`, or give a folder of MRC files.")
    elif (source / "volumes.mrcs").is_file():
        entries = _of_own_folder(source)
    else:
        entries = _of_files(source)
    bare = [entry for entry in entries if entry.mask is None]
    if 0 < len(bare) < len(entries):
        raise InputError(f"{bare[0].label}: has no mask, but {len(entries) - len(bare)} others do; give all a mask, or none.")
    return entries


def _expand(path: Path, name: str, mask: Path | None, place: int | None = None, voxel_size: float = 0.0) -> list[Entry]:
    """The entries of one file: all it holds, or the one at ``place``; a ``voxel_size`` that is given outranks the header's."""
    volume = read_mrc(path, memory_map=True)
    shape = volume.data.shape
    if mask is not None and (of_mask := read_mrc(mask, memory_map=True).data.shape) != shape:
        raise InputError(f"{mask}: masks {of_mask} for volumes {shape}; give one mask a volume.")
    if len(shape) == 3 and len(set(shape)) > 1 and (place is not None or path.suffix == ".mrcs"):
        raise InputError(f"{path}: shape {shape} is a stack of 2D images; give 3D subtomograms, a single one as .mrc.")
    count = shape[0] if len(shape) == 4 else 1
    if place is not None and not 0 <= place < count:
        raise InputError(f"{path}: holds {count} volumes, so there is no number {place + 1}; correct the star file.")
    box = (shape[-3], shape[-2], shape[-1])
    voxel_size = voxel_size or volume.voxel_size
    if len(shape) == 3:
        return [Entry(path, None, name, mask, box, voxel_size)]
    return [Entry(path, i, name, mask, box, voxel_size) for i in (range(count) if place is None else [place])]


def _of_own_folder(folder: Path) -> list[Entry]:
    masks, table = folder / "masks.mrcs", folder / "samples.csv"
    entries = _expand(folder / "volumes.mrcs", "unknown", masks if masks.is_file() else None)
    if not table.is_file():
        return entries
    with open(table, newline="") as file:
        rows = csv.DictReader(file)
        if "molecule" not in (rows.fieldnames or ()):
            raise InputError(f"{table}: has no column molecule; name the class of each sample there.")
        said = [(row["molecule"], row.get("specimen")) for row in rows]
    if len(said) != len(entries):
        raise InputError(f"{table}: {len(said)} rows for {len(entries)} volumes; give one row each.")
    return [dataclasses.replace(entry, name=name, group=group) for entry, (name, group) in zip(entries, said, strict=True)]


def _of_files(folder: Path) -> list[Entry]:
    if (folder / "masks.mrcs").is_file() or (folder / "samples.csv").is_file():
        raise InputError(f"{folder}: holds no volumes.mrcs, to which its other files belong; put it back.")
    depths = [{p: p.relative_to(folder).parts for p in sorted(folder.glob(g))} for g in ("*", "*/*", "*/*/*")]
    files = {p: parts for d in depths for p, parts in d.items() if not any(part.startswith(".") for part in parts)}
    mrc = {p: parts for p, parts in files.items() if p.suffix in MRC_SUFFIXES}
    masks = {p for p, parts in mrc.items() if "masks" in parts[:-1] or p.stem.endswith("_mask")}
    volumes = {p: parts for p, parts in mrc.items() if p not in masks and len(parts) < 3}
    if not volumes:
        for path in files:
            if path.suffix in EXPORT:
                raise InputError(f"{path}: {EXPORT[path.suffix]}")
        raise InputError(
            f"{folder}: holds no volumes.mrcs, and no MRC files ({', '.join(MRC_SUFFIXES)}) in it or its sub-folders; "
            "make volumes with `voxuda simulate`, or give a folder of them."
        )
    if len({len(parts) for parts in volumes.values()}) > 1:
        raise InputError(f"{folder}: has MRC files both in it and in sub-folders; put each into the sub-folder of its class.")
    entries = []
    for path, parts in volumes.items():
        entries += _expand(path, parts[0] if len(parts) == 2 else "unknown", _mask_of(path, folder))
    stray = sorted(masks - {entry.mask for entry in entries})
    if stray:
        raise InputError(f"{stray[0]}: is the mask of no volume; give it the name of its volume or take it away.")
    return entries


def _mask_of(path: Path, top: Path) -> Path | None:
    beside = (path.parent / "masks" / path.name, path.with_name(f"{path.stem}_mask{path.suffix}"))
    return next((p for p in (*beside, top / "masks" / path.relative_to(top)) if p.is_file()), None)


def _of_star(star: Path) -> list[Entry]:
    if not star.is_file():
        raise InputError(f"{star}: no such file; give a RELION star file of subtomograms.")
    try:
        blocks = starfile.read(star, always_dict=True, parse_as_string=["rlnImageName"])
        # A block is a data frame, or a dictionary when it is not a loop: make columns of both.
        tables = [{k: list(v) if hasattr(v, "to_list") else [v] for k, v in block.items()} for block in blocks.values()]
    except Exception as error:  # the parser raises whatever its own steps raise
        raise InputError(f"{star}: not a readable star file; write it again with RELION.") from error
    particles: dict[str, list] = next((table for table in tables if "rlnImageName" in table), {})
    names = [str(name) for name in particles.get("rlnImageName", [])]
    if any(1 in table.get("rlnTomoSubTomosAre2DStacks", []) for table in tables):
        raise InputError(f"{star}: lists stacks of 2D images, as RELION 5 makes them; reconstruct them, see voxuda.particles.")
    if not names:
        raise InputError(f"{star}: names no images in a column rlnImageName; give the star file of extracted subtomograms.")
    files = [_find(name.rpartition("@")[2], star) for name in names]
    missing = [name for name, file in zip(names, files, strict=True) if file is None]
    if missing:
        raise InputError(
            f"{star}: names {len(missing)} volumes that do not exist, first {missing[0]}; "
            "paths count from the folder of the star file or one above it."
        )
    sizes = _voxel_sizes(star, particles, tables)
    classes = particles.get("rlnClassNumber", [])
    entries = []
    for i, (name, file) in enumerate(zip(names, files, strict=True)):
        assert file is not None
        if file.suffix in EXPORT:
            raise InputError(f"{file}: {EXPORT[file.suffix]}")
        place = int(_number(star, "rlnImageName", name.partition("@")[0])) - 1 if "@" in name else None
        kind = f"class {_number(star, 'rlnClassNumber', classes[i]):.0f}" if classes else "unknown"
        entries += _expand(file, kind, _mask_of(file, file.parent), place, sizes[i])
    return entries


def _find(name: str, star: Path) -> Path | None:
    """RELION's paths count from its project folder, which stands somewhere above the star file."""
    return next((folder / name for folder in star.absolute().parents if (folder / name).is_file()), None)


def _voxel_sizes(star: Path, particles: dict[str, list], tables: list[dict[str, list]]) -> list[float]:
    for column in ("rlnImagePixelSize", "rlnPixelSize"):
        if column in particles:
            return [_number(star, column, value) for value in particles[column]]
    for table in tables:
        if "rlnImagePixelSize" in table and "rlnOpticsGroup" in table and "rlnOpticsGroup" in particles:
            of_group = dict(zip(table["rlnOpticsGroup"], table["rlnImagePixelSize"], strict=True))
            return [_number(star, "rlnImagePixelSize", of_group.get(group)) for group in particles["rlnOpticsGroup"]]
    return [0.0] * len(particles["rlnImageName"])  # the header's is taken


def _number(star: Path, column: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError(f"{star}: {column} holds {value}; it must be a number.")
    return number


def check_new_folder(path: str | Path) -> Path:
    """Check, without making anything, that ``path`` may become a new output folder: absent or empty, its parent writable.

    Raises
    ------
    InputError
        It is a file, holds something, or cannot be written.
    """
    path = Path(path)
    try:
        if path.is_dir() and any(item.name != PART for item in path.iterdir()):
            raise InputError(f"{path}: the folder is not empty; choose another or empty it.")
        nearest = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    except OSError as error:
        raise InputError(f"{path}: cannot be reached ({error.strerror}); choose a writable folder.") from error
    if not nearest.is_dir():
        raise InputError(f"{path}: {nearest} is a file; give a folder for the output.")
    if not os.access(nearest, os.W_OK):
        raise InputError(f"{path}: {nearest} cannot be written; choose a writable folder.")
    return path


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write into, whose files appear in ``path`` together at the end, or not at all.

    Raises
    ------
    InputError
        See :func:`check_new_folder`; or the disk is full.
    """
    path = check_new_folder(path)
    existed = path.exists()
    work = path / PART
    done = False
    try:
        shutil.rmtree(work, ignore_errors=True)  # left by a process that was killed
        work.mkdir(parents=True)
        yield work
        for item in work.iterdir():
            os.replace(item, path / item.name)
        done = True
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free some space or choose another.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not done and not existed:
            shutil.rmtree(path, ignore_errors=True)
