"""The script that counts particles in simulated crowded cells."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import picks

from voxuda.simulation.specimen import FIELD, PIXEL_SIZE


def test_a_particle_finds_the_molecule_that_it_is_nearest_to():
    mask = np.zeros((FIELD, FIELD, FIELD), bool)
    mask[20:24, 20:24, 20:24] = True
    centres = np.array([[21.0, 21, 21], [21, 21, 32], [80, 80, 80]])
    beyond = centres[2] + [picks.NEAR / PIXEL_SIZE + 0.1, 0, 0]
    rows = np.array([[21.0, 21, 22], [21, 21, 30], [50, 50, 50], beyond])
    judged = picks.judge(rows, centres, mask)
    assert [row["finds"] for row in judged] == [0, 1, -1, -1]
    assert [row["on_complex"] for row in judged] == [True, False, False, False]
    assert picks.judge(rows[:1], np.empty((0, 3)), mask)[0]["finds"] == -1
    assert picks.judge(np.empty((0, 3)), centres, mask) == []


def test_blobs_are_the_middles_of_balls_the_brighter_first():
    grid = torch.stack(torch.meshgrid(*[torch.arange(FIELD)] * 3, indexing="ij"), -1).float()
    radius = picks.DIAMETER / 2 / PIXEL_SIZE
    volume = sum(float(b) * ((grid - torch.tensor(c)).norm(dim=-1) < radius) for b, c in ((1, (30, 30, 30)), (2, (60, 62, 64))))
    assert picks.blobs(volume)[0][:2].round().tolist() == [[60, 62, 64], [30, 30, 30]]


def test_stored_particles_are_possible(root):
    rows = json.loads((root / "results" / "picks.json").read_text())["tomograms"]
    assert len(rows) == 2 * len(picks.SEEDS) * 9
    for row in rows:
        assert all(-1 <= p["finds"] < row["molecules"] for p in row["particles"])
        if row["diameter"]:
            scores = [p["score"] for p in row["particles"]]
            assert scores == sorted(scores, reverse=True)
            assert row["model"] == "blobs" or min(scores, default=1) >= 0.5


def test_stored_particles_come_out_again(root, tmp_path):
    stored = json.loads((root / "results" / "picks.json").read_text())["tomograms"]
    volume, mask, centres = picks.crowded(0, picks.IN_CELLS)
    path = picks.write_mrc(tmp_path / "t.mrc", volume, PIXEL_SIZE)
    rows, scores = picks.particles(path, "self-training", picks.DIAMETER)
    wanted = {"tomogram": "molecules of the target", "seed": 0, "model": "self-training", "diameter": picks.DIAMETER}
    (row,) = (row for row in stored if wanted.items() <= row.items())
    again = picks.judge(rows, centres.numpy(), mask.numpy())
    assert [p["finds"] for p in again] == [p["finds"] for p in row["particles"]]
    assert scores.tolist() == pytest.approx([p["score"] for p in row["particles"]], abs=0.01)
