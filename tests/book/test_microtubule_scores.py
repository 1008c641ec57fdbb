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
    for name in ({"packaged": "ours"}, {"row": "self-training", "seed": 0}):
        (row,) = [row for row in stored["models"] if row.items() >= {**name, **way}.items()]
        found = microtubule.model_scores(tomogram, wall, models[names.index(name)], **way)
        assert {**name, **way, **found} == pytest.approx(row, abs=0.005)
    assert microtubule.blur_scores(fetched_microtubule, 2.0) == pytest.approx(stored["blur"][2], abs=0.005)
