"""`voxuda segment`: masks of subtomograms and of whole tomograms."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from voxuda.training.config import SegmentOptions


@dataclasses.dataclass
class Segment:
    """Find protein in tomograms or subtomograms; writes a mask, 1 for protein, and a picture of it for each file.

    One tomogram, with a model that comes along: voxuda segment tomogram.mrc

    Also where each molecule is, for RELION: voxuda segment tomograms/ --coordinates --min-voxels 50

    With a run of your own: voxuda segment "*.rec" --model runs/first --out masks

    Protein must be bright; --invert turns a volume in which it is dark. Voxels of 10 to 15 angstrom are taken as they are;
    others are rescaled for the network, and the mask comes back on the voxels of the file. A volume of up to 64 voxels a
    side, each a multiple of 8, goes through the network whole; a larger one in overlapping tiles, in little memory.

    After an interruption the same command goes on where it stopped. Masks that are there already are kept.

    The network sees 32 voxels a side at a time, 320 to 480 angstrom. A larger particle is labelled piece by piece, by its
    texture and not by its shape, and its inside may be missed. Then train on samples simulated with --size 64, and pass
    --tile 64.
    """

    files: Annotated[tyro.conf.Positional[list[Path]], tyro.conf.arg(metavar="FILE...")]
    """MRC volumes (.mrc .map .rec, also .gz and .bz2), stacks of subtomograms (.mrcs), folders, or quoted patterns."""
    options: Annotated[SegmentOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=SegmentOptions)
    out: Path = Path("masks")
    """Folder for the masks."""

    def run(self) -> None:
        """Segment."""
        from voxuda.training.segmentation import segment_files

        for result in segment_files(self.files, self.out, self.options):
            print(result)
