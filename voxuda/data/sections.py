"""MRC volumes read and written some sections at a time, so that memory does not grow with them."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np

from voxuda.data.mrc import Volume, read_mrc

HEADER = 1024
"""Bytes before the first voxel of an MRC file without an extended header."""

MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6}
"""MRC modes of the types that are written."""


def read_sections(path: str | Path, start: int, stop: int) -> np.ndarray:
    """Sections ``start`` to ``stop`` of a volume, or of the volumes of a stack one after another, ``(n, H, W)`` float32.

    The file is closed again: were it kept open, the pages of the map read so far would count as memory in use.
    """
    data = read_mrc(path, memory_map=True).data
    return data.reshape(-1, *data.shape[-2:])[start:stop].astype(np.float32)


class SectionWriter:
    """A new MRC file with the header of another volume, whose sections are written in any order.

    Parameters
    ----------
    path : path
        Where to write; what is there is replaced.
    like : Volume
        Gives shape ``(D, H, W)`` or ``(N, D, H, W)``, origin and first indices.
    voxel_size : float
        In angstrom; 0 leaves it out.
    dtype : str
        A name in ``MODES``.
    label : str
        A line of the header, at most 80 characters.
    """

    def __init__(self, path: str | Path, like: Volume, voxel_size: float, dtype: str, label: str) -> None:
        self.path, self.dtype, self.shape = Path(path), np.dtype(dtype), like.data.shape
        self.low, self.high, self.total, self.squares = np.inf, -np.inf, 0.0, 0.0
        with mrcfile.new_mmap(self.path, self.shape, mrc_mode=MODES[dtype], overwrite=True) as mrc:
            mrc.add_label(label)
            if voxel_size:
                mrc.voxel_size = voxel_size
            mrc.header.origin = like.origin
            mrc.header.nxstart, mrc.header.nystart, mrc.header.nzstart = like.start

    def write(self, start: int, sections: np.ndarray) -> None:
        """Write sections ``(n, H, W)`` from section ``start`` on; each once, for the statistics of the header."""
        sections = np.ascontiguousarray(sections, self.dtype)
        self.low, self.high = min(self.low, float(sections.min())), max(self.high, float(sections.max()))
        self.total += float(sections.sum(dtype=float))
        self.squares += float(np.square(sections, dtype=float).sum())
        with open(self.path, "r+b") as file:
            file.seek(HEADER + start * sections[0].nbytes)
            file.write(sections.tobytes())

    def finish(self) -> None:
        """Complete the header's statistics."""
        voxels = np.prod(self.shape, dtype=float)
        mean = self.total / voxels
        with mrcfile.mmap(self.path, mode="r+") as mrc:
            header = mrc.header
            header.dmin, header.dmax, header.dmean = self.low, self.high, mean
            header.rms = np.sqrt(max(self.squares / voxels - mean**2, 0))
