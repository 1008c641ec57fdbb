"""The script that scores networks trained on simulations alone on real ribosomes."""

import json
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import simulations_on_ribosomes

from voxuda.data import ribosomes
from voxuda.data.subtomograms import load_domain
from voxuda.simulation import molecules
from voxuda.training.run_folder import MODELS


def test_stored_means_are_those_of_the_stored_boxes(root):
    stored = json.loads((root / "results" / "simulations-on-ribosomes.json").read_text())
    assert stored["n"] == 20 and len(stored["networks"]) > 30
    for row in stored["networks"]:
        assert len(row["samples"]) == 20 and statistics.mean(row["samples"]) == pytest.approx(row["iou"], abs=1e-4)


def test_stored_numbers_come_out_again(stacks, root, tmp_path):
    stored = json.loads((root / "results" / "simulations-on-ribosomes.json").read_text())["networks"]
    volume = molecules.molecular_volume(molecules.load("4v4r"), ribosomes.VOXEL_SIZE)
    real = load_domain(ribosomes.prepare(stacks, tmp_path / "ribosomes", volume=volume, missing="skip"))
    found = simulations_on_ribosomes.model_scores(MODELS / "self-training", real)
    for kind in ("model", "real"):
        (row,) = [r for r in stored if r.get("packaged") == "self-training" and r["statistics"] == kind]
        assert found[kind] == pytest.approx(row["samples"], abs=0.02)
