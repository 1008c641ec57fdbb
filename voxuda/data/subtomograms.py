"""Read your own subtomograms, check them and bring them to one size."""

from __future__ import annotations

import csv
import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from voxuda.data.domain import Domain
from voxuda.data.files import new_folder
from voxuda.data.listing import Entry, list_entries
from voxuda.data.mrc import check_volume, read_mrc, write_mrc
from voxuda.errors import InputError
from voxuda.signal.normalise import zscore
from voxuda.signal.resize import fourier_resize

VOXEL_SIZES = (10.0, 15.0)
"""Range of voxel sizes in the models' training samples, in angstrom; tomograms with others are rescaled to the nearer end."""


class SubtomogramFolder:
    """Your own subtomograms, from a folder of MRC files or stacks, or from a RELION star file.

    For accepted layouts, and where masks and classes come from, see :func:`voxuda.data.listing.list_entries`. Every volume and
    its mask become a cube of ``size`` voxels by these rules:

    - A box whose sides differ is cropped around its centre to a cube of the smallest side. Padding would keep more context,
      but padding voxels hold no noise, and the method measures the noise.
    - Without ``voxel_size`` the cube is resampled to ``size`` voxels over the same box, as in the paper. All boxes must then
      be equal, in voxels and in angstrom, or the molecules would come out at different scales.
    - With ``voxel_size`` the cube is resampled to the number of voxels whose edge is closest to that, and cropped around the
      centre to ``size``. A box too small for that is refused, since padding would invent voxels.
    - The centre of n voxels is voxel n // 2, for odd and even n. Resampling and cropping keep it in place.
    - In a mask with two values the larger one is inside, whatever the two are: 0 and 1, 0 and 255, or the -128 and -127 of
      IMOD's bytes. In any other mask, such as a soft one or labels from 0, values above 0.5 are inside. The mask is resampled
      as numbers 0 and 1 and thresholded at 0.5 again.

    Parameters
    ----------
    source : path
        The folder or the star file.
    size : int, optional
        Side of a sample in voxels, a multiple of 8. None keeps the boxes unchanged, which must already be such cubes.
    voxel_size : float, optional
        Edge of a voxel in angstrom to resample to.
    invert : bool
        Multiply the volumes by -1, for data in which protein is dark; all methods here assume bright protein.
    true_voxel_size : float, optional
        True edge of a voxel of the files in angstrom, if neither their headers nor a star file give it.

    Raises
    ------
    InputError
        See :func:`voxuda.data.listing.list_entries`; or the boxes break a rule above. These errors come early, since all
        headers are read first. A volume that has NaN, is constant, has only two values like a mask, or has the symmetry of a
        spectrum is refused when it is read.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        size: int | None = 32,
        voxel_size: float | None = None,
        invert: bool = False,
        true_voxel_size: float | None = None,
    ) -> None:
        if size is not None and (size % 8 or size < 16):
            raise InputError(f"size is {size}; it must be a multiple of 8 and at least 16.")
        for length in (voxel_size, true_voxel_size):
            if length is not None and not 0 < length < math.inf:
                raise InputError(f"voxel_size is {length}; it must be a positive number of angstrom.")
        self.source = Path(source)
        self.size = size
        self.wanted = voxel_size
        self.invert = invert
        self.entries = list_entries(source)
        if true_voxel_size is not None:
            self.entries = [dataclasses.replace(entry, voxel_size=true_voxel_size) for entry in self.entries]
        elif any(math.isclose(entry.voxel_size, 1, abs_tol=1e-3) for entry in self.entries):
            what = "the voxel size is 1.00 Å, which many programs write when none is set; if it is wrong, pass"
            print(f"warning: {self.source}: {what} --true-voxel-size to `voxuda data convert`.", file=sys.stderr)
        for entry in self.entries:
            self._check_box(entry)

    def _check_box(self, entry: Entry) -> None:
        first = self.entries[0]
        if self.wanted is None:
            if not math.isclose(entry.voxel_size, first.voxel_size, rel_tol=1e-3):
                sizes = f"{_angstrom(entry.voxel_size)}, but in {first.label} {_angstrom(first.voxel_size)}"
                remedy = "correct the wrong header, or bring all to one size with `voxuda data convert --voxel-size`"
                raise InputError(f"{entry.path}: the voxel size is {sizes}; {remedy}.")
            if min(entry.shape) != min(first.shape):
                boxes = f"{entry.shape} differs from the box {first.shape} in {first.label}"
                raise InputError(f"{entry.path}: {boxes}; crop all to one box, or use `voxuda data convert --voxel-size`.")
            if self.size is None:
                check_side(entry.shape, entry.path)
                if len(set(entry.shape)) > 1:
                    raise InputError(
                        f"{entry.path}: sides {entry.shape} differ; training needs cubes, see `voxuda data convert`."
                    )
        elif not entry.voxel_size:
            raise InputError(f"{entry.path}: its voxel size is not known; give it with --true-voxel-size.")
        elif self.size is not None and self._resampled(entry) < self.size:
            fits = f"{self._resampled(entry)} voxels of {_angstrom(self.wanted)}, fewer than {self.size}"
            raise InputError(f"{entry.path}: the box {entry.shape} has {fits}; choose a smaller size or voxel size.")

    def _resampled(self, entry: Entry) -> int:
        """Side of the whole cube in voxels after resampling."""
        side = min(entry.shape)
        if self.wanted is None:
            return side if self.size is None else self.size
        length, wanted = side * entry.voxel_size, self.wanted
        fewer = max(1, math.floor(length / wanted))
        return min((fewer, fewer + 1), key=lambda n: abs(length / n - wanted))

    @property
    def voxel_size(self) -> float:
        """Edge of a voxel of the samples in angstrom, the mean if they differ by rounding, or 0 if unknown."""
        return float(np.mean([min(e.shape) * e.voxel_size / self._resampled(e) for e in self.entries]))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return sample ``i``, its volume ``(D, D, D)`` in the units of the file and its mask ``(D, D, D)`` bool or None."""
        entry = self.entries[i]
        box = _read(entry.path, entry.index)
        check_volume(box, entry.label)
        if ((box == box.min()) | (box == box.max())).all():
            raise InputError(f"{entry.label}: holds only two values and looks like a mask; name the folder of masks `masks`.")
        if _is_spectrum(box):
            raise InputError(
                f"{entry.label}: is symmetric through its centre, as CTF and weight volumes are; remove such files."
            )
        volume = self._resize(-box if self.invert else box, entry)
        if entry.mask is None:
            return volume, None
        mask = _read(entry.mask, entry.index)
        if not torch.isfinite(mask).all():
            raise InputError(f"{entry.mask}: some voxels are NaN or infinite; give masks of 1 inside and 0 outside.")
        return volume, self._resize(_inside(mask, entry.mask).float(), entry) > 0.5

    def _resize(self, box: torch.Tensor, entry: Entry) -> torch.Tensor:
        cube = _centre(box, min(entry.shape))
        side = self._resampled(entry)
        if side != len(cube):
            # Resizing keeps voxel 0 in place, so the centre is rolled there and back.
            cube = torch.fft.fftshift(fourier_resize(torch.fft.ifftshift(cube), (side, side, side)))
        return _centre(cube, side if self.size is None else self.size)

    def stack(self, *, progress: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return all volumes ``(N, 1, D, D, D)``, in the units of the files, and masks ``(N, 1, D, D, D)`` bool or None.

        Raises
        ------
        InputError
            A volume has fewer than three distinct values or holds NaN or infinity, or all masks are empty.
        """
        volumes: list[torch.Tensor] = []
        masks: list[torch.Tensor] = []
        for i in tqdm(range(len(self)), desc="reading", unit="volume", disable=not progress):
            volume, mask = self[i]
            volumes.append(volume)
            masks += [] if mask is None else [mask]
        if masks and not any(mask.any() for mask in masks):
            raise InputError(f"{self.entries[0].mask}: every mask is empty; give masks of 1 inside, or remove them.")
        return torch.stack(volumes)[:, None], torch.stack(masks)[:, None] if masks else None

    def domain(self) -> Domain:
        """Return all samples, each with mean 0 and variance 1, for training and scoring."""
        volumes, masks = self.stack()
        groups = [entry.group for entry in self.entries if entry.group]
        names = [entry.name for entry in self.entries]
        return Domain(zscore(volumes), masks, names, groups if len(groups) == len(names) else None)

    def save(self, out: str | Path, *, progress: bool = False) -> Path:
        """Write the samples as ``volumes.mrcs``, ``masks.mrcs`` and ``samples.csv`` into a new folder, all or none.

        ``samples.csv`` lists each sample's file, its box and voxel size there, and whether it was inverted.

        Raises
        ------
        InputError
            The folder is not empty or cannot be written; or see :meth:`stack`.
        """
        volumes, masks = self.stack(progress=progress)
        table = [
            {
                "molecule": entry.name,
                "file": entry.label,
                "box": "x".join(str(side) for side in entry.shape),
                "voxel_size": round(entry.voxel_size, 4),
                "inverted": self.invert,
                **({"specimen": entry.group} if entry.group else {}),
            }
            for entry in self.entries
        ]
        return write_samples(out, {"volumes": volumes} | ({} if masks is None else {"masks": masks}), self.voxel_size, table)


def load_domain(source: str | Path) -> Domain:
    """Read a folder or a star file of subtomograms as cubes of 32 voxels per side.

    A folder that holds ``volumes.mrcs``, as ``save_samples`` and :meth:`SubtomogramFolder.save` write, is not resized.

    Raises
    ------
    InputError
        See :class:`SubtomogramFolder`.
    """
    return read_folder(source).domain()


def read_folder(source: str | Path) -> SubtomogramFolder:
    """Return the subtomograms that :func:`load_domain` reads."""
    as_it_is = (Path(source) / "volumes.mrcs").is_file()
    return SubtomogramFolder(source, size=None if as_it_is else 32)


def _read(path: Path, index: int | None) -> torch.Tensor:
    """Read one volume ``(D, H, W)`` float32 from a file, without reading the rest of a stack."""
    data = read_mrc(path, memory_map=True).data
    return torch.from_numpy(np.array(data if index is None else data[index], dtype=np.float32))


def _is_spectrum(box: torch.Tensor) -> bool:
    """Whether ``(D, H, W)`` is equal at ``k`` and ``-k``, like a real volume's spectrum centred at voxel 0 or n // 2.

    Two outer sections are compared. Those of a symmetric phantom on an empty background are uniform, so it is no spectrum.
    """
    last = box[-1].flip(0, 1)
    pairs = zip(box[:2], (last, last.roll((1, 1), (0, 1))), strict=False)
    alike = any((one - other).abs().mean() < 1e-3 * last.std(correction=0) for one, other in pairs)
    return alike and bool(last.std(correction=0) > 0.01 * box.std(correction=0))


def _inside(mask: torch.Tensor, path: Path) -> torch.Tensor:
    """Return which voxels are inside a mask, by the rule of :class:`SubtomogramFolder`."""
    low, high = mask.min(), mask.max()
    two = bool(low < high and ((mask == low) | (mask == high)).all())
    if (low, high) == (-1, 0) or (not two and low < high <= 0.5):
        seen = f"holds values from {low:g} to {high:g}, perhaps bytes read with the wrong sign"
        raise InputError(f"{path}: {seen}; write 1 inside and 0 outside.")
    return mask == high if two else mask > 0.5


def _centre(box: torch.Tensor, side: int) -> torch.Tensor:
    """Return the central cube of a box ``(D, H, W)``; the centre of n voxels is voxel n // 2, for odd and even n."""
    for axis, n in enumerate(box.shape):
        box = box.narrow(axis, n // 2 - side // 2, side)
    return box


def _angstrom(length: float) -> str:
    return f"{length:.2f} Å" if length else "unknown"


def check_side(shape: tuple[int, ...], path: str | Path) -> None:
    """Refuse a shape ``(..., D, H, W)`` whose sides the network cannot halve three times."""
    if any(side % 8 or side < 16 for side in shape[-3:]):
        raise InputError(
            f"{path}: sides {shape[-3:]} must be multiples of 8 and at least 16; crop, or use `voxuda data convert`."
        )


def write_samples(out: str | Path, stacks: dict[str, torch.Tensor], voxel_size: float, table: list[dict]) -> Path:
    """Write stacks ``(N, 1, D, H, W)`` as ``NAME.mrcs``, and a table of ``N`` rows, into a new folder, all or none."""
    with new_folder(out) as work:
        for name, stack in stacks.items():
            write_mrc(work / f"{name}.mrcs", stack[:, 0], voxel_size)
        with open(work / "samples.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=["index", *table[0]])
            writer.writeheader()
            writer.writerows({"index": i, **row} for i, row in enumerate(table))
    return Path(out)
