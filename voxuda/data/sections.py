"""Read and write MRC volumes a few sections at a time, so that memory use does not grow with their size."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np

from voxuda.data.mrc import Volume, read_mrc

HEADER = 1024
"""Bytes before the first voxel of an MRC file without an extended header."""

MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6}
"""MRC modes of the data types that can be written."""


def read_sections(path: str | Path, start: int, stop: int) -> np.ndarray:
    """Read sections ``start`` to ``stop`` of a volume, or of the joined volumes of a stack, as ``(n, H, W)`` float32.

    The file is closed after each call, since the pages read from an open memory map count as memory in use.
    """
    data = read_mrc(path, memory_map=True).data
    return data.reshape(-1, *data.shape[-2:])[start:stop].astype(np.float32)


class SectionWriter:
    """Write a new MRC file with the header of another volume, its sections in any order.

    Parameters
    ----------
    path : path
        Where to write; an existing file is replaced.
    like : Volume
        Volume that gives the shape ``(D, H, W)`` or ``(N, D, H, W)``, origin and first indices.
    voxel_size : float
        Edge of a voxel in angstrom; 0 leaves it out.
    dtype : str
        A name in ``MODES``.
    label : str
        Label for the header, at most 80 characters.
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
        """Write sections ``(n, H, W)`` from section ``start`` on; write each once, for the header's statistics to be right."""
        sections = np.ascontiguousarray(sections, self.dtype)
        self.low, self.high = min(self.low, float(sections.min())), max(self.high, float(sections.max()))
        self.total += float(sections.sum(dtype=float))
        self.squares += float(np.square(sections, dtype=float).sum())
        with open(self.path, "r+b") as file:
            file.seek(HEADER + start * sections[0].nbytes)
            file.write(sections.tobytes())

    def finish(self) -> None:
        """Write the statistics to the header."""
        voxels = np.prod(self.shape, dtype=float)
        mean = self.total / voxels
        with mrcfile.mmap(self.path, mode="r+") as mrc:
            header = mrc.header
            header.dmin, header.dmax, header.dmean = self.low, self.high, mean
            header.rms = np.sqrt(max(self.squares / voxels - mean**2, 0))
