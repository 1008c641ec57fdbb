"""The controls of molecule size on the ladder have the sizes that they promise, and their stored scores are complete."""

import json
import sys
from pathlib import Path

import pytest

from voxuda.simulation import molecules

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import ladder_size

ROOT = Path(__file__).resolve().parents[2]


def test_a_scaled_molecule_has_the_same_density(tmp_path):
    small, large = molecules.load("1oel"), molecules.load(ladder_size.scaled("1oel", 2.0, tmp_path))
    assert large.mass == pytest.approx(8 * small.mass, rel=1e-3) and large.radius == pytest.approx(2 * small.radius, rel=1e-2)
    assert ladder_size.volume(("1oel",)) * 8 == pytest.approx(molecules.molecular_volume(large, 10.0), rel=0.15)


def test_controls_have_the_size_of_the_other_molecules(tmp_path):
    size = {key: ladder_size.volume(rung.names) for key, rung in ladder_size.rungs(tmp_path).items()}
    assert size["small-others"] == pytest.approx(size["source"], rel=0.1)
    assert size["large-own"] == pytest.approx(size["molecules"], rel=0.1)


def test_stored_controls_are_scored_at_home():
    stored = json.loads((ROOT / "results" / "ladder-size-laptop.json").read_text())
    runs = {row["name"]: row["runs"] for row in stored["controls"]}
    assert [*runs] == [*ladder_size.LABELS] and all(len(of) == stored["seeds"] for of in runs.values())
    assert {name for name, of in runs.items() if all("home" in run for run in of)} == {"small-others", "large-own"}
