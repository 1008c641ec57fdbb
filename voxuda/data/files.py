"""Files and folders that appear whole or not at all, and folders that one job at a time writes into."""

from __future__ import annotations

import errno
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
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

    Every call has a temporary file of its own beside ``path``, which :func:`locked` removes where a killed process left it.

    Raises
    ------
    InputError
        The disk is full or the folder cannot be written; what stood at ``path`` is kept.
    """
    path = Path(path)
    temporary = path.with_name(TEMPORARY.format(path.name, secrets.token_hex(4)))
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
    if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        return InputError(f"{path}: cannot be locked against other jobs ({reason}); choose a folder on another file system.")
    remedy = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose a writable folder"
    return InputError(f"{path}: cannot be written ({reason}); {remedy}.")


PART = ".part"
"""Where a folder's files are written before they appear in it."""


TEMPORARY = "{}.voxuda-{}.part"
"""A file that is not finished yet, by its name and eight characters."""


LOCK = ".voxuda.lock"
"""The file in a folder that is locked as long as a job writes there, and names the job."""


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
        if path.is_dir() and {*path.iterdir()} - {path / LOCK, path / PART, *path.glob(TEMPORARY.format("*", "?" * 8))}:
            raise InputError(f"{path}: the folder is not empty; choose another or empty it.")
    return path


def remove_debris(folder: Path) -> None:
    """Remove what killed jobs left half-written in a folder that this job holds."""
    for file in folder.glob(TEMPORARY.format("*", "?" * 8)):
        file.unlink()
    if {*folder.iterdir()} <= {folder / LOCK, folder / PART}:  # else some of its files are renamed, and it tells of the others
        shutil.rmtree(folder / PART, ignore_errors=True)


@contextmanager
def locked(folder: str | Path, name: str = LOCK) -> Iterator[None]:
    """Hold an output folder for one job, which may call this again inside; make it if it is missing.

    A thread or process that the job starts is another job. The kernel frees the lock when the job ends, in whatever way. What
    killed jobs left half-written is removed, and at the end the locked file ``name``, and the folder if it was made here and is
    empty. Jobs that give other names share the folder. ``InputError`` where another job holds it, it cannot be written, or its
    file system has no locks.
    """
    from filelock import FileLock, Timeout  # slow to import

    path = Path(folder).resolve() / name
    lock = FileLock(path, is_singleton=True, fallback_to_soft=False)
    if lock.is_locked:  # by this thread
        yield
        return
    for _ in range(100):  # for the job that made the folder, or the lock's file, may be removing it
        try:
            made = [p for p in path.parents if not p.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
            mine = path.stat()
            break
        except Timeout as error:
            with suppress(FileNotFoundError):
                by = path.read_text(errors="replace") or "its process is not known yet"
                said = f"{folder}: another job is writing here ({by}); wait for it, or choose another folder."
                raise InputError(said) from error
        except OSError as error:
            lock.release()
            if not isinstance(error, FileNotFoundError | FileExistsError):
                check_folder(folder)  # which may know why
                raise _unwritable(folder, error) from error
    else:
        raise InputError(f"{check_folder(folder)}: cannot be written; choose a writable folder.")
    try:
        with suppress(OSError):  # the disk may be full
            path.write_text(f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M}")
        if name == LOCK:
            remove_debris(path.parent)
        yield
    finally:
        if lock.is_locked:  # not so in a forked process
            with suppress(OSError):
                # While it is held: whoever has opened it meanwhile finds that it has no name any more, and tries again.
                if os.path.samestat(mine, path.stat()):
                    path.unlink()
            lock.release()
            with suppress(OSError):
                for parent in made:
                    parent.rmdir()


@contextmanager
def _reachable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be reached ({error.strerror}); choose a writable folder.") from error


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write into, whose files appear in ``path`` together at the end.

    They are written into a folder of this call in ``.part`` and renamed in alphabetical order, but ``volumes.mrcs`` last. After
    an error or Ctrl-C, at whatever point, ``path`` is as it was before. A process that is killed leaves ``.part``; as long as
    that is there :func:`voxuda.data.listing.list_entries` refuses ``path``, even if some files were renamed already.

    Raises
    ------
    InputError
        See :func:`locked` and :func:`check_new_folder`; or the disk is full.
    """
    path = Path(path)
    moved: list[Path] = []
    done = False
    with locked(path):
        work = check_new_folder(path) / PART / secrets.token_hex(4)
        try:
            work.mkdir(parents=True)
            yield work
            for item in sorted(work.iterdir(), key=lambda p: (p.name == LAST, p.name)):
                moved.append(path / item.name)
                os.replace(item, moved[-1])
            done = True
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            for item in [] if done else moved:
                if item.is_dir():
                    shutil.rmtree(item, ignore_errors=True)
                else:
                    item.unlink(missing_ok=True)
            shutil.rmtree(path / PART, ignore_errors=True)
