"""Spectra and histograms of simulated targets beside those of real data, as JSON for the chapter on tilt series.

Usage: VOXUDA_DATA=FOLDER python book/target_beside_real.py, where FOLDER/real holds the ribosomes' stacks and the microtubule's
TIFF. Takes a minute on one thread. Writes results/target-beside-real.json; the chapter then needs no data.
"""

import os
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from voxuda.data import microtubule, ribosomes
from voxuda.data.mrc import read_mrc
from voxuda.data.subtomograms import load_domain
from voxuda.signal.normalise import zscore
from voxuda.signal.spectra import radial_power
from voxuda.simulation import molecules, quick, tilt_series
from voxuda.simulation.microscope import PHASE_PLATE
from voxuda.training.config import SCALES
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import save_json

ROOT = Path(__file__).resolve().parent.parent
SAMPLES, SEED, SIDE = 48, 2000, 32
FREQUENCY = np.linspace(1 / 200, 1 / 30, 57)
"""In 1/angstrom, where every domain has power: below it are fewer than three waves to a crop, above it voxels end."""

EDGES = np.linspace(-6, 6, 121)
"""Of the histogram's bins, in standard deviations of a crop; what lies beyond is counted in the last ones."""


def power(volumes: torch.Tensor, voxel_sizes: Sequence[float]) -> list[float]:
    """Mean radial power of cubes ``(B, 1, D, D, D)`` of variance 1, each at its own voxel size, with an integral of 1."""
    side = volumes.shape[-1]
    mean = np.zeros_like(FREQUENCY)
    for volume, edge in zip(zscore(volumes), voxel_sizes, strict=True):
        shells = radial_power(volume[None]).numpy()
        mean += np.exp(np.interp(FREQUENCY, np.arange(len(shells)) / (side * edge), np.log(shells + 1e-9)))
    step = FREQUENCY[1] - FREQUENCY[0]
    return [float(f"{value:.4g}") for value in mean / mean.sum() / step]


def histogram(volumes: torch.Tensor) -> list[float]:
    """Share of the voxels of cubes ``(B, 1, D, D, D)``, each of mean 0 and variance 1, in every bin."""
    counts = np.histogram(zscore(volumes).numpy().clip(EDGES[0], EDGES[-1]), EDGES)[0]
    return (counts / counts.sum()).round(7).tolist()


def apart(one: dict, other: dict) -> dict[str, float]:
    """Distances of two domains: of their spectra, in decades of power, and of their histograms, in standard deviations."""
    middles = (EDGES[:-1] + EDGES[1:]) / 2
    spectra = np.log10(one["power"]) - np.log10(other["power"])
    histograms = wasserstein_distance(middles, middles, one["histogram"], other["histogram"])
    return {"power": round(float(np.abs(spectra).mean()), 4), "histogram": round(float(histograms), 4)}


def simulated() -> dict[str, quick.Subtomograms]:
    """The domains of this book, by name, as many samples of each."""
    in_cells, target, source = (
        [molecules.load(name) for name in names]
        for names in (
            molecules.IN_CELLS,
            molecules.TARGET_MOLECULES,
            [molecules.STAND_INS.get(name, name) for name in molecules.PAPER_SOURCE_SETS["table1"]],
        )
    )
    ratios = SCALES["laptop"]["source_snr"]
    each = SAMPLES // len(source) // len(ratios)
    plate = dict(n=SAMPLES, seed=SEED, **PHASE_PLATE)
    return {
        "tilt series": tilt_series.simulate_tilt_series(in_cells, n=SAMPLES, seed=SEED),
        "phase plate": tilt_series.simulate_tilt_series(in_cells, **plate),  # type: ignore[arg-type]
        "quick target": quick.simulate_target(target, n_per_molecule=SAMPLES // len(target), seed=SEED),
        "source": quick.simulate_source(source, n_per_molecule=each, snr=ratios, seed=SEED),
    }


def crops(volume: np.ndarray) -> torch.Tensor:
    """As many cubes ``(B, 1, D, D, D)`` as fit side by side into the middle of a tomogram ``(D, H, W)``."""
    corners = [(n % SIDE // 2 + SIDE * np.arange(n // SIDE)).tolist() for n in volume.shape]
    cubes = [volume[z : z + SIDE, y : y + SIDE, x : x + SIDE] for z, y, x in product(*corners)]
    return torch.from_numpy(np.stack(cubes).astype(np.float32))[:, None]


def real(folder: Path) -> dict[str, tuple[torch.Tensor, float]]:
    """Cubes and voxel size of the real data by name, as `voxuda data` makes them, none of them rescaled."""
    with tempfile.TemporaryDirectory() as work:
        volume = molecules.molecular_volume(molecules.load("4v4r"), ribosomes.VOXEL_SIZE)
        stacks, out = folder / "ribosome_tilt_stacks", Path(work) / "ribosomes"
        ribosomes.prepare(stacks, out, volume=volume, missing="skip")
        microtubule.prepare(folder / "microtubule" / "13pf_MT.tif", work)
        tubule = crops(read_mrc(Path(work) / "microtubule.mrc").data)
        return {
            "real ribosomes": (load_domain(out).volumes, ribosomes.VOXEL_SIZE),
            "real microtubule": (tubule, microtubule.VOXEL_SIZE),
        }


def main(folder: Path) -> None:
    """Write the file."""
    made = {name: (samples.volumes, [row["voxel_size"] for row in samples.table]) for name, samples in simulated().items()}
    measured = {name: (volumes, [edge] * len(volumes)) for name, (volumes, edge) in real(folder).items()}
    domains = {
        name: {
            "samples": len(volumes),
            "voxel_size": [round(min(edges), 2), round(max(edges), 2)],
            "power": power(volumes, edges),
            "histogram": histogram(volumes),
        }
        for name, (volumes, edges) in (made | measured).items()
    }
    result = {
        "collected_by": provenance(),
        "frequency": FREQUENCY.round(7).tolist(),
        "edges": EDGES.round(7).tolist(),
        "domains": domains,
        "apart": {name: {one: apart(domains[name], domains[one]) for one in measured} for name in domains},
    }
    save_json(result, ROOT / "results" / "target-beside-real.json")


if __name__ == "__main__":
    main(Path(os.environ["VOXUDA_DATA"]) / "real")
