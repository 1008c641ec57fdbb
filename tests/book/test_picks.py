"""The script that counts particles in simulated crowded cells."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import picks

from voxuda.simulation.specimen import FIELD, PIXEL_SIZE


def test_a_particle_finds_the_molecule_that_it_is_nearest_to():
    mask = np.zeros((FIELD, FIELD, FIELD), bool)
    mask[20:24, 20:24, 20:24] = True
    centres = np.array([[21.0, 21, 21], [21, 21, 32], [80, 80, 80]])
    near, between, far = [21.0, 21, 22], [21.0, 21, 30], [50.0, 50, 50]
    assert picks.judge(np.array([near]), centres, mask) == {"particles": 1, "on_complex": 1, "molecules": 3, "found": 1}
    assert picks.judge(np.array([near, near, far]), centres, mask)["found"] == 1
    assert picks.judge(np.array([near, between]), centres, mask)["found"] == 2
    beyond = centres[2] + [picks.NEAR / PIXEL_SIZE + 0.1, 0, 0]
    assert picks.judge(np.array([beyond]), centres, mask)["found"] == 0
    assert picks.judge(np.empty((0, 3)), centres, mask)["particles"] == 0


def test_blobs_are_the_middles_of_balls_the_brighter_first():
    grid = torch.stack(torch.meshgrid(*[torch.arange(FIELD)] * 3, indexing="ij"), -1).double()
    radius = 100 / PIXEL_SIZE
    volume = sum(b * ((grid - torch.tensor(c)).norm(dim=-1) < radius) for b, c in ((1, (30, 30, 30)), (2, (60, 62, 64))))
    assert picks.peaks(volume, 2).tolist() == [[60, 62, 64], [30, 30, 30]]


def test_stored_counts_are_possible(root):
    rows = json.loads((root / "results" / "picks.json").read_text())["tomograms"]
    assert len(rows) == 2 * len(picks.SEEDS) * len(picks.LEAST) * 5
    for row in rows:
        assert row["found"] <= min(row["molecules"], row["particles"]) and row["on_complex"] <= row["particles"]
