"""Write files and folders atomically, and lock folders so that one job at a time writes into them."""

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
    """Refuse a file that cannot be written or must not be replaced; call this before long computations.

    Parameters
    ----------
    path : path
        Where the file will be written.
    overwrite : bool
        Whether an existing file may be replaced.
    makes_folder : bool
        Whether the caller will create a missing folder; if not, a missing folder is refused.

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
        raise InputError(f"{nearest}: cannot be the folder of {path.name} because it is a file; choose a writable folder.")
    if not makes_folder and nearest != folder:
        raise InputError(f"{path}: cannot be written because the folder {path.parent} does not exist; create it first.")
    if not os.access(nearest, os.W_OK):
        raise InputError(f"{path}: cannot be written into {nearest}; choose a writable folder.")


def write_atomically(write: Callable[[Path], object], path: str | Path) -> None:
    """Write a file atomically, by calling ``write(temporary)``, flushing it to disk and renaming it to ``path``.

    Every call uses its own temporary file beside ``path``; :func:`locked` removes those that killed processes leave.

    Raises
    ------
    InputError
        The disk is full or the folder cannot be written; an existing file at ``path`` is kept.
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
    """Append a line to a text file.

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
"""Sub-folder in which files are written before they are moved into the output folder."""


TEMPORARY = "{}.voxuda-{}.part"
"""Name of an unfinished file, from its final name and eight random characters."""


LOCK = ".voxuda.lock"
"""File in an output folder that is locked while a job writes there; its text names the job."""


LAST = "volumes.mrcs"
"""File that marks a folder as complete, so it is moved in last."""


def check_folder(path: str | Path) -> Path:
    """Check that ``path`` is a writable folder or can be created as one; nothing is created.

    Raises
    ------
    InputError
        The path is a file, or cannot be written.
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
    """Check that ``path`` can become a new output folder, absent or empty and writable; nothing is created.

    Raises
    ------
    InputError
        The path is a file, is a folder that is not empty, or cannot be written.
    """
    path = check_folder(path)
    with _reachable(path):
        if path.is_dir() and {*path.iterdir()} - {path / LOCK, path / PART, *path.glob(TEMPORARY.format("*", "?" * 8))}:
            raise InputError(f"{path}: the folder is not empty; choose another or empty it.")
    return path


def remove_debris(folder: Path) -> None:
    """Remove unfinished files that killed jobs left in a folder that this job has locked."""
    for file in folder.glob(TEMPORARY.format("*", "?" * 8)):
        file.unlink()
    if {*folder.iterdir()} <= {folder / LOCK, folder / PART}:  # else some files are renamed, and .part marks the rest
        shutil.rmtree(folder / PART, ignore_errors=True)


@contextmanager
def locked(folder: str | Path, name: str = LOCK) -> Iterator[None]:
    """Lock an output folder for one job, which may nest calls; create the folder if it is missing.

    A thread or process that the job starts counts as another job. The kernel releases the lock however the job ends.
    Unfinished files of killed jobs are removed first. At the end the lock file ``name`` is removed, and so is the folder if it
    was created here and is empty. Jobs that lock different names share the folder. Raises ``InputError`` if another job holds
    the lock, the folder cannot be written, or its file system has no locks.
    """
    from filelock import FileLock, Timeout  # slow to import

    path = Path(folder).resolve() / name
    lock = FileLock(path, is_singleton=True, fallback_to_soft=False)
    if lock.is_locked:  # by this thread
        yield
        return
    for _ in range(100):  # retry, since the job that created the folder or the lock file may be removing it
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
                check_folder(folder)  # which may raise a more specific error
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
        if lock.is_locked:  # false in a forked process
            with suppress(OSError):
                # Remove it while it is locked. A job that opened it meanwhile finds it deleted and retries.
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
    """Create a working folder whose files are moved into ``path`` together at the end.

    Each call writes into its own folder in ``.part``, then renames the files in alphabetical order, ``volumes.mrcs`` last. An
    error or Ctrl-C at any point leaves ``path`` as it was before. A killed process leaves ``.part``, and while that exists
    :func:`voxuda.data.listing.list_entries` refuses ``path``, even if some files were already renamed.

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
