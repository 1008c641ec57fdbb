import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxuda.simulation import molecules, packing, specimen, tilt_series

RIBOSOME, TRIC = molecules.load("4v4r"), molecules.load("4v94")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1, 20), min_size=1, max_size=20), st.floats(20, 60), st.integers(0, 1000))
def test_placed_spheres_touch_no_other_and_stay_in_the_slab(radii, thickness, seed):
    spots = packing.place_spheres(radii, thickness, (80, 64, 64), torch.Generator().manual_seed(seed))
    placed = [(r, s) for r, s in zip(radii, spots, strict=True) if s is not None]
    assert placed, "the first sphere always finds room"
    for i, (radius, spot) in enumerate(placed):
        assert abs(spot[0] - 40) <= max(0, thickness / 2 - radius) + 1e-3
        for other, place in placed[:i]:
            apart = (spot - place).abs()
            apart[1:] = torch.minimum(apart[1:], 64 - apart[1:])
            assert apart.norm() >= radius + other - 1e-3


@pytest.fixture
def no_cytosol(monkeypatch):
    monkeypatch.setattr(specimen, "CYTOSOL", 0.0)


def build(seed=0):
    generator = torch.Generator().manual_seed(seed)
    crowders = [molecules.load("2cg9")]
    return specimen.build_specimen([TRIC, RIBOSOME, RIBOSOME], crowders, 1200.0, 160, generator)


def test_a_specimen_holds_the_wanted_crowders_and_a_vesicle(no_cytosol):
    made = build()
    assert made.names[0] == "4v94" and len(made.names) == len(made.centres) >= 2
    beads = sum(len(molecules.load(name).masses) for name in made.names)
    assert len(made.beads[1]) > beads, "no crowder"
    vesicle = made.density.double().sum() * (specimen.PIXEL_SIZE / 10) ** 3 - made.beads[1].double().sum()
    # A shell of 15 to 25 voxels radius; across it, Gaussians of 2 * 700 Da/nm³ by 5 Å and 400 by 10.
    across = (2 * 700 * 5 + 400 * 10) * (2 * torch.pi) ** 0.5 / 1000
    low, high = (4 * torch.pi * (radius * specimen.PIXEL_SIZE) ** 2 * across for radius in (15, 25))
    assert low < vesicle < high


def test_crops_of_the_specimen_agree_with_the_noise_free_truth(no_cytosol):
    """Two ways to the same density: beads added to the slab, and beads on the grid of the crop."""
    made = build()
    centres = made.centres.round().long()
    crops = tilt_series.cut(made.density, centres, 24)
    fine = tilt_series.truth(made, centres, 24, specimen.PIXEL_SIZE)
    difference = crops - fine
    assert difference.abs().median() < 0.5, "molecules are elsewhere"
    assert difference.min() > -25, "the vesicle only adds"
    assert (fine > 300).float().mean() > 0.05


def test_a_vesicle_is_a_bilayer():
    wall = specimen.vesicle(100, torch.tensor([50.0, 48.0, 48.0]), 20.0)
    profile = wall[50, 48, 48:]
    assert profile.argmax() in (18, 22) and profile[:14].max() < 1 and profile[26:].max() < 1
    assert profile[20] < profile.max(), "less between the head groups"
    torch.testing.assert_close(wall[50, 48, 68], wall[70, 48, 48], rtol=1e-4, atol=1e-3)


def test_the_field_repeats():
    wall = specimen.vesicle(60, torch.tensor([30.0, 0.0, 95.0]), 10.0)
    shifted = specimen.vesicle(60, torch.tensor([30.0, 48.0, 47.0]), 10.0)
    torch.testing.assert_close(wall.roll((48, -48), (1, 2)), shifted, rtol=1e-3, atol=1e-2)


def test_cytosol_has_the_stated_deviation(monkeypatch):
    loud = build()
    monkeypatch.setattr(specimen, "CYTOSOL", 0.0)
    quiet = build()
    noise = (loud.density - quiet.density)[60:100]
    assert noise.std() == pytest.approx(60, rel=0.1)
    assert (loud.density - quiet.density)[:15].abs().max() == 0, "cytosol outside the ice"
