"""The pilot that shows when the source task is learnt."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import pytest
import source_task

from voxuda.training.config import SCALES


def test_curve_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(source_task, "HELD_OUT", 2)
    predict, calls = source_task.predict, []

    def stops_in_epoch_two(network, volumes):
        calls.append(len(volumes))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(network, volumes)

    monkeypatch.setattr(source_task, "predict", stops_in_epoch_two)
    with pytest.raises(KeyboardInterrupt):
        source_task.learn(0.3, tmp_path, 3, scale="smoke")
    points = source_task.learn(0.3, tmp_path, 3, scale="smoke")
    sizes = SCALES["smoke"]
    steps = 3 * sizes["per_source"] * len(sizes["source_snr"]) // sizes["batch_size"]
    assert calls == [6] * 4, "the finished epoch was not made again"
    assert [point["step"] for point in points] == [steps, 2 * steps, 3 * steps]
    assert all(0 <= point["iou"] <= 1 and point["loss"] > 0 for point in points)


def test_held_out_samples_are_others():
    seen, other = (source_task.source(1, 0.3, seed) for seed in (1000, 3000))
    assert seen.volumes.shape == other.volumes.shape == (3, 1, 32, 32, 32)
    assert not (seen.densities == other.densities).all((1, 2, 3, 4)).any()
