"""Download some files of one commit of a public git repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from voxuda.errors import InputError


def checkout(url: str, commit: str, paths: list[str], folder: str | Path) -> None:
    """Download some files or folders of a commit into a new folder.

    Parameters
    ----------
    url : str
        URL of the repository.
    commit : str
        Full hash, 40 digits. It covers the contents of all files, so the files are those that were published.
    paths : list of str
        Paths in the repository; they stay the same below ``folder``.
    folder : path
        Folder to create; it must not exist.

    Raises
    ------
    InputError
        git is missing, or the repository, the commit or one of its paths is not available.
    """
    folder = Path(folder)
    folder.mkdir()
    try:
        _git(folder, "init", "--quiet")
        # The fetch gets only the commit's list of files; the checkout gets their contents.
        for key, value in {"url": url, "promisor": "true", "partialclonefilter": "blob:none"}.items():
            _git(folder, "config", f"remote.origin.{key}", value)
        _git(folder, "fetch", "--quiet", "--depth", "1", "origin", commit)
        _git(folder, "checkout", "--quiet", commit, "--", *paths)
    except subprocess.SubprocessError as error:
        raise InputError(
            f"{url}: commit {commit[:7]} could not be downloaded; check the network and the free disk space."
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
    """Return the SHA-256 of a file in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def check_published(name: str, checksum: str, published: str) -> None:
    """Refuse a file whose checksum is not the published one.

    Raises
    ------
    InputError
        The two checksums differ.
    """
    if checksum != published:
        raise InputError(f"{name}: its SHA-256 is not the one published; try again over a network you trust.")
