"""Find, open and check the volumes to segment, given as files, folders or patterns."""

from __future__ import annotations

import dataclasses
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voxuda.data.files import LAST
from voxuda.data.listing import EXPORT, MRC
from voxuda.data.mrc import COMPRESSED, Volume, check_volume, read_mrc
from voxuda.data.sections import HEADER
from voxuda.data.subtomograms import check_side
from voxuda.errors import InputError

LABEL = "voxuda segment "
"""Start of the header line in every file that ``voxuda segment`` writes."""


def find_files(names: Sequence[str | Path]) -> list[Path]:
    """List the files that names, folders and patterns stand for, each once; prints to stderr which files are left out."""
    if not names:
        raise InputError("no file was given; name at least one MRC volume, or a folder of them.")
    found: list[Path] = []
    for name in map(Path, names):
        if name.is_dir():
            inside = sorted(path for path in name.iterdir() if not path.is_dir() and not path.name.startswith("."))
            # A folder of samples holds their masks too, so only its volumes are taken.
            taken = [path for path in inside if path.name == LAST] or [path for path in inside if MRC.fullmatch(path.name)]
            taken = [path for path in taken if not is_output(path)]
            if not taken and (name / "config.json").is_file():
                raise InputError(f"{name}: is a run, not a volume; give it as --model {name}.")
            if not taken:
                raise InputError(f"{name}: holds no MRC volume (.mrc, .map, .rec, .mrcs); give the folder that does.")
        elif not name.exists() and (inside := matches(name)):
            taken = [path for path in inside if not path.is_dir() and not is_output(path)]
            if not taken:
                raise InputError(f"{name}: matches only masks or folders; give a pattern of MRC volumes.")
        else:
            inside = taken = [name]
        others = [path.name for path in inside if path not in taken]
        if name.is_dir():
            others += [f"folder {path.name}" for path in sorted(name.iterdir()) if path.is_dir() and _has_volume(path)]
        if others:
            print(
                f"{name}: {len(taken)} {'volume is' if len(taken) == 1 else 'volumes are'} read; left out: {', '.join(others)}",
                file=sys.stderr,
            )
        found += taken
    own = [str(path) for path in found if is_own(path)]
    if len(own) == len(found):
        raise InputError(f"{own[0]}: was written by `voxuda segment`; give the volume that it was made from.")
    if own:
        print(f"left out, since `voxuda segment` wrote them: {', '.join(own)}", file=sys.stderr)
    once: dict[str, Path] = {}
    for path in found:
        if str(path) not in own:
            once.setdefault(os.path.abspath(path), path)
    return list(once.values())


def _has_volume(folder: Path) -> bool:
    """Return whether a folder in sight holds an MRC volume."""
    hidden = folder.name.startswith(".")
    # Unlike iterdir, glob finds nothing in a folder that may not be read, such as lost+found.
    return not hidden and any(MRC.fullmatch(path.name) and not is_output(path) for path in folder.glob("*"))


def matches(pattern: Path) -> list[Path]:
    """List the paths that match a pattern, sorted; its folder may have brackets in its name."""
    found = glob.glob(str(pattern)) or glob.glob(os.path.join(glob.escape(str(pattern.parent)), pattern.name))
    return sorted(map(Path, found))


def plain(path: Path) -> Path:
    """Return a path without its compression suffix."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


def is_output(path: Path) -> bool:
    """Return whether a file is named like an output of ``voxuda segment``."""
    return plain(path).stem.endswith(("_mask", "_probabilities", "_uncertainty", "_instances"))


def is_own(path: Path) -> bool:
    """Return whether ``voxuda segment`` wrote a file; ``*.mrc`` matches such files if masks lie beside their volumes."""
    if not is_output(path) or not path.is_file():
        return False
    with open(path, "rb") as file:
        return LABEL.encode() in file.read(HEADER)


def name_masks(paths: list[Path]) -> dict[str, Volume]:
    """Open the volumes, and return them by the names of their masks."""
    volumes: dict[str, Volume] = {}
    stems: dict[str, Path] = {}
    for path in paths:
        stem, suffix = plain(path).stem, plain(path).suffix
        other = stems.setdefault(stem, path)
        if other != path:
            twice = f"{stem}_mask{suffix if plain(other).suffix == suffix else '.png'} would be written twice"
            raise InputError(f"{path}: {twice}, as {other} has the same name; segment it with another --out.")
        volumes[f"{stem}_mask{suffix}"] = read(path)
    return volumes


def is_tomogram(volume: Volume) -> bool:
    """Return whether a volume must be tiled; true unless it is a stack or the network takes it in one piece."""
    return volume.data.ndim == 3 and not is_whole(volume.data.shape)


def is_whole(shape: tuple[int, ...]) -> bool:
    """Return whether the network takes a shape ``(D, H, W)`` in one piece."""
    return all(side % 8 == 0 and 16 <= side <= 64 for side in shape)


def read(path: Path) -> Volume:
    """Open a tomogram or subtomograms, and check the latter; only the data's shape is kept, since there may be many files."""
    suffix = path.suffix.lower()
    if suffix == ".star" and path.is_file():
        raise InputError(f"{path}: is a star file; convert it with `voxuda data convert` and give the volumes.mrcs it makes.")
    if suffix in (".hdf", ".em") and path.is_file():
        raise InputError(f"{path}: {EXPORT[suffix]}.")
    volume = read_mrc(path, memory_map=suffix not in COMPRESSED)
    volume.check_is_volume()
    if not is_tomogram(volume):
        check_side(volume.data.shape, path)
        volume = read_mrc(path)
    if not is_tomogram(volume) or suffix in COMPRESSED:
        for part in volume.data.reshape(-1, *volume.data.shape[-3:]):
            check_volume(part, str(path))
    return dataclasses.replace(volume, data=np.broadcast_to(np.float32(0), volume.data.shape))
