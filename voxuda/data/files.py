"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from voxuda.errors import InputError


def check_new_file(path: str | Path, *, overwrite: bool, makes_folder: bool = True) -> None:
    """Refuse a file that cannot be written or must not be replaced; call it before long work, so that none is lost.

    Parameters
    ----------
    path : path
        Where the file will be written.
    overwrite : bool
        Whether a file there may be replaced.
    makes_folder : bool
        Whether the caller will make a folder that is missing; otherwise that is refused, too.

    Raises
    ------
    InputError
        The file exists and ``overwrite`` is off, or its folder is missing or cannot be written.
    """
    path = Path(path)
    with _reachable(path):
        if path.exists() and not overwrite:
            raise InputError(f"{path}: the file exists; choose another name or pass --overwrite.")
        folder = path.absolute().parent
        nearest = next(p for p in (folder, *folder.parents) if p.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest}: cannot be made the folder of {path.name}, for it is a file; choose a writable folder.")
    if not makes_folder and nearest != folder:
        raise InputError(f"{path}: cannot be written, for there is no folder {path.parent}; make it first.")
    if not os.access(nearest, os.W_OK):
        raise InputError(f"{path}: cannot be written into {nearest}; choose a writable folder.")


def write_atomically(write: Callable[[Path], object], path: str | Path) -> None:
    """Call ``write(temporary)``, flush the file to disk and rename it to ``path``: whole or not at all.

    Raises
    ------
    InputError
        The disk is full or the folder cannot be written; what stood at ``path`` is kept.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def append_line(line: str, path: str | Path) -> None:
    """Add a line to a text file.

    Raises
    ------
    InputError
        The disk is full or the file cannot be written.
    """
    try:
        with open(path, "a") as file:
            file.write(line + "\n")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str | Path, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(f"{path}: cannot be written ({reason}); free some space or choose a writable folder.")


PART = ".part"
"""Where a folder's files are written before they appear in it."""


LAST = "volumes.mrcs"
"""The file that makes a folder readable, and so the last to appear in it."""


def check_folder(path: str | Path) -> Path:
    """Check, without making anything, that files can be written into ``path``: a folder, or absent below one.

    Raises
    ------
    InputError
        It is a file, or cannot be written.
    """
    path = Path(path)
    with _reachable(path):
        nearest = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise InputError(f"{path}: {nearest} is a file; give a folder for the output.")
    if not os.access(nearest, os.W_OK):
        raise InputError(f"{path}: {nearest} cannot be written; choose a writable folder.")
    return path


def check_new_folder(path: str | Path) -> Path:
    """Check, without making anything, that ``path`` may become a new output folder: absent or empty, its parent writable.

    Raises
    ------
    InputError
        It is a file, holds something, or cannot be written.
    """
    path = check_folder(path)
    with _reachable(path):
        # What a process that was killed leaves of a folder of samples, and of a run before its configuration.
        if path.is_dir() and any(item.name not in (PART, f"config.json{PART}") for item in path.iterdir()):
            raise InputError(f"{path}: the folder is not empty; choose another or empty it.")
    return path


@contextmanager
def _reachable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be reached ({error.strerror}); choose a writable folder.") from error


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write into, whose files appear in ``path`` together at the end.

    They are written into a folder ``.part`` in it and renamed in alphabetical order, but ``volumes.mrcs`` last. After an error
    or Ctrl-C, at whatever point, ``path`` is as it was before. A process that is killed leaves ``.part``; as long as that is
    there :func:`voxuda.data.listing.list_entries` refuses the folder, even if some files were renamed already.

    Raises
    ------
    InputError
        See :func:`check_new_folder`; or the disk is full.
    """
    path = check_new_folder(path)
    existed = path.exists()
    work = path / PART
    moved: list[Path] = []
    done = False
    try:
        shutil.rmtree(work, ignore_errors=True)  # left by a process that was killed
        work.mkdir(parents=True)
        yield work
        for item in sorted(work.iterdir(), key=lambda p: (p.name == LAST, p.name)):
            moved.append(path / item.name)
            os.replace(item, moved[-1])
        done = True
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free some space or choose another.") from error
    finally:
        for item in [] if done else moved:
            if item.is_dir():
                shutil.rmtree(item, ignore_errors=True)
            else:
                item.unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        if not done and not existed:
            shutil.rmtree(path, ignore_errors=True)
