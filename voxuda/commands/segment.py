"""`voxuda segment` makes masks of subtomograms and of whole tomograms."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from voxuda.training.config import SegmentOptions


@dataclasses.dataclass
class Segment:
    """Find protein in tomograms or subtomograms, and write a mask (1 protein, 0 elsewhere) and a picture of it for each file.

    One tomogram, with the model that comes with the package: voxuda segment tomogram.mrc

    With coordinates of the components for RELION 5: voxuda segment tomograms/ --coordinates --min-voxels 50

    Of particles that touch, in crowded cells: voxuda segment tomogram.mrc --model self-training --coordinates --diameter 250

    With a model that you trained: voxuda segment "*.rec" --model runs/first --out masks

    Protein must be bright; pass --invert if it is dark. The models were trained on voxels of 10 to 15 angstrom. Volumes
    with smaller voxels are rescaled to 10 angstrom, those with larger ones to 15; the mask has the voxels of the file.
    Stacks of subtomograms are not rescaled. A volume whose sides are multiples of 8 from 16 to 64 goes through the network in
    one piece; any other is cut into overlapping tiles, so that memory does not grow with the number of sections.

    After an interruption, run the same command again: it continues where it stopped. Finished masks are kept.

    A tile has 32 voxels per side, 320 to 480 angstrom. A larger particle is recognised by texture, not shape, and its inside
    may be missed. In that case train on samples simulated with --size 64, and pass --tile 64.
    """

    #: MRC volumes (.mrc .map .rec, also .gz and .bz2), stacks of subtomograms (.mrcs), folders, or patterns in quotes.
    files: Annotated[tyro.conf.Positional[list[Path]], tyro.conf.arg(metavar="FILE...")]
    options: Annotated[SegmentOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=SegmentOptions)
    out: Path = Path("masks")  #: Folder for all output files.

    def run(self) -> None:
        """Segment."""
        from voxuda.training.segmentation import segment_files

        segment_files(self.files, self.out, self.options)
