"""Train a candidate for the model that ``voxuda segment`` takes by default: self-training on both simulated targets.

Usage: python book/ready_model.py OUT. Some ten minutes on one core. What it scores says results/ours.md; it is not shipped yet.
"""

import sys
from pathlib import Path

import torch

from voxuda.data.subtomograms import write_samples
from voxuda.simulation import molecules, quick, tilt_series
from voxuda.training.config import Config
from voxuda.training.evaluation import evaluate_run
from voxuda.training.loop import train

SEED = 0
EACH = 300
"""Samples of each target; 60 % of them are for training."""


def main(out: Path) -> None:
    """Make ``OUT/target`` and ``OUT/run``."""
    torch.set_num_threads(1)
    names = molecules.TARGET_MOLECULES
    alone = quick.simulate_target([molecules.load(n) for n in names], n_per_molecule=EACH // len(names), seed=SEED)
    crowded = tilt_series.simulate_tilt_series([molecules.load(n) for n in molecules.IN_CELLS], n=EACH, seed=SEED)
    table = [{"molecule": row["molecule"], "specimen": row["specimen"]} for row in crowded.table]
    table += [{"molecule": row["molecule"], "specimen": EACH + i} for i, row in enumerate(alone.table)]
    stacks = {kind: torch.cat([getattr(crowded, kind), getattr(alone, kind)]) for kind in ("volumes", "masks")}
    target = write_samples(out / "target", stacks, crowded.voxel_size, table)
    config = Config("self-training", "laptop", target=str(target), source_set="nine", seed=SEED)
    train(config, out / "run", resume=True)
    print(f"IoU {100 * evaluate_run(out / 'run').scores.overall.iou:.1f} %")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
