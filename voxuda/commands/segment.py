"""`voxuda segment`: masks of volumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tqdm import tqdm

from voxuda import data, evaluation, runs
from voxuda.volumes import InputError, Volume, check_volume, read_mrc, write_mrc, zscore


@dataclasses.dataclass
class Segment:
    """Segment subtomograms with a trained run; writes one mask MRC per file.

    Example: voxuda segment runs/first sub1.mrc sub2.mrc --out masks
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder made by `voxuda train`."""
    files: Annotated[tyro.conf.Positional[list[Path]], tyro.conf.arg(metavar="FILE...")]
    """MRC volumes whose sides are multiples of 8, or stacks of them; protein bright."""
    out: Path = Path("masks")
    """New folder for the masks."""

    def run(self) -> None:
        """Segment."""
        if not self.files:
            raise InputError("no file was given; name at least one MRC volume.")
        network = runs.load_network(self.run_folder)
        out = data.check_new_folder(self.out)
        volumes: dict[str, Volume] = {}
        for path in self.files:
            volume = read_mrc(path)
            data.check_side(volume.data, path)
            for part in volume.data.reshape(-1, *volume.data.shape[-3:]):
                check_volume(part, str(path))
            plain = path.with_suffix("") if path.suffix in (".gz", ".bz2") else path
            name = f"{plain.stem}_mask{plain.suffix}"
            if name in volumes:
                raise InputError(f"{path}: {name} would be written twice; segment files of the same name one by one.")
            volumes[name] = volume
        with data.new_folder(out) as work:
            for name, volume in tqdm(volumes.items(), unit="file", desc="segmenting"):
                stack = torch.from_numpy(volume.data).reshape(-1, 1, *volume.data.shape[-3:])
                mask = (evaluation.predict(network, zscore(stack)) > 0.5).numpy().reshape(volume.data.shape)
                write_mrc(work / name, mask, volume.voxel_size, origin=volume.origin)
        print(f"{len(volumes)} masks in {out}")
