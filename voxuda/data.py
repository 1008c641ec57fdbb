"""The two domains on disk and in memory: labelled source, unlabelled target, splits."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from voxuda.simulate import Subtomograms
from voxuda.volumes import InputError, check_volume, read_mrc, write_mrc, zscore


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
        first: list[int] = []
        for name in sorted(set(self.classes)):
            members = [i for i in order if self.classes[i] == name]
            first += members[: max(1, round(share * len(members)))]
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
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"{path}: the folder is not empty; choose another or empty it.")
    nearest = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise InputError(f"{path}: {nearest} is a file; give a folder for the output.")
    if not os.access(nearest, os.W_OK):
        raise InputError(f"{path}: {nearest} cannot be written; choose a writable folder.")
    return path


def new_folder(path: str | Path) -> Path:
    """Make a new output folder, see :func:`check_new_folder`."""
    path = check_new_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); choose a writable folder.") from error
    return path


def save(samples: Subtomograms, out: str | Path) -> Path:
    """Write ``volumes.mrcs``, ``masks.mrcs``, ``densities.mrcs`` and ``samples.csv`` into a new folder, all or none.

    Raises
    ------
    InputError
        The folder holds something, or cannot be written.
    """
    out = check_new_folder(out)
    work = out.absolute().with_name(f".{out.absolute().name}.part")
    try:
        shutil.rmtree(work, ignore_errors=True)  # left by a run that was killed
        work.mkdir(parents=True)
        stacks = {"volumes": samples.volumes, "masks": samples.masks, "densities": samples.densities}
        for name, stack in stacks.items():
            write_mrc(work / f"{name}.mrcs", stack[:, 0], samples.voxel_size)
        with open(work / "samples.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["index", *samples.table[0]])
            writer.writeheader()
            writer.writerows({"index": i, **row} for i, row in enumerate(samples.table))
        os.replace(work, out)  # an empty folder gives way
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); free some space or choose another.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


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
    masks = None
    if (folder / "masks.mrcs").is_file():
        masks = torch.from_numpy(read_mrc(folder / "masks.mrcs").data).reshape(-1, 1, *stack.shape[1:]) > 0.5
        if len(masks) != len(stack):
            raise InputError(f"{folder}: {len(masks)} masks for {len(stack)} volumes; give one mask a volume.")
    classes = ["unknown"] * len(stack)
    if (folder / "samples.csv").is_file():
        with open(folder / "samples.csv", newline="") as file:
            classes = [row["molecule"] for row in csv.DictReader(file)]
        if len(classes) != len(stack):
            raise InputError(f"{folder / 'samples.csv'}: {len(classes)} rows for {len(stack)} volumes; give one row each.")
    return Domain(zscore(stack[:, None]), masks, classes)


def check_side(stack: torch.Tensor | np.ndarray, path: str | Path) -> None:
    """Refuse ``(..., D, H, W)`` whose sides the network cannot halve three times."""
    if any(side % 8 or side < 16 for side in stack.shape[-3:]):
        raise InputError(f"{path}: sides {tuple(stack.shape[-3:])} must be multiples of 8 and at least 16; pad or crop.")
