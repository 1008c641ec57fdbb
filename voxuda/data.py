"""The two domains on disk and in memory: labelled source, unlabelled target, splits."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from voxuda.simulate import Subtomograms
from voxuda.volumes import InputError, check_volume, read_mrc, write_mrc, zscore

PART = ".part"
"""Where a folder's files are written before they appear in it."""


@dataclass
class Domain:
    """Samples of one domain.

    Parameters
    ----------
    volumes : Tensor
        ``(N, 1, D, H, W)`` float32, each with mean 0 and variance 1.
    masks : Tensor or None
        ``(N, 1, D, H, W)`` bool.
    classes : list of str
        Class of each sample, for scores by class.
    """

    volumes: torch.Tensor
    masks: torch.Tensor | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.volumes)

    def subset(self, index: torch.Tensor) -> Domain:
        """The samples at ``index``, a ``(K,)`` tensor of integers."""
        masks = None if self.masks is None else self.masks[index]
        return Domain(self.volumes[index], masks, [self.classes[i] for i in index.tolist()])

    def to(self, device: torch.device) -> Domain:
        """The same samples on another device."""
        return Domain(self.volumes.to(device), None if self.masks is None else self.masks.to(device), self.classes)

    def split(self, share: float, seed: int) -> tuple[Domain, Domain]:
        """Two parts, the first with ``share`` of every class, drawn by ``seed``."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator).tolist()
        sizes = {name: self.classes.count(name) for name in set(self.classes)}
        groups: dict[str, list[int]] = {}
        for i in order:  # classes of one sample are split together, so that neither part takes all
            groups.setdefault(self.classes[i] if sizes[self.classes[i]] > 1 else "", []).append(i)
        first: list[int] = []
        for members in groups.values():
            first += members[: min(max(1, round(share * len(members))), max(1, len(members) - 1))]
        second = sorted(set(order) - set(first))
        return self.subset(torch.tensor(sorted(first))), self.subset(torch.tensor(second, dtype=torch.long))


def from_simulation(samples: Subtomograms) -> Domain:
    """A domain of simulated samples, normalised, classes named by molecule."""
    return Domain(zscore(samples.volumes), samples.masks, [row["molecule"] for row in samples.table])


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


def save(samples: Subtomograms, out: str | Path) -> Path:
    """Write ``volumes.mrcs``, ``masks.mrcs``, ``densities.mrcs`` and ``samples.csv`` into a new folder, all or none.

    Raises
    ------
    InputError
        The folder holds something, or cannot be written.
    """
    with new_folder(out) as work:
        stacks = {"volumes": samples.volumes, "masks": samples.masks, "densities": samples.densities}
        for name, stack in stacks.items():
            write_mrc(work / f"{name}.mrcs", stack[:, 0], samples.voxel_size)
        with open(work / "samples.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["index", *samples.table[0]])
            writer.writeheader()
            writer.writerows({"index": i, **row} for i, row in enumerate(samples.table))
    return Path(out)


def load(folder: str | Path) -> Domain:
    """Read a folder written by :func:`save`; ``masks.mrcs`` and ``samples.csv`` may be missing.

    Raises
    ------
    InputError
        The folder is missing or empty, a file is unreadable, counts disagree, or a volume is constant or not a cube.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; make one with `voxuda simulate`.")
    if not (folder / "volumes.mrcs").is_file():
        raise InputError(f"{folder}: holds no volumes.mrcs; make one with `voxuda simulate`.")
    stack = torch.from_numpy(read_mrc(folder / "volumes.mrcs").data)
    stack = stack[None] if stack.ndim == 3 else stack
    for i, volume in enumerate(stack):
        check_volume(volume, f"{folder / 'volumes.mrcs'} volume {i}")
    check_side(stack, folder / "volumes.mrcs")
    if len(set(stack.shape[-3:])) > 1:
        raise InputError(f"{folder / 'volumes.mrcs'}: sides {tuple(stack.shape[-3:])} differ; training needs cubes.")
    masks = None
    if (folder / "masks.mrcs").is_file():
        masks = torch.from_numpy(read_mrc(folder / "masks.mrcs").data)
        masks = (masks[None] if masks.ndim == 3 else masks) > 0.5
        if masks.shape != stack.shape:
            raise InputError(
                f"{folder / 'masks.mrcs'}: masks {tuple(masks.shape)} for volumes {tuple(stack.shape)}; give one mask a volume."
            )
        masks = masks[:, None]
    classes = ["unknown"] * len(stack)
    if (folder / "samples.csv").is_file():
        with open(folder / "samples.csv", newline="") as file:
            rows = csv.DictReader(file)
            if "molecule" not in (rows.fieldnames or ()):
                raise InputError(f"{folder / 'samples.csv'}: has no column molecule; name the class of each sample there.")
            classes = [row["molecule"] for row in rows]
        if len(classes) != len(stack):
            raise InputError(f"{folder / 'samples.csv'}: {len(classes)} rows for {len(stack)} volumes; give one row each.")
    return Domain(zscore(stack[:, None]), masks, classes)


def check_side(stack: torch.Tensor | np.ndarray, path: str | Path) -> None:
    """Refuse ``(..., D, H, W)`` whose sides the network cannot halve three times."""
    if any(side % 8 or side < 16 for side in stack.shape[-3:]):
        raise InputError(f"{path}: sides {tuple(stack.shape[-3:])} must be multiples of 8 and at least 16; pad or crop.")
