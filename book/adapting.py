"""Does training on a tomogram's own tiles improve a model there? Scores of five ways, as JSON.

Usage: python book/adapting.py FOLDER RUN, where FOLDER is the --out of `voxuda data fetch microtubule` and RUN a finished run
of self-training. About 40 minutes on one thread. Writes results/adapting.json; what it already holds is not made again.
"""

import copy
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from microtubule import ROOT, read_wall, scores
from tomogram_rules import OTHERS, tilts
from tqdm import tqdm

from voxuda.data.domain import Domain
from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.methods.base import Batch
from voxuda.methods.self_training import SelfTraining
from voxuda.networks.voxresnet import VoxResNet, target_batch_norm
from voxuda.training import loop, segmentation
from voxuda.training.config import Config, SegmentOptions
from voxuda.training.domains import load_domains
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import load_network, save_json

SEEDS = (0, 1, 2)
"""Seeds of the training, its source and the simulated tomogram."""

SIDE = 32
"""Side of a tile in voxels; neighbouring tiles overlap by half."""

STEPS, RATE = 120, 3e-4
"""Number of steps that train the model further, and Adam's learning rate."""


def cut(volume: np.ndarray) -> torch.Tensor:
    """Tiles ``(N, 1, 32, 32, 32)`` of a tomogram, normalised as a whole."""
    whole = torch.from_numpy(volume.astype(np.float32))
    whole = (whole - whole.mean()) / whole.std()
    starts = ([*range(0, side - SIDE, SIDE // 2), side - SIDE] for side in whole.shape)
    return torch.stack([whole[z : z + SIDE, y : y + SIDE, x : x + SIDE] for z, y, x in product(*starts)])[:, None]


def with_statistics(network: VoxResNet, tiles: torch.Tensor) -> VoxResNet:
    """The same network with batch norm statistics of the tiles."""
    measured = copy.deepcopy(network)
    measured.load_state_dict(target_batch_norm(measured, tiles), strict=False)
    return measured.eval()


class PlainView(SelfTraining):
    """Self-training whose teacher sees the tiles without denoising."""

    def prepare(self, target: torch.Tensor) -> None:
        super().prepare(target)
        self.denoised = target


def from_scratch(tiles: torch.Tensor, source: Domain, seed: int, folder: Path) -> VoxResNet:
    """A network trained from scratch on simulations and the tiles."""
    target = Domain(tiles, None, ["tile"] * len(tiles))
    with patch.object(loop, "load_domains", lambda config, progress=False: (source, target, target)):
        return loop.train(Config("self-training", "laptop", seed=seed), folder, progress=False).student


def further(kind: type[SelfTraining], start: VoxResNet, tiles: torch.Tensor, source: Domain, seed: int) -> VoxResNet:
    """A trained model, trained further on simulations and the tiles."""
    torch.manual_seed(seed)
    method = kind(8)
    for network in (method.student, method.teacher.network):
        network.load_state_dict(start.state_dict())
    method.teacher.step.fill_(10**6)  # else the average of the first students replaces the model
    method.prepare(tiles)
    method.train()
    optimizer = torch.optim.Adam(method.student.parameters(), RATE)
    generator = torch.Generator().manual_seed(seed)
    assert source.masks is not None
    for _ in range(STEPS):
        s, t = (torch.randperm(len(x), generator=generator)[:8] for x in (source, tiles))
        batch = Batch(source.volumes[s], source.masks[s, 0].long(), tiles[t], None, t, generator)
        optimizer.zero_grad()
        torch.stack([*method.losses(batch, 1.0).values()]).sum().backward()
        optimizer.step()
        method.after_step()
    return with_statistics(method.student, tiles)


def score(network: VoxResNet, path: Path, truth: np.ndarray) -> dict[str, float]:
    """Scores of the mask that ``voxuda segment --normalise volume`` makes."""
    # Any model will do: the network takes its place.
    options = SegmentOptions(model="vox-uda", normalise="volume", probabilities=True, picture=False, device="cpu")
    with tempfile.TemporaryDirectory() as out, patch.object(segmentation, "load_network", lambda _: copy.deepcopy(network)):
        segmentation.segment_files([path], out, options, progress=False)
        return scores(read_mrc(Path(out) / f"{path.stem}_probabilities.mrc").data, truth, options.threshold)


def main(folder: Path, run: Path) -> None:
    """Write the file, again after each way."""
    torch.set_num_threads(1)
    path, start = ROOT / "results" / "adapting.json", load_network(run)
    made_by = provenance()  # before the first score, which changes a tracked file
    rows = json.loads(path.read_text())["scores"] if path.exists() else []
    made = {(row["tomogram"], row["seed"], row["way"]) for row in rows}
    with tempfile.TemporaryDirectory() as place, tqdm(total=2 * 5 * len(SEEDS), initial=len(made)) as bar:
        for seed in SEEDS:
            # The source is that of every target; a target by convolution takes least time.
            source = load_domains(Config("self-training", "laptop", seed=seed, recipe="convolution"))[0]
            volume, mask, size = tilts(seed, OTHERS)
            write_mrc(Path(place) / "simulated.mrc", volume, size, overwrite=True)
            tomograms = {"microtubule": (folder / "microtubule.mrc", read_wall(folder))}
            tomograms["simulated"] = Path(place) / "simulated.mrc", mask.numpy()
            for name, (tomogram, truth) in tomograms.items():
                tiles = cut(read_mrc(tomogram).data)
                ways: dict[str, Callable[[], VoxResNet]] = {
                    "as it is": lambda: start,
                    "its statistics": partial(with_statistics, start, tiles),
                    "trained from scratch": partial(from_scratch, tiles, source, seed, Path(place) / f"{name}-{seed}"),
                    "trained further": partial(further, SelfTraining, start, tiles, source, seed),
                    "trained further, plain view": partial(further, PlainView, start, tiles, source, seed),
                }
                for way in [way for way in ways if (name, seed, way) not in made]:
                    rows.append({"tomogram": name, "seed": seed, "way": way, **score(ways[way](), tomogram, truth)})
                    save_json({"collected_by": made_by, "steps": STEPS, "scores": rows}, path)
                    bar.update()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
