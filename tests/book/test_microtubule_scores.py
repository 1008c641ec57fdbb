"""The script that scores the stored models on the real microtubule."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import microtubule


def test_stored_numbers_come_out_again(fetched_microtubule, root):
    stored = json.loads((root / "results" / "microtubule.json").read_text())
    tomogram, wall = fetched_microtubule / "microtubule.mrc", microtubule.read_wall(fetched_microtubule)
    names, models = zip(*microtubule.networks(root / "results" / "laptop"), strict=True)
    way = {"normalise": "volume", "batch_norm": "volume", "flips": False}
    for name in ({"packaged": "balanced"}, {"row": "self-training", "seed": 0}):
        (row,) = [row for row in stored["models"] if row.items() >= {**name, **way}.items()]
        found = microtubule.model_scores(tomogram, wall, models[names.index(name)], **way)
        assert {**name, **way, **found} == pytest.approx(row, abs=0.005)
    way = {"normalise": "tile", "batch_norm": "model", "flips": False}
    (row,) = [row for row in stored["models"] if row.items() >= {"packaged": "balanced", **way}.items()]
    model = models[names.index({"packaged": "balanced"})]
    found = microtubule.agreement(microtubule.probabilities(tomogram, model, **way), tomogram, model, **way)
    assert found == pytest.approx(row["agreement"], abs=0.005)
    assert microtubule.blur_scores(fetched_microtubule, 2.0) == pytest.approx(stored["blur"][2], abs=0.005)


def test_the_help_names_the_best_models(root):
    """`voxuda segment --help` says which packaged model is best where."""
    scores, usual = {}, {"normalise": "tile", "batch_norm": "model"}
    for row in json.loads((root / "results" / "tomogram-rules.json").read_text())["scores"]:
        if row.items() >= usual.items():
            crowded = "crowded cells" if "crowded" in row["tomogram"] else "few particles"
            scores.setdefault(crowded, {}).setdefault(row["model"], []).append(row["iou"])
    for row in json.loads((root / "results" / "microtubule.json").read_text())["models"]:
        if row.items() >= {**usual, "flips": False}.items() and "packaged" in row:
            scores.setdefault("microtubule", {})[row["packaged"]] = [row["iou"]]
    best = {where: max(models, key=lambda name: sum(models[name])) for where, models in scores.items()}
    assert best == {"few particles": "balanced", "crowded cells": "self-training", "microtubule": "vox-uda-bf"}
