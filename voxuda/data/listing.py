"""List the subtomograms of a folder or a RELION star file."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from voxuda.data.files import LAST, PART
from voxuda.data.mrc import COMPRESSED, STACKS, read_mrc
from voxuda.data.star import number, read_star
from voxuda.errors import InputError, shown

MRC = re.compile(r"(.+)\.(?:mrcs?|map|rec|ccp4)(?:\.gz|\.bz2)?", re.I)
"""Names of MRC files, plain or compressed; the group is the stem."""

EXPORT = {
    ".hdf": "EMAN2's format; export it as MRC with `e2proc3d.py NAME.hdf NAME.mrc --unstacking`",
    ".em": "the EM format; export it as MRC, in Dynamo with `dwrite(dread('NAME.em'), 'NAME.mrc')`",
}
"""Advice for subtomogram formats that cannot be read, by suffix."""

COMPANION = re.compile(r"(^|[_.-])(ctf2?(_nrm)?|3dctf|weights?|wedge|multi|div|nrm|half[12ab]|ps|spectrum)(?=[_.-]|$)", re.I)
"""Marks of files that programs write beside a subtomogram, such as Warp's ``NAME_ctf_10.00A`` and RELION's ``NAME_weights``."""

PIXEL_SIZES = (
    ("rlnImagePixelSize",),
    ("rlnPixelSize",),
    ("rlnTomoTiltSeriesPixelSize", "rlnTomoSubtomogramBinning"),
    ("rlnDetectorPixelSize", "rlnMagnification"),
)
"""Columns that give the pixel size of the images, best first."""


@dataclass(frozen=True)
class Entry:
    """One subtomogram on disk."""

    path: Path  #: MRC file that holds the subtomogram.
    index: int | None  #: Index in the file, from 0, if that is a stack.
    name: str  #: Class of the subtomogram.
    mask: Path | None  #: MRC file of its mask, at the same index.
    shape: tuple[int, int, int]  #: ``(D, H, W)`` in voxels.
    voxel_size: float  #: Edge of a voxel in angstrom; 0 if unknown.
    group: str | None = None  #: Specimen it was cut from, if a table names several, such as the tomograms of a star file.

    @property
    def label(self) -> str:
        """Name of the subtomogram in messages."""
        return str(self.path) if self.index is None else f"{self.path} volume {self.index}"


def list_entries(source: str | Path) -> list[Entry]:
    """List all subtomograms of a folder or a RELION star file, reading only the headers.

    Three layouts are accepted: a folder written by this package (``volumes.mrcs``, with or without ``masks.mrcs`` and
    ``samples.csv``); a folder of MRC files, or of sub-folders of MRC files, one per class, all of which may lie in a folder
    ``volumes``; a star file with the column ``rlnImageName``.

    The mask of ``NAME.mrc`` is ``masks/NAME.mrc`` or ``NAME_mask.mrc`` beside it, or has the same path below a top-level folder
    ``masks``, or is ``masks/NAME.mrc`` at the top level if no other volume has that name. ``masks`` and ``volumes`` may be in
    capitals, and a mask's extension (``.mrc``, ``.mrcs``, ``.map``, ``.rec``, ``.ccp4``) may differ from its volume's.

    Half maps, files of other kinds, and CTF or weight volumes named after a subtomogram in the same folder are left out, with
    a warning on standard error.

    Raises
    ------
    InputError
        There are no subtomograms, a file is unreadable, missing or nested too deep, a volume is not 3D or cannot be a
        subtomogram by its sides, a mask differs in shape from its volume, belongs to none or could belong to two, only some
        volumes have masks, or the folder was left by an interrupted write.
    """
    source = Path(source)
    if source.is_dir():
        if (source / PART).exists():
            raise InputError(f"{source}: holds {PART}, so writing is in progress or was interrupted; wait, or create it again.")
        own = (source / LAST).is_file()
        entries = _of_own_folder(source) if own else _of_files(source)
        if (source / PART).exists() or (source / LAST).is_file() != own:  # a job has started to rename files since
            return list_entries(source)
    elif source.suffix.lower() == ".star":
        entries = _of_star(source)
    elif not source.exists():
        raise InputError(f"{source}: no such folder or file; check the path, or give the place it was moved to.")
    else:
        remedy = "is a file; give the folder it lies in, or a star file"
        raise InputError(f"{source}: {EXPORT.get(source.suffix.lower(), remedy)}.")
    bare = [entry for entry in entries if entry.mask is None]
    if 0 < len(bare) < len(entries):
        raise InputError(f"{bare[0].label}: has no mask, but {len(entries) - len(bare)} others do; give all a mask, or none.")
    return entries


def fingerprint(source: str | Path) -> str:
    """Return a hash of the samples, their files and contents, classes and specimens; any change of a sample changes it."""
    with redirect_stderr(io.StringIO()):  # whoever reads the samples prints the warnings
        entries = list_entries(source)
    digests = {}
    for path in {path for e in entries for path in (e.path, e.mask) if path}:
        with open(path, "rb") as file:
            start = b"" if path.suffix.lower() in COMPRESSED else file.read(220)
            file.seek(1024 if start else 0)  # without the labels of an MRC file, which hold the time of writing
            digests[path] = start.hex() + hashlib.file_digest(file, "sha256").hexdigest()
    said = [
        [os.path.relpath(e.path, source), e.index, e.name, e.group, digests[e.path], e.mask and digests[e.mask]]
        for e in entries
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _expand(
    path: Path, name: str, mask: Path | None, place: int | None = None, voxel_size: float = 0.0, *, says_images: bool = False
) -> list[Entry]:
    """List all entries of one file, or the one at ``place``; a nonzero ``voxel_size`` overrides the header's.

    ``says_images``, from a star file, decides only if the file itself is ambiguous, that is, named ``.mrcs`` or not a cube.
    """
    volume = read_mrc(path, memory_map=True)
    shape = volume.data.shape
    box = (shape[-3], shape[-2], shape[-1])
    if len(shape) == 3:
        stacked, cube = path.name.lower().endswith(STACKS), len(set(shape)) == 1
        images = (not cube and (stacked or place is not None or says_images)) or (stacked and says_images)
        dataclasses.replace(volume, is_image_stack=images or volume.is_image_stack).check_is_volume()
    if mask is not None and (of_mask := read_mrc(mask, memory_map=True).data.shape) != shape:
        raise InputError(f"{mask}: has shape {of_mask}, its volume {shape}; give one mask of the same shape per volume.")
    count = shape[0] if len(shape) == 4 else 1
    if place is not None and not 0 <= place < count:
        held = f"holds {count} volumes, counted from 1, so there is no number {place + 1}"
        raise InputError(f"{path}: {held}; correct the star file.")
    half = box[0] == box[1] and box[2] == box[1] // 2 + 1
    if half or max(box) >= 3 * min(box):
        what = "half a Fourier transform (CTF or weights)" if half else "a tomogram or a tilt series"
        raise InputError(f"{path}: {box} are the sides of {what}, not of a subtomogram; remove it.")
    places: Iterable[int | None] = [None] if len(shape) == 3 else range(count) if place is None else [place]
    return [Entry(path, i, name, mask, box, voxel_size or volume.voxel_size) for i in places]


def _of_own_folder(folder: Path) -> list[Entry]:
    masks, table = folder / "masks.mrcs", folder / "samples.csv"
    entries = _expand(folder / LAST, "unknown", masks if masks.is_file() else None)
    ours = ("volumes", "masks", "densities")
    _tell(folder, [], [path for path in _files(folder, ["*"]) if _stem(path) not in ("", *ours)])
    if not table.is_file():
        return entries
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            rows = csv.DictReader(file)
            if "molecule" not in (rows.fieldnames or ()):
                raise InputError(f"{table}: has no column molecule; name the class of each sample there.")
            said = [(row["molecule"], row.get("specimen")) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a readable table; save it as comma-separated text in UTF-8.") from error
    if len(said) != len(entries):
        raise InputError(f"{table}: {len(said)} rows for {len(entries)} volumes; give one row each.")
    nameless = [i for i, (name, _) in enumerate(said, start=1) if not (name or "").strip()]
    if nameless:
        raise InputError(f"{table}: row {nameless[0]} names no molecule; name the class of each sample there.")
    loose = [i for i, (_, group) in enumerate(said, start=1) if not (group or "").strip()]
    if 0 < len(loose) < len(said):
        raise InputError(
            f"{table}: row {loose[0]} names no specimen, but others do; name the specimen of each sample, or of none."
        )
    return [dataclasses.replace(entry, name=name, group=group) for entry, (name, group) in zip(entries, said, strict=True)]


def _files(folder: Path, patterns: list[str]) -> dict[Path, tuple[str, ...]]:
    """Return the files of a folder that match one of ``patterns``, except hidden ones, with the parts of their path."""
    found = {path: path.relative_to(folder).parts for pattern in patterns for path in sorted(folder.glob(pattern))}
    return {p: parts for p, parts in found.items() if not any(part.startswith(".") for part in parts) and not p.is_dir()}


def _is_mask(parts: tuple[str, ...]) -> bool:
    return "masks" in [part.lower() for part in parts[:-1]] or _stem(Path(parts[-1])).lower().endswith("_mask")


def _split(mrc: dict[Path, tuple[str, ...]]) -> tuple[dict[Path, tuple[str, ...]], dict[Path, tuple[str, ...]]]:
    """Separate MRC files into volumes and masks, each with the folders that name its class.

    A folder ``masks`` names no class, nor does ``volumes`` if it holds all volumes.
    """
    bare = {p: tuple(part for part in parts[:-1] if part.lower() != "masks") for p, parts in mrc.items()}
    masks = {path for path, parts in mrc.items() if _is_mask(parts)}
    if all(bare[path] and bare[path][0].lower() == "volumes" for path in mrc if path not in masks):
        bare = {p: parts[1:] if parts and parts[0].lower() == "volumes" else parts for p, parts in bare.items()}
    volumes = {path: parts for path, parts in bare.items() if path not in masks}
    return volumes, {path: bare[path] for path in bare if path in masks}


def _of_files(folder: Path) -> list[Entry]:
    orphans = [name for name in ("masks.mrcs", "samples.csv") if (folder / name).is_file()]
    if orphans:
        lost = f"holds no {LAST} to go with {' and '.join(orphans)}"
        raise InputError(f"{folder}: {lost}; put it back, or rename the stack of volumes to that.")
    files = _files(folder, ["/".join("*" * depth) for depth in range(1, 7)])  # two levels more than any layout has
    unread = [path for path in files if path.suffix.lower() in EXPORT]
    if unread:
        first = "" if len(unread) == 1 else f"the first of {len(unread)} files that cannot be read: "
        raise InputError(f"{unread[0]}: {first}{EXPORT[unread[0].suffix.lower()]}.")
    volumes, masks = _split({path: parts for path, parts in files.items() if _stem(path)})
    named = {(*parts, _stem(path)) for path, parts in volumes.items()}
    companions = [path for path, parts in volumes.items() if _is_companion(_stem(path), parts, named)]
    volumes = {path: parts for path, parts in volumes.items() if path not in companions}
    _tell(folder, companions, [path for path in files if not _stem(path)])
    if not volumes:
        raise InputError(f"{folder}: holds no {LAST}, and no MRC files of subtomograms; give a folder that has some.")
    deep = [path for path, parts in volumes.items() if len(parts) > 1]
    if deep:
        where = f"lies too deep, the first of {len(deep)} such MRC files" if len(deep) > 1 else "lies too deep"
        raise InputError(f"{deep[0]}: {where}; put each into the folder you name, or into a sub-folder for its class.")
    if len({len(parts) for parts in volumes.values()}) > 1:
        raise InputError(f"{folder}: has MRC files both in it and in sub-folders; put each into the sub-folder of its class.")
    mask_of = _pair(volumes, masks)
    stray = sorted(masks.keys() - mask_of.values())
    if stray:
        raise InputError(f"{stray[0]}: is a mask without a volume; give it the name of its volume or remove it.")
    entries = [_expand(path, parts[0] if parts else "unknown", mask_of.get(path)) for path, parts in volumes.items()]
    return [entry for of_file in entries for entry in of_file]


def _stem(path: Path) -> str:
    """Return the name of an MRC file without its extension, or an empty string for any other file."""
    match = MRC.fullmatch(path.name)
    return match[1] if match else ""


def _is_companion(stem: str, parts: tuple[str, ...], named: set[tuple[str, ...]]) -> bool:
    """Whether a volume's name marks it as a half map, or as belonging to another volume of its folder or to all of them."""
    mark = COMPANION.search(stem)
    if mark is None or "half" in mark[0].lower():
        return mark is not None
    before, after = stem[: mark.start()], stem[mark.end() :]
    return not before + after or any((*parts, owner) in named for owner in (before + after, f"{before}_data{after}"))


def _tell(folder: Path, companions: list[Path], others: list[Path]) -> None:
    """Warn about the files of a folder that are left out."""
    kinds = Counter(path.suffix or path.name for path in others)
    if companions:
        kinds[f"CTF, weight or half-map volumes such as {companions[0].name}"] = len(companions)
    if kinds:
        said = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        print(f"warning: {folder}: left out {said}.", file=sys.stderr)


def _pair(volumes: dict[Path, tuple[str, ...]], masks: dict[Path, tuple[str, ...]]) -> dict[Path, Path]:
    """Return the mask of each volume that has one, with the same folders and stem, or else with that stem in no folder."""
    named: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path, parts in masks.items():
        named[*parts, re.sub("_mask$", "", _stem(path), flags=re.I)].append(path)
    found: dict[Path, Path] = {}
    for path, parts in volumes.items():
        candidates = named.get((*parts, _stem(path))) or named.get((_stem(path),), [])
        if candidates:
            found[path] = min(candidates, key=lambda mask: mask.suffix != path.suffix)
    for mask, times in Counter(found.values()).items():
        if times > 1:
            first, second, *_ = (path for path in found if found[path] == mask)
            raise InputError(f"{mask}: could be the mask of {first} and of {second}; give each its own, in its sub-folder.")
    return found


def _of_star(star: Path) -> list[Entry]:
    blocks = read_star(star)
    particles = next((table for table in blocks.values() if "rlnImageName" in table), {})
    names = particles.get("rlnImageName", [])
    if not names:
        raise InputError(f"{star}: names no images in a column rlnImageName; give the star file of extracted subtomograms.")
    # RELION's paths are relative to its project folder: above the star file, above its link target, or the current folder.
    folders = [*dict.fromkeys([*star.absolute().parents, *star.resolve().parents, Path.cwd()])]
    located = [_locate(name, folders) for name in names]
    missing = [name for name, (file, _) in zip(names, located, strict=True) if file is None]
    if missing and re.match(r"(?!\d+@)[^/]*@", missing[0]):
        raise InputError(f"{star}: rlnImageName holds {shown(missing[0])}; the part before the @ must be a whole number.")
    if missing:
        raise InputError(
            f"{star}: names {len(missing)} volumes that do not exist, first {shown(missing[0])}; paths are relative to the "
            "folder of the star file or any folder above it, nearest first, or to the current folder."
        )
    says_images = any("1" in table.get("rlnTomoSubTomosAre2DStacks", []) for table in blocks.values())
    sizes = _voxel_sizes(star, particles, blocks.get("optics", {}))
    classes = particles.get("rlnClassNumber")
    tomograms = particles.get("rlnTomoName") or particles.get("rlnMicrographName") or []
    several = len(set(tomograms)) > 1  # one cannot be split
    mask_of = _masks_beside({file for file, _ in located if file is not None})
    entries: list[Entry] = []
    row_of: dict[tuple[Path, int | None], int] = {}
    for i, (file, place) in enumerate(located):
        assert file is not None
        if file.suffix.lower() in EXPORT:
            raise InputError(f"{file}: {EXPORT[file.suffix.lower()]}.")
        kind = f"class {number(star, 'rlnClassNumber', classes[i]):.0f}" if classes else "unknown"
        for entry in _expand(file, kind, mask_of.get(file), place, sizes[i], says_images=says_images):
            row = row_of.setdefault((file.resolve(), entry.index), i)
            if row != i:  # one copy might be trained on and the other tested on
                twice = f"row {i + 1} names {shown(names[i])}, which row {row + 1} names already"
                raise InputError(f"{star}: {twice}; name each volume once.")
            entries.append(dataclasses.replace(entry, group=tomograms[i]) if several else entry)
    return entries


def _locate(name: str, folders: list[Path]) -> tuple[Path | None, int | None]:
    """Return the file that a row names, if it exists, and the index in it; a format suffix as in ``a.mrc:mrc`` is dropped."""
    count, _, stacked = name.partition("@")
    place, path = (int(count) - 1, stacked) if stacked and count.isdecimal() else (None, name)
    spellings = (path, re.sub(r":\w+$", "", path).replace("\\", "/"))
    paths = (folder / spelled for spelled in spellings for folder in folders)
    return next((path for path in paths if os.path.isfile(path)), None), place


def _masks_beside(files: set[Path]) -> dict[Path, Path]:
    masks: dict[Path, tuple[str, ...]] = {}
    for folder in {file.parent for file in files}:
        found = _files(folder, ["*", "[Mm][Aa][Ss][Kk][Ss]/*"])
        masks |= {path: folder.parts for path, parts in found.items() if _stem(path) and _is_mask(parts)}
    return _pair({file: file.parent.parts for file in files}, masks)


def _voxel_sizes(star: Path, particles: dict[str, list[str]], optics: dict[str, list[str]]) -> list[float]:
    """Return each particle's voxel size in angstrom, from its row or its optics group; 0 means the header's applies."""
    row_of = {group: row for row, group in enumerate(optics.get("rlnOpticsGroup", []))}
    count = len(particles["rlnImageName"])
    groups = particles.get("rlnOpticsGroup", [*row_of] * count if len(row_of) == 1 else [])
    if row_of and (unknown := [group for group in groups if group not in row_of]):
        raise InputError(f"{star}: data_optics does not describe optics group {shown(unknown[0])}; add its pixel size.")
    if row_of and groups:
        particles = {column: [values[row_of[group]] for group in groups] for column, values in optics.items()} | particles
    columns = next((columns for columns in PIXEL_SIZES if all(column in particles for column in columns)), ())
    rows = [[number(star, column, particles[column][i], least=0) for column in columns] for i in range(count)]
    if "rlnMagnification" in columns:  # detector pixels are in micrometres
        return [1e4 * pixel / magnification if magnification else 0.0 for pixel, magnification in rows]
    return [math.prod(values) if values else 0.0 for values in rows]
