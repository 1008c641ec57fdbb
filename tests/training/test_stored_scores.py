"""The stored weights still give the scores that they gave when they were stored: whatever is moved, this must not change."""

import json
from functools import cache
from pathlib import Path

import pytest

from voxuda import from_simulation
from voxuda.simulation import molecules, quick
from voxuda.training import evaluation
from voxuda.training.domains import load_target
from voxuda.training.run_folder import load_network, read_config

ROOT = Path(__file__).resolve().parents[2]
PINNED = ROOT / "tests" / "reference" / "stored_scores.json"
RUNS = sorted(path.parent for path in (ROOT / "results").rglob("weights.safetensors"))
KINDS = ("target", "running")


@cache
def samples():
    """Six quick samples, the same for all networks, since a run's own take minutes to simulate."""
    library = [molecules.load(name) for name in molecules.TARGET_MOLECULES]
    return from_simulation(quick.simulate_target(library, n_per_molecule=2, seed=0))


def scores_of(run: Path) -> dict[str, float]:
    """Mean IoU in percent with both kinds of batch norm statistics."""
    found = {}
    for kind in KINDS:
        predicted = evaluation.predict(load_network(run, kind), samples().volumes) > 0.5
        found[kind] = round(100 * float(evaluation.iou_and_dice(predicted, samples().masks[:, 0])[0].mean()), 3)
    return found


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.relative_to(ROOT / "results").as_posix())
def test_stored_weights_give_their_scores(run):
    # One voxel that flips on another processor moves the mean by some 0.01 points.
    pinned = json.loads(PINNED.read_text())[run.relative_to(ROOT / "results").as_posix()]
    assert scores_of(run) == pytest.approx(pinned, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in RUNS if (run / "summary.json").exists()], ids=lambda run: run.parent.name)
def test_weights_are_those_of_the_summary(run):
    """Which was scored before the weights were rounded to bfloat16."""
    test, stored = load_target(read_config(run))[1], json.loads((run / "summary.json").read_text())
    for kind in KINDS:
        predicted = evaluation.predict(load_network(run, kind), test.volumes) > 0.5
        score = 100 * float(evaluation.iou_and_dice(predicted, test.masks[:, 0])[0].mean())
        assert score == pytest.approx(100 * stored[kind]["iou"], abs=1.5)


def test_every_pin_has_its_weights():
    assert set(json.loads(PINNED.read_text())) == {run.relative_to(ROOT / "results").as_posix() for run in RUNS}


if __name__ == "__main__":  # after a change that is meant to change scores
    pins = {run.relative_to(ROOT / "results").as_posix(): scores_of(run) for run in RUNS}
    PINNED.write_text(json.dumps(pins, indent=1) + "\n")
