"""How well networks find the wall of a real microtubule, beside blurring and a threshold, as JSON.

Usage: python book/microtubule.py FOLDER RUNS, where FOLDER is the --out of `voxuda data fetch microtubule` and RUNS that of
`voxuda reproduce all --scale laptop`; each run of ROWS that has weights there is scored, and the models of the package.
Takes some minutes on one thread. Writes results/microtubule.json.
"""

import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.training.config import SegmentOptions
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import MODELS, read_config, save_json
from voxuda.training.segmentation import segment_files

ROOT = Path(__file__).resolve().parent.parent
ROWS = (
    "source-only", "dann", "vox-uda-ngm", "vox-uda", "vox-uda-bf", "window-5", "bf-window-5", "balanced", "self-training",
    "supervised", "source-only-batch", "vox-uda-batch", "supervised-batch",
)  # fmt: skip
"""Rows of the tables, whose target is simulated by tilt series."""
NOTE = (
    "One crop with one microtubule. The wall was fitted as a tube around an axis, not drawn by hand, and does not know the "
    "missing wedge: compare masks with one another, and read nothing into a few points."
)
SIGMAS = (1.0, 1.5, 2.0, 2.5)
"""Of the blur, in voxels."""


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


def probabilities(path: Path, model: Path, **ways: str | bool) -> np.ndarray:
    """Probability of protein ``(D, H, W)`` by a finished run or a packaged model with some options."""
    options = SegmentOptions(str(model), **ways, probabilities=True, picture=False, device="cpu")  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as out:
        segment_files([path], out, options, progress=False)
        return read_mrc(Path(out) / f"{path.stem}_probabilities.mrc").data


def model_scores(path: Path, truth: np.ndarray, model: Path, **ways: str | bool) -> dict[str, float]:
    """Scores of the mask that a finished run or a packaged model gives with some options, against the truth ``(D, H, W)``."""
    return scores(probabilities(path, model, **ways), truth, 0.5)


def agreement(found: np.ndarray, path: Path, model: Path, **ways: str | bool) -> float:
    """Dice score of the mask of the tomogram, from its probabilities, and that of its mirror image, which needs no label."""
    tomogram = read_mrc(path)
    with tempfile.TemporaryDirectory() as folder:
        write_mrc(mirror := Path(folder) / "mirror.mrc", np.ascontiguousarray(tomogram.data[..., ::-1]), tomogram.voxel_size)
        a, b = found > 0.5, probabilities(mirror, model, **ways)[..., ::-1] > 0.5
    return round(float(2 * (a & b).sum() / (a.sum() + b.sum())), 4)


def blur_scores(folder: Path, sigma: float) -> dict:
    """A row: what a Gaussian blur finds when its brightest voxels are taken, as many as the wall has."""
    volume = read_mrc(folder / "microtubule.mrc").data
    return {"sigma": sigma, **scores(ndimage.gaussian_filter(volume, sigma), read_wall(folder))}


def read_wall(folder: Path) -> np.ndarray:
    """The label ``(D, H, W)`` bool."""
    return read_mrc(folder / "wall.mrc").data > 0


def networks(runs: Path) -> list[tuple[dict, Path]]:
    """What is scored: packaged models, and the runs of ``ROWS`` that have weights, each with its name and its seed."""
    packaged = [({"packaged": path.name}, path) for path in sorted(MODELS.iterdir())]
    trained = [path.parent for row in ROWS for path in sorted(runs.glob(f"{row}/seed-*/weights.safetensors"))]
    return packaged + [({"row": path.parent.name, "seed": read_config(path).seed}, path) for path in trained]


def main(folder: Path, runs: Path) -> None:
    """Write the file."""
    wall, tomogram, rows = read_wall(folder), folder / "microtubule.mrc", []
    for name, model in tqdm(networks(runs)):
        # Group norm has no statistics that could be measured on the crop.
        kinds = ("model", "volume") if read_config(model).normalisation == "batch" else ("model",)
        ways: list[dict[str, str | bool]] = [
            {"normalise": by, "batch_norm": of, "flips": False} for by, of in product(("tile", "volume"), kinds)
        ]
        if "packaged" in name:
            ways.append({"normalise": "tile", "batch_norm": "model", "flips": True})
        for way in ways:
            found = probabilities(tomogram, model, **way)
            rows.append({**name, **way, **scores(found, wall, 0.5)})
            if way["normalise"] == "tile" and not way["flips"]:
                rows[-1]["agreement"] = agreement(found, tomogram, model, **way)
    result = {
        "collected_by": provenance(),
        "note": NOTE,
        "wall_share": round(float(wall.mean()), 4),
        "blur": [blur_scores(folder, sigma) for sigma in SIGMAS],
        "models": rows,
    }
    save_json(result, ROOT / "results" / "microtubule.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
