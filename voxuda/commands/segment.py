"""`voxuda segment`: masks of subtomograms and of whole tomograms."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import nn
from tqdm import tqdm

from voxuda.data.files import check_folder, new_folder
from voxuda.data.listing import EXPORT
from voxuda.data.mrc import Volume, check_volume, read_mrc, write_mrc
from voxuda.data.subtomograms import check_side
from voxuda.errors import InputError
from voxuda.signal.normalise import zscore
from voxuda.training import evaluation, loop, tomograms
from voxuda.training.config import Config
from voxuda.training.run_folder import load_network


@dataclasses.dataclass
class Segment:
    """Segment subtomograms or whole tomograms with a trained run; writes one mask MRC per file, protein 1, the rest 0.

    Subtomograms, up to 64 voxels a side: voxuda segment runs/first sub1.mrc sub2.mrc --out masks

    Tomograms, anything larger or of sides that are no multiples of 8: voxuda segment runs/first tomogram.mrc --out masks

    Masks of subtomograms appear together, in a new folder, or not at all. Masks of tomograms appear one by one, each when it is
    whole; after an interruption the same command goes on where it stopped.

    Best at the voxel size of training, 10 to 15 angstrom; bin or rescale first.

    A tomogram is cut into overlapping tiles, and the network sees one tile of 32 voxels at a time. A particle larger than that
    is labelled piece by piece, by its texture and not by its shape, and its inside may be missed. Then bin the tomogram until
    the particle fits into a tile, or train on samples simulated with --size 64 and pass --tile 64.
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder made by `voxuda train`."""
    files: Annotated[tyro.conf.Positional[list[Path]], tyro.conf.arg(metavar="FILE...")]
    """MRC volumes, protein bright: subtomograms whose sides are multiples of 8, stacks of them, or tomograms of any sides."""
    out: Path = Path("masks")
    """Folder for the masks."""
    tile: int = 32
    """Tomograms: side of a tile in voxels, a multiple of 8; best the side of the samples trained on."""
    overlap: int = 16
    """Tomograms: voxels that neighbouring tiles share; less is faster and leaves more seams."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where the network runs."""

    def run(self) -> None:
        """Segment."""
        if not self.files:
            raise InputError("no file was given; name at least one MRC volume.")
        network = load_network(self.run_folder).to(loop.make_fabric(Config(device=self.device)).device)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # a third faster on a CPU
        tomograms.check_tiling(self.tile, self.overlap)
        check_folder(self.out)
        volumes: dict[str, Volume] = {}
        for path in self.files:
            plain = path.with_suffix("") if path.suffix.lower() in tomograms.COMPRESSED else path
            name = f"{plain.stem}_mask{plain.suffix}"
            if name in volumes:
                raise InputError(f"{path}: {name} would be written twice; segment files of the same name one by one.")
            volumes[name] = read(path)
        large = [is_tomogram(volume) for volume in volumes.values()]
        if any(large) and not all(large):
            path = self.files[large.index(True)]
            raise InputError(f"{path}: a tomogram among subtomograms; segment the two kinds by separate commands.")
        warn_of_voxel_sizes(volumes)
        (self._tomograms if any(large) else self._subtomograms)(network, volumes)
        print(f"{len(volumes)} mask{'s' * (len(volumes) > 1)} in {self.out}")

    def _subtomograms(self, network: nn.Module, volumes: dict[str, Volume]) -> None:
        with new_folder(self.out) as work:
            for name, volume in tqdm(volumes.items(), unit="file", desc="segmenting"):
                stack = torch.from_numpy(volume.data).reshape(-1, 1, *volume.data.shape[-3:])
                mask = (evaluation.predict(network, zscore(stack)) > 0.5).numpy().reshape(volume.data.shape)
                write_mrc(work / name, mask, volume.voxel_size, origin=volume.origin, start=volume.start)

    def _tomograms(self, network: nn.Module, volumes: dict[str, Volume]) -> None:
        for name, volume in volumes.items():  # all of them before hours go into the first
            tomograms.survey(volume.path, self.tile)
            tomograms.is_made(self.out / name, tomograms.made_by(network, volume.path, self.tile, self.overlap))
        for name, volume in volumes.items():
            tomograms.segment_tomogram(
                network, volume.path, self.out / name, tile=self.tile, overlap=self.overlap, progress=True
            )


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
