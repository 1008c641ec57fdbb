"""How good the particles of `voxuda segment --coordinates` are in simulated crowded cells, beside blobs of the tomogram itself.

Usage: python book/picks.py. Some five minutes on one thread. Writes results/picks.json. The diameter, and scores
of 0.5 and 0.6, were chosen on tomograms of seeds 100 to 103.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from microtubule import ROOT
from tomogram_rules import OTHERS, crowded
from tqdm import tqdm

from voxuda.data.mrc import write_mrc
from voxuda.data.star import read_star
from voxuda.simulation.molecules import IN_CELLS
from voxuda.simulation.specimen import FIELD, PIXEL_SIZE
from voxuda.training.config import SegmentOptions
from voxuda.training.peaks import find_peaks
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import MODELS, save_json
from voxuda.training.segmentation import segment_files

SEEDS = range(10)
DIAMETER = 240.0
"""Of the particles, in angstrom; the ribosome's is about 300 and TRiC's 160."""

MIN_VOXELS = 500
"""Components with fewer voxels are no particles; half of the smallest molecule of the target."""

NEAR = 100.0
"""A molecule is found if a particle lies within this distance of its centre, in angstrom."""

MOST = 50
"""Blobs kept of a field."""

Particles = tuple[np.ndarray, np.ndarray]
"""Voxels ``(R, 3)`` and scores ``(R,)``; components have no score."""


def particles(path: Path, model: str, diameter: float | None) -> Particles:
    """Particles of a packaged model in a tomogram of ``FIELD`` cubed voxels: peaks of a diameter, or components."""
    wanted = {"coordinates": True, "diameter": diameter, "min_voxels": MIN_VOXELS, "picture": False}
    options = SegmentOptions(model, device="cpu", **wanted)
    with tempfile.TemporaryDirectory() as out:
        segment_files([path], out, options, progress=False)
        rows = read_star(Path(out) / f"{path.stem}_particles.star")["particles"]
    columns = (rows[f"rlnCenteredCoordinate{axis}Angst"] for axis in "ZYX")
    centres = np.array([*columns], dtype=float).reshape(3, -1).T / PIXEL_SIZE + FIELD / 2
    return centres, np.array(rows.get("rlnAutopickFigureOfMerit", np.ones(len(centres))), dtype=float)


def blobs(volume: torch.Tensor) -> Particles:
    """Bright blobs of the tomogram itself, scaled to mean 0 and standard deviation 1, the strongest first."""
    values = ((volume - volume.mean()) / volume.std()).numpy()
    found = find_peaks(lambda start, stop: values[start:stop], len(values), DIAMETER / PIXEL_SIZE, 0.0)
    return found.centres[:MOST], found.scores[:MOST]


def judge(rows: np.ndarray, centres: np.ndarray, mask: np.ndarray) -> list[dict[str, bool | int]]:
    """For each particle ``(R, 3)``: is it on a complex of the mask, and which molecule of ``(K, 3)`` does it find, or -1."""
    judged: list[dict[str, bool | int]] = []
    for row in rows:
        on = bool(mask[tuple(np.clip(np.round(row).astype(int), 0, FIELD - 1))])
        apart = centres - row
        apart[:, 1:] -= FIELD * np.round(apart[:, 1:] / FIELD)  # the field repeats along y and x
        distance = np.linalg.norm(apart, axis=1) * PIXEL_SIZE
        near = len(centres) > 0 and distance.min() <= NEAR
        judged.append({"on_complex": on, "finds": int(distance.argmin()) if near else -1})
    return judged


def main() -> None:
    """Write the file."""
    found = []
    models = sorted(path.name for path in MODELS.iterdir())
    kinds = {"molecules of the target": IN_CELLS, "other molecules": OTHERS}
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(kinds) * len(SEEDS)) as bar:
        for kind, names in kinds.items():
            for seed in SEEDS:
                volume, mask, centres = crowded(seed, names)
                write_mrc(path := Path(folder) / "t.mrc", volume, PIXEL_SIZE, overwrite=True)
                ways = {(model, by): particles(path, model, by) for model in models for by in (DIAMETER, None)}
                for (model, by), (rows, scores) in [*ways.items(), (("blobs", DIAMETER), blobs(volume))]:
                    about = {"tomogram": kind, "seed": seed, "molecules": len(centres), "model": model, "diameter": by}
                    judged = judge(rows, centres.numpy(), mask.numpy())
                    each = [{"score": round(float(s), 4), **row} for s, row in zip(scores, judged, strict=True)]
                    found.append({**about, "particles": each})
                bar.update()
    sizes = {"near": NEAR, "min_voxels": MIN_VOXELS}
    save_json({"collected_by": provenance(), **sizes, "tomograms": found}, ROOT / "results" / "picks.json")


if __name__ == "__main__":
    main()
