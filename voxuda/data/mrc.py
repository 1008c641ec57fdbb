"""Read and write MRC files."""

from __future__ import annotations

import bz2
import gzip
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import torch
from mrcfile.dtypes import HEADER_DTYPE

from voxuda.data.files import check_new_file, write_atomically
from voxuda.errors import InputError

COMPRESSED: dict[str, Callable] = {".gz": gzip.open, ".bz2": bz2.open}
"""Extensions of compressed files that mrcfile reads."""

STACKS = (".mrcs", ".mrcs.gz", ".mrcs.bz2")
"""Extensions of stacks of images or volumes."""


@dataclass(frozen=True)
class Volume:
    """One volume, or a stack of volumes, as read from an MRC file."""

    #: ``(D, H, W)`` volume or ``(N, D, H, W)`` stack, axes z, y, x; float32, or a read-only memory map of the file.
    data: np.ndarray
    voxel_size: float  #: Edge of a voxel in angstrom; 0 if the header does not give it.
    origin: tuple[float, float, float]  #: Position of the first voxel, x, y, z in angstrom, as in the header.
    path: Path  #: File it was read from.
    start: tuple[int, int, int] = (0, 0, 0)  #: Index of the first voxel, x, y, z, as in the header (``nxstart`` and so on).
    #: Whether ``(D, H, W)`` are D images, that is, a 3D ``.mrcs`` with space group 0 in its header. Under another extension 0
    #: means nothing, since much software writes it for volumes.
    is_image_stack: bool = False

    def check_is_volume(self) -> None:
        """Refuse a stack of images.

        Raises
        ------
        InputError
            The data are one; see ``is_image_stack``.
        """
        if self.is_image_stack:
            remedy = "export 3D subtomograms (WarpTools: --3d; RELION 5: no 2D stacks), or name a single volume .mrc"
            raise InputError(f"{self.path}: shape {self.data.shape} is a stack of 2D images; {remedy}.")


def read_mrc(path: str | Path, *, memory_map: bool = False) -> Volume:
    """Read an MRC volume ``(D, H, W)`` or volume stack ``(N, D, H, W)``.

    Modes 0 (int8, or uint8 in files of older IMOD), 1 (int16), 2 (float32), 6 (uint16) and 12 (float16) are converted to
    float32; with ``memory_map`` the data stay on disk in their own type and are neither converted nor checked for NaN.

    Parameters
    ----------
    path : path
        An MRC file of any name, optionally compressed with gzip or bzip2.
    memory_map : bool
        Leave the data on disk. Compressed files are still read into memory, but not checked for NaN.

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        The file is missing, is not MRC, is shorter than its header says, is not 3D or a stack of 3D volumes, holds
        complex values, has axes in another order or voxels that are not cubes, or holds NaN or infinity.
    """
    path = Path(path)
    try:
        exists, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise InputError(f"{path}: cannot be reached ({error.strerror}); give a readable file.") from error
    if is_folder:
        raise InputError(f"{path}: is a folder; give the path of an MRC file in it.")
    if not exists:
        raise InputError(f"{path}: no such file; give the path of an MRC volume.")
    try:
        _check_claim(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            mapped = memory_map and path.suffix.lower() not in COMPRESSED
            opened = mrcfile.mmap(path, mode="r") if mapped else mrcfile.open(path, mode="r")
    except Exception as error:  # ValueError, OSError, EOFError or a RuntimeWarning, depending on the defect
        if isinstance(error, OSError) and error.strerror:  # from the system, not from gzip about the content
            raise InputError(f"{path}: cannot be read ({error.strerror}); give a readable file.") from error
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{path}: not a readable MRC file ({reason}); copy it again if it is cut short, or export it again as MRC2014."
        ) from error
    with opened as mrc:
        data = mrc.data
        with np.errstate(divide="ignore", invalid="ignore"):  # a cell without voxels gives no size
            edges = [float(mrc.voxel_size[axis]) if mrc.header[f"m{axis}"] > 0 else 0.0 for axis in "xyz"]
        x, y, z = (float(mrc.header.origin[axis]) for axis in "xyz")
        first = (int(mrc.header.nxstart), int(mrc.header.nystart), int(mrc.header.nzstart))
        images = mrc.is_image_stack() and path.name.lower().endswith(STACKS)
        axes = tuple(int(mrc.header[name]) for name in ("mapc", "mapr", "maps"))
        if axes not in ((1, 2, 3), (0, 0, 0)):  # some programs leave them out
            raise InputError(
                f"{path}: columns, rows and sections are axes {axes}; reorder the volume so that they are (1, 2, 3)."
            )
        edges = edges[:2] if images else edges  # images have no spacing along z
        if not all(0 <= edge < np.inf for edge in edges) or max(edges) - min(edges) > 1e-3 * max(edges):
            cell = f"the header gives voxels of {' x '.join(f'{edge:g}' for edge in edges)} Å, which are not cubes"
            raise InputError(f"{path}: {cell}; correct the header with IMOD's alterheader or, if it is right, resample.")
        if np.iscomplexobj(data):
            raise InputError(f"{path}: mode {int(mrc.header.mode)} holds complex values; give a real-space volume.")
        if _holds_unsigned_bytes(mrc.header):
            data = data.view(np.uint8)
        if data.ndim == 4 and data.shape[0] == 1:
            data = data[0]
        if data.ndim not in (3, 4):
            raise InputError(f"{path}: shape {data.shape} is not a volume (D, H, W) or a stack (N, D, H, W) of them.")
        if not memory_map:
            data = np.array(data, dtype=np.float32)
    if not memory_map and not np.isfinite(data).all():
        count = int((~np.isfinite(data)).sum())
        raise InputError(f"{path}: {count} voxels are NaN or infinite; replace them, for example by the mean.")
    return Volume(data, edges[0], (x, y, z), path, first, images)


def _holds_unsigned_bytes(header: np.recarray) -> bool:
    """Whether the bytes of mode 0 are unsigned, by bit 1 of IMOD's flags, or without IMOD's stamp by a maximum above 127.

    Since version 4.2.23 IMOD writes signed bytes, as in MRC2014, and sets the bit when it does.
    """
    stamp, flags = np.frombuffer(header.extra2.tobytes(), header.nx.dtype, 2, offset=40)  # bytes 152 and 156 of the file
    unsigned = not flags & 1 if stamp == 1146047817 else header.dmax > 127
    return bool(header.mode == 0 and header.dmin >= 0 and unsigned)


def _check_claim(path: Path) -> None:
    """Refuse a header that claims more bytes than the file holds, before memory is allocated for them.

    The contents of a compressed file are counted if the claim exceeds a thousand times its size, which only a nearly empty
    volume can reach.
    """
    packed = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}
    with open(path, "rb") as file:
        start = file.read(2)
    opener = packed.get(start, open)
    with opener(path, "rb") as file:  # type: ignore[operator]
        content = file.read(HEADER_DTYPE.itemsize).ljust(HEADER_DTYPE.itemsize, b"\0")
    stamp = np.frombuffer(content, HEADER_DTYPE)[0]["machst"][0]
    if stamp not in (0x44, 0x11):
        return  # mrcfile reports the wrong machine stamp
    header = np.frombuffer(content, HEADER_DTYPE.newbyteorder("<" if stamp == 0x44 else ">"))[0]
    x, y, z, extended = (max(0, int(header[name])) for name in ("nx", "ny", "nz", "nsymbt"))
    claim = HEADER_DTYPE.itemsize + extended + x * y * z // 2  # every mode uses at least half a byte per voxel
    held = path.stat().st_size * (1000 if start in packed else 1)
    if claim > held and start in packed:
        with opener(path, "rb") as file:  # type: ignore[operator]
            held = sum(len(part) for part in iter(lambda: file.read(1 << 20), b""))
    if claim > held:
        raise ValueError(f"the header claims at least {claim} bytes, more than the file holds")


def write_mrc(
    path: str | Path,
    data: np.ndarray | torch.Tensor,
    voxel_size: float = 0.0,
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    start: tuple[int, int, int] = (0, 0, 0),
    overwrite: bool = False,
) -> Path:
    """Write a volume ``(D, H, W)`` or a volume stack ``(N, D, H, W)`` atomically.

    Parameters
    ----------
    path : path
        Where to write.
    data : array
        ``(D, H, W)`` or ``(N, D, H, W)``; bool becomes mode 0, uint8 mode 6, float16 mode 12; int8, int16 and uint16 are
        kept, and all other types become mode 2.
    voxel_size : float
        Edge of a voxel in angstrom.
    origin : tuple of float
        Position of the first voxel, x, y, z in angstrom.
    start : tuple of int
        Index of the first voxel, x, y, z.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    InputError
        The file exists and ``overwrite`` is off, the shape is wrong, or the folder cannot be written.
    """
    path = Path(path)
    array = data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else np.asarray(data)
    if array.ndim not in (3, 4):
        raise InputError(f"{path}: cannot write shape {array.shape}; give (D, H, W) or (N, D, H, W).")
    check_new_file(path, overwrite=overwrite, makes_folder=False)
    if array.dtype == bool:
        array = array.astype(np.int8)
    elif array.dtype == np.uint8:
        array = array.astype(np.uint16)
    elif array.dtype not in (np.int8, np.int16, np.uint16, np.float16):
        array = array.astype(np.float32)

    def write(temporary: Path) -> None:
        with mrcfile.new(temporary, overwrite=True) as mrc:
            mrc.set_data(array)
            if array.ndim == 3:
                mrc.set_volume()
            if voxel_size:
                mrc.voxel_size = voxel_size
            mrc.header.origin = origin
            mrc.header.nxstart, mrc.header.nystart, mrc.header.nzstart = start

    write_atomically(write, path)
    return path


def check_volume(data: np.ndarray | torch.Tensor, name: str) -> None:
    """Refuse a volume that no network can use because it holds NaN or infinity or is constant.

    Parameters
    ----------
    data : array
        Any shape.
    name : str
        Name for the message, for example the file.

    Raises
    ------
    InputError
        The volume holds NaN or infinity, or every voxel has the same value.
    """
    tensor = torch.as_tensor(data)
    if not torch.isfinite(tensor).all():
        raise InputError(f"{name}: some voxels are NaN or infinite; replace them, for example by the mean.")
    if tensor.numel() == 0 or tensor.max() == tensor.min():
        raise InputError(f"{name}: every voxel has the same value; give a volume with some signal in it.")
