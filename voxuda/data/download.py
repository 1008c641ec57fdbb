"""Some files of one commit of a public git repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from voxuda.errors import InputError


def checkout(url: str, commit: str, paths: list[str], folder: str | Path) -> None:
    """Download some files or folders of a commit into a folder, which is made and holds nothing else.

    Parameters
    ----------
    url : str
        The repository.
    commit : str
        All 40 digits. Git names a commit by a hash of all its files, so what arrives under this name is what was published.
    paths : list of str
        In the repository; they keep their place.
    folder : path
        Made new.

    Raises
    ------
    InputError
        git is missing, or the repository, the commit or a path of it cannot be had.
    """
    folder = Path(folder)
    folder.mkdir()
    try:
        _git(folder, "init", "--quiet")
        # Only the commit's list of files comes with the fetch, their contents with the checkout.
        for key, value in {"url": url, "promisor": "true", "partialclonefilter": "blob:none"}.items():
            _git(folder, "config", f"remote.origin.{key}", value)
        _git(folder, "fetch", "--quiet", "--depth", "1", "origin", commit)
        _git(folder, "checkout", "--quiet", commit, "--", *paths)
    except subprocess.SubprocessError as error:
        raise InputError(
            f"{url}: commit {commit[:7]} could not be downloaded; check the network and the space on the disk."
        ) from error
    shutil.rmtree(folder / ".git")


def _git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "core.autocrlf=false", *arguments]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=600)
    except FileNotFoundError as error:
        raise InputError("git: no such program; install git, which the download needs.") from error


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def check_published(name: str, checksum: str, published: str) -> None:
    """Refuse a file that is not the one whose checksum is known.

    Raises
    ------
    InputError
        The two checksums differ.
    """
    if checksum != published:
        raise InputError(f"{name}: its SHA-256 is not the one published; try again over a network you trust.")
