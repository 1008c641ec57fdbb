"""Which model of the package to take, and how tiles of a tomogram are best normalised: scores on simulated tomograms, as JSON.

Usage: python book/tomogram_rules.py. Some twenty minutes on one thread. Writes results/tomogram-rules.json; what the same
choices do on a real tomogram says book/microtubule.py.
"""

import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from microtubule import ROOT, model_scores
from tqdm import tqdm

from voxuda.data.mrc import write_mrc
from voxuda.simulation import molecules
from voxuda.simulation.imaging import image_target
from voxuda.simulation.microscope import draw_series, reconstruct, record
from voxuda.simulation.molecules import IN_CELLS, MASK_THRESHOLD, TARGET_MOLECULES
from voxuda.simulation.quick import render
from voxuda.simulation.specimen import FIELD, PIXEL_SIZE, build_specimen
from voxuda.simulation.tilt_series import CROWDERS, truth
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import MODELS, save_json

SEEDS = (0, 1)
"""Models and rules were chosen on tomograms of seeds 100 and 101."""

OTHERS = ("6qzp", "1gyt", "1qvr", "3d2f", "1u6g", "2cg9")
"""Ribosomes, and molecules that no model was trained to find."""


def quick(seed: int, snr: float, slope: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Four particles in one half of 96³ voxels, brightness and contrast growing along y by ``slope`` on either side."""
    generator = torch.Generator().manual_seed(seed)
    library = [molecules.load(name) for name in TARGET_MOLECULES]
    choice = torch.tensor([[0], [1], [2], [0]])
    particles = render(library, choice, size=48, voxel_size=13.5, generator=generator, max_offset=0)[:, 0]
    density = torch.zeros(96, 96, 96)
    for particle, (z, y) in zip(particles, product((0, 48), repeat=2), strict=True):
        density[z : z + 48, y : y + 48, :48] = particle
    edge, defocus, ratio = torch.tensor([13.5]), torch.tensor([45e3]), torch.tensor([snr])
    image = image_target(density[None, None], ratio, defocus, edge, generator)[0, 0]
    ramp = torch.linspace(1 - slope, 1 + slope, 96)[:, None]
    return (image + 0.7 * image.std()) * ramp, density > MASK_THRESHOLD, 13.5


def crowded(seed: int, names: Sequence[str] = IN_CELLS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The crowded middle of a tomogram by a tilt series, 96 sections of it, with six molecules of interest, half of them the
    first, and others; the mask of all complexes; and the voxels ``(K, 3)`` of the molecules of interest in these sections."""
    generator, imaging = (torch.Generator().manual_seed(seed + k) for k in (0, 1000))
    library = [molecules.load(name) for name in names]
    crowders = [*library, *(molecules.load(name) for name in CROWDERS if name not in names)]
    series, depth, half = draw_series(generator), 260, 48
    wanted = [library[i] for i in (0, 0, 0, 1, 2, 0)]
    specimen = build_specimen(wanted, crowders, series.thickness, depth, generator, concentration=series.concentration)
    tomogram = reconstruct(record(specimen.density, series, imaging), series, depth)
    density, first = torch.zeros(2 * half, FIELD, FIELD), depth // 2 - half
    for z, y, x in product(range(half // 2, 2 * half, half), range(24, FIELD, 48), range(24, FIELD, 48)):
        centre = torch.tensor([[first + z, y, x]])
        density[z - 24 : z + 24, y - 24 : y + 24, x - 24 : x + 24] = truth(specimen, centre, 48, PIXEL_SIZE)[0, 0]
    centres = specimen.centres - torch.tensor([first, 0, 0])
    inside = (centres[:, 0] >= 0) & (centres[:, 0] < 2 * half)
    return tomogram[first : first + 2 * half], density > MASK_THRESHOLD, centres[inside]


def tilts(seed: int, names: Sequence[str] = IN_CELLS) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A crowded tomogram, its mask, and its voxel size."""
    return *crowded(seed, names)[:2], PIXEL_SIZE


def main() -> None:
    """Write the file."""
    made = {f"even, SNR {snr}": [quick(seed, snr, 0.0) for seed in SEEDS] for snr in (0.03, 0.3)}
    made |= {f"brighter along y, SNR {snr}": [quick(seed, snr, 0.3) for seed in SEEDS] for snr in (0.03, 0.3)}
    made["tilt series, crowded"] = [tilts(seed) for seed in SEEDS]
    made["tilt series, crowded, other molecules"] = [tilts(seed, OTHERS) for seed in SEEDS]
    ways = list(product(sorted(MODELS.iterdir()), ("tile", "volume"), ("model", "volume")))
    found = []
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(ways) * len(made) * len(SEEDS)) as bar:
        for kind, volumes in made.items():
            for seed, (volume, mask, voxel_size) in zip(SEEDS, volumes, strict=True):
                write_mrc(Path(folder) / "t.mrc", volume, voxel_size, overwrite=True)
                for model, normalise, of in ways:
                    way = {"normalise": normalise, "batch_norm": of}
                    found.append({"tomogram": kind, "seed": seed, "model": model.name, **way})
                    found[-1] |= model_scores(Path(folder) / "t.mrc", mask.numpy(), model, **way)
                    bar.update()
    save_json({"collected_by": provenance(), "scores": found}, ROOT / "results" / "tomogram-rules.json")


if __name__ == "__main__":
    main()
