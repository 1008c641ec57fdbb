"""Slices of the real microtubule with masks, and the score of a ball, as JSON for the chapter on real data.

Usage: python book/microtubule_panels.py FOLDER, where FOLDER is the --out of `voxuda data fetch microtubule`. Takes a minute.
Writes results/microtubule-panels.json.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from microtubule import ROOT, brightest, overlap, read_wall
from real_panels import outline, rows
from scipy import ndimage

from voxuda.data.mrc import read_mrc
from voxuda.training.config import SegmentOptions
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import save_json
from voxuda.training.segmentation import segment_files

SIGMA = 2.0
"""Of the blur beside the networks, in voxels; the best of those in results/microtubule.json."""

LENGTHWISE = 18, slice(55, 151)
"""The slice z and its rows y that show the microtubule from above."""

ACROSS = 60
"""The y of the slice across it."""


def ball(wall: np.ndarray) -> float:
    """IoU of the wall with a ball around the middle of the crop that is as large."""
    axes = np.meshgrid(*(np.arange(n) - n // 2 for n in wall.shape), indexing="ij")
    return overlap(brightest(-sum(a.astype(float) ** 2 for a in axes), int(wall.sum())), wall)


def masks(folder: Path, wall: np.ndarray) -> dict[str, np.ndarray]:
    """Of three networks by default options, and of a blur that takes as many voxels as the wall has."""
    volume = read_mrc(folder / "microtubule.mrc").data
    found = {"blur": brightest(ndimage.gaussian_filter(volume, SIGMA), int(wall.sum()))}
    for name in ("source-only", "vox-uda", "self-training"):
        options = SegmentOptions(str(ROOT / "results" / "laptop" / name / "seed-0"), picture=False, device="cpu")
        with tempfile.TemporaryDirectory() as out:
            segment_files([folder / "microtubule.mrc"], out, options, progress=False)
            found[name] = read_mrc(Path(out) / "microtubule_mask.mrc").data > 0
    return found


def pictures(folder: Path) -> dict[str, dict]:
    """A slice along the microtubule and one across it, with the outlines of the wall and of the masks."""
    volume, wall = read_mrc(folder / "microtubule.mrc").data, read_wall(folder)
    smooth, found = ndimage.gaussian_filter(volume, 1.0), masks(folder, wall)

    def seen(of: np.ndarray, way: str) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(of[LENGTHWISE] if way == "lengthwise" else of[:, ACROSS]))

    return {
        way: {
            "smooth": rows(seen(smooth, way)),
            "truth": outline(seen(wall, way)),
            "found": {name: outline(seen(mask, way)) for name, mask in found.items()},
        }
        for way in ("lengthwise", "across")
    }


def main(folder: Path) -> None:
    """Write the file."""
    found = {"collected_by": provenance(), "ball": ball(read_wall(folder)), **pictures(folder)}
    save_json(found, ROOT / "results" / "microtubule-panels.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
