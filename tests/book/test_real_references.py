"""The script that measures, on real data, what needs no network, and draws masks of the microtubule."""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import real_references
from microtubule import read_wall


def test_a_ball_that_is_the_label_scores_one():
    z, y, x = np.indices((9, 9, 9)) - 4
    assert real_references.ball(z**2 + y**2 + x**2 <= 9) == 1.0
    assert real_references.ball(np.roll(z**2 + y**2 + x**2 <= 9, 4, 0)) < 0.3


def test_references_without_settings_have_none(tmp_path):
    run = {"seed": 0, "n": 2, "chosen": {"sigma": 1.5}, "target": {"iou": 0.2, "samples": [0.1, 0.3]}}
    table = {"rows": [{"name": "real-otsu", "runs": [run]}]}
    (tmp_path / "real-laptop.json").write_text(json.dumps(table))
    assert real_references.ribosomes(tmp_path) == {"otsu": [{"seed": 0, "chosen": {"sigma": 1.5}, "iou": [0.1, 0.3]}]}


def test_stored_pictures_come_out_again(fetched_microtubule, root):
    stored = json.loads((root / "results" / "real-references.json").read_text())["microtubule"]
    assert real_references.ball(read_wall(fetched_microtubule)) == stored["ball"]
    for way, picture in real_references.pictures(fetched_microtubule).items():
        assert picture["truth"] == stored[way]["truth"]
        for name, mask in picture["found"].items():
            differ = [a != b for one, other in zip(mask, stored[way]["found"][name], strict=True)
                      for a, b in zip(one, other, strict=True)]  # fmt: skip
            assert np.mean(differ) < 0.005, name  # voxels at the threshold
