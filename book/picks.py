"""How good the particles of `voxuda segment --coordinates` are in simulated crowded cells, beside the peaks of a blur.

Usage: python book/picks.py. Some ten minutes on one thread. Writes results/picks.json.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from microtubule import ROOT
from scipy import ndimage
from tomogram_rules import OTHERS, crowded
from tqdm import tqdm

from voxuda.data.mrc import write_mrc
from voxuda.data.star import read_star
from voxuda.simulation.molecules import IN_CELLS
from voxuda.simulation.specimen import FIELD, PIXEL_SIZE
from voxuda.training.config import SegmentOptions
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import MODELS, save_json
from voxuda.training.segmentation import segment_files

SEEDS = range(5)
LEAST = (50, 500)
"""Components with fewer voxels are no particles: the README's example, and half of the target's smallest molecule."""

NEAR = 100.0
"""A molecule is found if a particle lies within this distance of its centre, in angstrom."""

BLOB = 58.0
"""Width in angstrom of the Gaussian whose Laplacian answers most to a ball with a radius of 100 Å."""


def particles(path: Path, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Voxels ``(R, 3)`` and sizes ``(R,)`` of the particles that a model finds in a tomogram of ``FIELD`` cubed voxels."""
    options = SegmentOptions(model, coordinates=True, min_voxels=min(LEAST), picture=False, device="cpu")
    with tempfile.TemporaryDirectory() as out:
        segment_files([path], out, options, progress=False)
        rows = read_star(Path(out) / f"{path.stem}_particles.star")["particles"]
    columns = (rows[f"rlnCenteredCoordinate{axis}Angst"] for axis in "ZYX")
    centres = np.array([*columns], dtype=float).reshape(3, -1).T / PIXEL_SIZE + FIELD / 2
    return centres, np.array(rows["voxudaVoxels"], dtype=int)


def peaks(volume: torch.Tensor, count: int) -> np.ndarray:
    """Voxels ``(count, 3)`` of the strongest bright blobs."""
    answer = -ndimage.gaussian_laplace(volume.double().numpy(), BLOB / PIXEL_SIZE)
    highest = answer == ndimage.maximum_filter(answer, 2 * round(NEAR / PIXEL_SIZE) + 1)
    found = np.argwhere(highest)
    return found[np.argsort(-answer[highest])][:count].astype(float)


def judge(rows: np.ndarray, centres: np.ndarray, mask: np.ndarray) -> dict[str, int]:
    """Count particles ``(R, 3)``, those on a complex by the mask, and the molecules ``(K, 3)`` that one of them is near to."""
    found, on = set(), 0
    for row in rows:
        on += bool(mask[tuple(np.clip(np.round(row).astype(int), 0, FIELD - 1))])
        distance = np.linalg.norm(centres - row, axis=1) * PIXEL_SIZE
        if len(centres) and distance.min() <= NEAR:
            found.add(int(distance.argmin()))
    return {"particles": len(rows), "on_complex": on, "molecules": len(centres), "found": len(found)}


def main() -> None:
    """Write the file."""
    found = []
    models = sorted(path.name for path in MODELS.iterdir())
    kinds = {"molecules of the target": IN_CELLS, "other molecules": OTHERS}
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(kinds) * len(SEEDS) * len(LEAST) * (len(models) + 1)) as bar:
        for kind, names in kinds.items():
            for seed in SEEDS:
                volume, mask, centres = crowded(seed, names)
                write_mrc(path := Path(folder) / "t.mrc", volume, PIXEL_SIZE, overwrite=True)
                sized = {model: particles(path, model) for model in models}
                for least in LEAST:
                    picked = {model: rows[sizes >= least] for model, (rows, sizes) in sized.items()}
                    picked["blobs"] = peaks(volume, len(picked["self-training"]))
                    for model, rows in picked.items():
                        scores = judge(rows, centres.numpy(), mask.numpy())
                        about = {"tomogram": kind, "seed": seed, "model": model, "min_voxels": least}
                        if model in sized:
                            about["largest"] = round(float(sized[model][1].max() / sized[model][1].sum()), 4)
                        found.append(about | scores)
                        bar.update()
    sizes = {"near": NEAR, "blob": BLOB}
    save_json({"collected_by": provenance(), **sizes, "tomograms": found}, ROOT / "results" / "picks.json")


if __name__ == "__main__":
    main()
