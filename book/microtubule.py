"""How well the stored models find the wall of a real microtubule, beside blurring and a threshold, as JSON.

Usage: python book/microtubule.py FOLDER, where FOLDER is the --out of `voxuda data fetch microtubule`. Takes some minutes on
one thread. Writes results/microtubule.json.
"""

import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from voxuda.data.mrc import read_mrc
from voxuda.training.config import SegmentOptions
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import MODELS, save_json
from voxuda.training.segmentation import segment_files

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "results" / "quick"
"""Runs on the quick target, beside the models of the package, which are such runs too."""
NOTE = (
    "One crop with one microtubule, and one seed per model. The wall was fitted as a tube around an axis, not drawn by hand, "
    "and does not know the missing wedge: compare masks with one another, and read nothing into a few points."
)
SIGMAS = (1.0, 1.5, 2.0, 2.5)
"""Of the blur, in voxels."""


def model_folder(name: str) -> Path:
    """The folder of a model of the package or, where there is none of that name, of a stored run."""
    return MODELS / name if (MODELS / name).is_dir() else RUNS / name / "seed-0"


def scores(values: np.ndarray, wall: np.ndarray, threshold: float | None = None) -> dict[str, float]:
    """IoU with the wall of what is above a threshold, its share of all voxels, and IoU of as many voxels as the wall has."""
    found = {"iou_same_size": overlap(brightest(values, int(wall.sum())), wall)}
    if threshold is not None:
        found |= {"iou": overlap(values > threshold, wall), "share": round(float((values > threshold).mean()), 4)}
    return found


def brightest(values: np.ndarray, count: int) -> np.ndarray:
    """Mask of at least ``count`` voxels with the highest values."""
    return values >= np.partition(values, -count, axis=None)[-count]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return round(float((a & b).sum() / (a | b).sum()), 4)


def model_scores(path: Path, truth: np.ndarray, model: str, normalise: str, batch_norm: str, flips: bool = False) -> dict:
    """A row: how a model segments a tomogram with some options, and its scores against the truth ``(D, H, W)``."""
    row = {"model": model, "normalise": normalise, "batch_norm": batch_norm, "flips": flips}
    options = SegmentOptions(**{**row, "model": str(model_folder(model))}, probabilities=True, picture=False, device="cpu")
    with tempfile.TemporaryDirectory() as out:
        segment_files([path], out, options, progress=False)
        probabilities = read_mrc(Path(out) / f"{path.stem}_probabilities.mrc").data
    return {**row, **scores(probabilities, truth, options.threshold)}


def blur_scores(folder: Path, sigma: float) -> dict:
    """A row: what a Gaussian blur finds when its brightest voxels are taken, as many as the wall has."""
    volume = read_mrc(folder / "microtubule.mrc").data
    return {"sigma": sigma, **scores(ndimage.gaussian_filter(volume, sigma), read_wall(folder))}


def read_wall(folder: Path) -> np.ndarray:
    """The label ``(D, H, W)`` bool."""
    return read_mrc(folder / "wall.mrc").data > 0


def main(folder: Path) -> None:
    """Write the file."""
    runs = {path.parent.parent.name for path in RUNS.glob("*/seed-0/weights.safetensors")}
    models = sorted(runs | {path.name for path in MODELS.iterdir()})
    ways = [*product(models, ("tile", "volume"), ("model", "volume"), (False,))]
    ways += [(path.name, "tile", "model", True) for path in sorted(MODELS.iterdir())]
    result = {
        "collected_by": provenance(),
        "note": NOTE,
        "wall_share": round(float(read_wall(folder).mean()), 4),
        "blur": [blur_scores(folder, sigma) for sigma in SIGMAS],
        "models": [model_scores(folder / "microtubule.mrc", read_wall(folder), *way) for way in tqdm(ways)],
    }
    save_json(result, ROOT / "results" / "microtubule.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
