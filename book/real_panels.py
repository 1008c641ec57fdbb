"""Middle slices of real test particles with the masks that finished runs give them, as JSON for the chapter on them.

Usage: python book/real_panels.py RUNS RIBOSOMES, where RUNS is the --out of `voxuda reproduce real` and RIBOSOMES the folder
of its --target; shown is the first seed. Writes results/real-panels.json; the chapter then needs neither.
"""

import dataclasses
import sys
from pathlib import Path

import torch

from voxuda.signal.fourier import apply_filter, soft_lowpass
from voxuda.training import evaluation
from voxuda.training.domains import load_target
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import load_network, read_config, save_json

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ("source-only", "vox-uda", "self-training", "supervised")
PARTICLES = 3


def rows(image: torch.Tensor) -> list[str]:
    """An image ``(H, W)`` as lines of bytes in hexadecimal, from its 1st to its 99th percentile."""
    low, high = image.flatten().float().quantile(torch.tensor([0.01, 0.99]))
    grey = (255 * ((image - low) / (high - low)).clamp(0, 1)).round().int().tolist()
    return [bytes(line).hex() for line in grey]


def outline(mask: torch.Tensor) -> list[str]:
    """A mask ``(H, W)`` as lines of 0 and 1."""
    return ["".join("01"[int(v)] for v in line) for line in mask]


def main(folder: Path, ribosomes: Path) -> None:
    """Write the file."""
    (first, *_) = sorted(folder.glob("real-source-only/seed-*"))
    config = dataclasses.replace(read_config(first), target=str(ribosomes))
    _, test = load_target(config)
    assert test.masks is not None
    # 40 Å of 12 Å voxels: what an eye needs; the networks see the volumes as they are.
    smooth = apply_filter(test.volumes, soft_lowpass(32, 32 * 12 / 40, 1.5))
    found = {}
    for name in SHOWN:
        network = load_network(folder / f"real-{name}" / first.name)
        found[name] = evaluation.predict(network, test.volumes) > 0.5
    particles = [
        {
            "volume": rows(test.volumes[i, 0, 16]),
            "smooth": rows(smooth[i, 0, 16]),
            "truth": outline(test.masks[i, 0, 16]),
            "found": {name: outline(masks[i, 16]) for name, masks in found.items()},
        }
        for i in range(PARTICLES)
    ]
    about = {"collected_by": provenance(), "seed": config.seed}
    save_json({**about, "particles": particles}, ROOT / "results" / "real-panels.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
