"""`voxuda segment`: masks of subtomograms and of whole tomograms."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro


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
        from voxuda.training.segmentation import segment_files

        masks = segment_files(self.run_folder, self.files, self.out, tile=self.tile, overlap=self.overlap, device=self.device)
        print(f"{len(masks)} mask{'s' * (len(masks) > 1)} in {self.out}")
