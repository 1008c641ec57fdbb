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
    for way in (("ours", "tile", "model", False), ("source-only", "volume", "volume", False)):
        (row,) = [row for row in stored["models"] if tuple(row.values())[:4] == way]
        assert microtubule.model_scores(tomogram, wall, *way) == pytest.approx(row, abs=0.005)
    assert microtubule.blur_scores(fetched_microtubule, 2.0) == pytest.approx(stored["blur"][2], abs=0.005)
