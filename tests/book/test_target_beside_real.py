"""The script that lays spectra and histograms of simulated targets beside those of real data."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import target_beside_real


def described(volumes, edge=12.0):
    power = target_beside_real.power(volumes, [edge] * len(volumes))
    return {"power": power, "histogram": target_beside_real.histogram(volumes)}


@pytest.fixture(scope="module")
def white():
    return torch.randn(24, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))


def test_white_noise_is_flat_and_normal(white):
    found = described(white)
    width = target_beside_real.FREQUENCY[-1] - target_beside_real.FREQUENCY[0]
    assert np.allclose(found["power"], 1 / width, rtol=0.06)
    edges = torch.from_numpy(target_beside_real.EDGES)
    normal = torch.special.ndtr(edges).diff()
    assert np.allclose(found["histogram"], normal, atol=1e-3) and sum(found["histogram"]) == pytest.approx(1)


def test_brightness_and_contrast_do_not_count_but_sign_does(white):
    lopsided = white.exp()
    one, other, dark = (described(v) for v in (lopsided, 5 * lopsided + 3, -lopsided))
    assert target_beside_real.apart(one, other) == {"power": 0, "histogram": 0}
    assert target_beside_real.apart(one, dark)["power"] == 0 < target_beside_real.apart(one, dark)["histogram"]


def test_a_peak_stands_where_its_wavelength_says():
    x = torch.arange(32.0)
    wave = torch.cos(2 * torch.pi * 4 * x / 32).expand(1, 1, 32, 32, 32)
    for edge in (10.0, 14.0):
        peak = target_beside_real.FREQUENCY[np.argmax(target_beside_real.power(wave, [edge]))]
        assert peak == pytest.approx(4 / (32 * edge), abs=3e-4)


def test_crops_are_apart_and_in_the_middle():
    volume = np.arange(40 * 64 * 33).reshape(40, 64, 33)
    cubes = target_beside_real.crops(volume)
    assert cubes.shape == (2, 1, 32, 32, 32)
    assert cubes[:, 0, 0, 0, 0].tolist() == [volume[4, 0, 0], volume[4, 32, 0]]


def test_the_stored_distances_are_those_of_the_stored_curves(root):
    stored = json.loads((root / "results" / "target-beside-real.json").read_text())
    for name, distances in stored["apart"].items():
        for real, distance in distances.items():
            assert target_beside_real.apart(stored["domains"][name], stored["domains"][real]) == distance


def test_stored_numbers_of_real_data_come_out_again(stacks, root):
    stored = json.loads((root / "results" / "target-beside-real.json").read_text())["domains"]
    for name, (volumes, edge) in target_beside_real.real(stacks.parent).items():
        assert stored[name]["samples"] == len(volumes)
        distance = target_beside_real.apart(described(volumes, edge), stored[name])
        assert max(distance.values()) < 0.001
