"""The script that draws masks of the microtubule, and scores a ball."""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import microtubule_panels
from microtubule import read_wall


def test_a_ball_that_is_the_label_scores_one():
    z, y, x = np.indices((9, 9, 9)) - 4
    assert microtubule_panels.ball(z**2 + y**2 + x**2 <= 9) == 1.0
    assert microtubule_panels.ball(np.roll(z**2 + y**2 + x**2 <= 9, 4, 0)) < 0.3


def test_stored_pictures_come_out_again(fetched_microtubule, root):
    stored = json.loads((root / "results" / "microtubule-panels.json").read_text())
    assert microtubule_panels.ball(read_wall(fetched_microtubule)) == stored["ball"]
    for way, picture in microtubule_panels.pictures(fetched_microtubule).items():
        assert picture["truth"] == stored[way]["truth"]
        for name, mask in picture["found"].items():
            differ = [a != b for one, other in zip(mask, stored[way]["found"][name], strict=True)
                      for a, b in zip(one, other, strict=True)]  # fmt: skip
            assert np.mean(differ) < 0.005, name  # voxels at the threshold
