"""Masks of files: which are subtomograms, which tomograms, and what becomes of each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from tqdm import tqdm

from voxuda.data.files import check_folder, new_folder
from voxuda.data.listing import EXPORT
from voxuda.data.mrc import Volume, check_volume, read_mrc, write_mrc
from voxuda.data.subtomograms import check_side
from voxuda.errors import InputError
from voxuda.signal.normalise import zscore
from voxuda.training import tomograms
from voxuda.training.devices import choose_device
from voxuda.training.evaluation import predict
from voxuda.training.run_folder import load_network


def segment_files(
    run: str | Path,
    files: Sequence[str | Path],
    out: str | Path,
    *,
    tile: int = 32,
    overlap: int = 16,
    device: Literal["cpu", "cuda", "auto"] = "cpu",
) -> list[Path]:
    """Segment subtomograms or tomograms with a trained run; see ``voxuda segment --help`` for how they differ.

    Parameters
    ----------
    run : path
        Folder of a finished run.
    files : sequence of path
        MRC volumes ``(D, H, W)`` or stacks ``(N, D, H, W)``, protein bright.
    out : path
        Folder for the masks, ``NAME_mask.mrc`` for ``NAME.mrc``: 1 for protein, 0 for the rest.
    tile, overlap : int
        Of tomograms, in voxels; see :func:`voxuda.training.tomograms.segment_tomogram`.
    device : str
        Where the network runs.

    Returns
    -------
    list of Path
        The masks, in the order of the files.

    Raises
    ------
    InputError
        A file, the run, the tiling or the folder cannot be used; all files are checked before a mask is written.
    """
    if not files:
        raise InputError("no file was given; name at least one MRC volume.")
    out = Path(out)
    network = load_network(run).to(choose_device(device))
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # a third faster on a CPU
    tomograms.check_tiling(tile, overlap)
    check_folder(out)
    volumes: dict[str, Volume] = {}
    for path in map(Path, files):
        plain = path.with_suffix("") if path.suffix.lower() in tomograms.COMPRESSED else path
        name = f"{plain.stem}_mask{plain.suffix}"
        if name in volumes:
            raise InputError(f"{path}: {name} would be written twice; segment files of the same name one by one.")
        volumes[name] = read(path)
    large = [is_tomogram(volume) for volume in volumes.values()]
    if any(large) and not all(large):
        path = Path(files[large.index(True)])
        raise InputError(f"{path}: a tomogram among subtomograms; segment the two kinds by separate commands.")
    warn_of_voxel_sizes(volumes)
    if any(large):
        _segment_tomograms(network, volumes, out, tile, overlap)
    else:
        _segment_subtomograms(network, volumes, out)
    return [out / name for name in volumes]


def _segment_subtomograms(network: nn.Module, volumes: dict[str, Volume], out: Path) -> None:
    with new_folder(out) as work:
        for name, volume in tqdm(volumes.items(), unit="file", desc="segmenting"):
            stack = torch.from_numpy(volume.data).reshape(-1, 1, *volume.data.shape[-3:])
            mask = (predict(network, zscore(stack)) > 0.5).numpy().reshape(volume.data.shape)
            write_mrc(work / name, mask, volume.voxel_size, origin=volume.origin, start=volume.start)


def _segment_tomograms(network: nn.Module, volumes: dict[str, Volume], out: Path, tile: int, overlap: int) -> None:
    for name, volume in volumes.items():  # all of them before hours go into the first
        tomograms.survey(volume.path, tile)
        tomograms.is_made(out / name, tomograms.made_by(network, volume.path, tile, overlap))
    for name, volume in volumes.items():
        tomograms.segment_tomogram(network, volume.path, out / name, tile=tile, overlap=overlap, progress=True)


def is_tomogram(volume: Volume) -> bool:
    """Whether a volume must be tiled: no stack, and a side above 64 voxels or one that the network does not take whole."""
    return volume.data.ndim == 3 and any(side % 8 or not 16 <= side <= 64 for side in volume.data.shape)


def read(path: Path) -> Volume:
    """A tomogram, left on disk, or subtomograms, in memory and checked."""
    suffix = path.suffix.lower()
    if suffix == ".star" and path.is_file():
        raise InputError(f"{path}: is a star file; convert it with `voxuda data convert` and give the volumes.mrcs made.")
    if suffix in (".hdf", ".em") and path.is_file():
        raise InputError(f"{path}: {EXPORT[suffix]}.")
    volume = read_mrc(path, memory_map=suffix not in tomograms.COMPRESSED)
    volume.check_is_volume()
    if is_tomogram(volume):
        return volume
    check_side(volume.data.shape, path)
    volume = read_mrc(path)
    for part in volume.data.reshape(-1, *volume.data.shape[-3:]):
        check_volume(part, str(path))
    return volume


def warn_of_voxel_sizes(volumes: dict[str, Volume]) -> None:
    """Say which volumes have voxels far from the 10 to 15 angstrom of the simulated training samples; 0 is unknown."""
    for volume in volumes.values():
        if volume.voxel_size and not 8 <= volume.voxel_size <= 20:
            print(
                f"{volume.path}: voxels of {volume.voxel_size:.2f} angstrom, but networks are trained at 10 to 15; "
                "expect a poor mask, or resample the volume.",
                file=sys.stderr,
            )
