"""The target by tilt series was accepted by two rules, written down before its runs were read."""

import statistics
from typing import get_args

from voxuda.experiments import report, sweep, tables
from voxuda.networks.choices import Normalisation
from voxuda.training.run_folder import RESULTS

LEARNT, EASY = 0.55, 0.6
"""A supervised network has at least this IoU, and blur and threshold at most this share of it."""


def test_the_target_can_be_learnt_and_is_not_solved_by_a_blur():
    asked = tables.Sweep("ours", "laptop", recipe="tilt-series")
    rows = {row["name"]: row["runs"] for row in sweep.collect(asked, RESULTS / "laptop-tilt-series")["rows"]}
    score = {name: statistics.mean(run["target"]["iou"] for run in runs) for name, runs in rows.items()}
    assert len(rows["supervised"]) >= 2
    assert score["supervised"] >= LEARNT
    assert score["blur-threshold"] <= EASY * score["supervised"]
    # Not by the rules, but worth knowing: width and share chosen on the test masks would come closer, and not all the way.
    ceiling = statistics.mean(run["best_with_labels"] for run in rows["blur-threshold"])
    assert score["blur-threshold"] < ceiling < 0.8 * score["supervised"]


def test_tables_take_the_normalisation_that_the_rule_without_labels_takes():
    asked = tables.Sweep("normalisation", "laptop", recipe="tilt-series")
    rows = {row["name"]: row for row in sweep.collect(asked, RESULTS / "laptop-tilt-series")["rows"]}

    def agreement(row: dict) -> float:
        chosen = report.by_agreement(row)
        return statistics.mean(run["signs"][chosen]["agreement"] for run in row["runs"])

    for method in ("source-only", "dann", "vox-uda", "supervised"):
        best = max(get_args(Normalisation), key=lambda kind: agreement(rows[f"{method}-{kind}"]))
        assert best == tables.NORMALISATION["tilt-series"], method
