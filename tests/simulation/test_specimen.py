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


@settings(max_examples=20, deadline=None)
@given(st.floats(1.5, 4), st.integers(0, 400), st.floats(20, 60), st.integers(0, 1000))
def test_what_fills_gaps_touches_nothing(radius, count, thickness, seed):
    generator = torch.Generator().manual_seed(seed)
    blocked = torch.rand(70, 48, 48, generator=generator) < 0.3
    voxels = packing.fill_gaps(radius, count, thickness, blocked, generator)
    assert len(voxels) <= count and not blocked[voxels.unbind(1)].any()
    assert ((voxels[:, 0] - 35).abs() <= max(0, thickness / 2 - radius) + 0.5).all()
    apart = (voxels[:, None] - voxels).abs().float()
    apart[..., 1:] = torch.minimum(apart[..., 1:], 48 - apart[..., 1:])
    # Centres lie within half a voxel of the voxels that are given, along each axis.
    assert (apart.norm(dim=2) + torch.eye(len(voxels)) * 99 >= 2 * radius - 3**0.5 - 1e-3).all()


def build(seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    crowders = [molecules.load("2cg9")]
    return specimen.build_specimen([TRIC, RIBOSOME, RIBOSOME], crowders, 1200.0, 160, generator, **changes)


def dalton(density):
    return float(density.double().sum()) * (specimen.PIXEL_SIZE / 10) ** 3


def test_a_specimen_holds_the_wanted_crowders_and_vesicles():
    made = build(concentration=0.0)
    assert made.names[0] == "4v94" and len(made.names) == len(made.centres) >= 2
    beads = sum(len(molecules.load(name).masses) for name in made.names)
    assert len(made.beads[1]) > beads, "no crowder"
    vesicles = dalton(made.density) - float(made.beads[1].double().sum())
    # Shells of 10 to 25 voxels radius; across one, Gaussians of 2 * 700 Da/nm³ by 5 Å and 400 by 10.
    across = (2 * 700 * 5 + 400 * 10) * (2 * torch.pi) ** 0.5 / 1000
    low, high = (4 * torch.pi * (radius * specimen.PIXEL_SIZE) ** 2 * across for radius in (10, 25))
    assert low < vesicles < specimen.VESICLES * high


@pytest.mark.parametrize("concentration", [150.0, 300.0])
def test_a_specimen_has_its_concentration(concentration, monkeypatch):
    monkeypatch.setattr(specimen, "GOLD_SHARE", 0.0)
    made = build(concentration=concentration)
    slab = 120 * (specimen.FIELD * specimen.PIXEL_SIZE / 10) ** 2  # nm³
    assert dalton(made.density) / slab / 0.6022 == pytest.approx(concentration, rel=0.02)
    outside = (torch.arange(160) - 80).abs() > 1200 / specimen.PIXEL_SIZE / 2 + 3
    assert made.density[outside].abs().max() < 5, "proteins outside the ice"


def test_a_ball_is_solid_and_has_its_mass():
    one = specimen.balls(torch.tensor([[30, 48, 48]]), 60.0, 810.0, 60)
    assert one[30, 48, 48] == pytest.approx(810, rel=0.05) and one[30, 48, 58].abs() < 8
    assert dalton(one) == pytest.approx(810 * 4 / 3 * torch.pi * 6**3, rel=1e-3)


def test_gold_outshines_everything(monkeypatch):
    monkeypatch.setattr(specimen, "GOLD_SHARE", 1.0)
    bright, plain = build().density.max(), build(seed=1).density.max()
    assert min(bright, plain) > 5000
    monkeypatch.setattr(specimen, "GOLD_SHARE", 0.0)
    assert build().density.max() < 3000


def test_crops_of_the_specimen_agree_with_the_noise_free_truth():
    """Two ways to the same density: beads added to the slab, and beads on the grid of the crop."""
    made = build(concentration=0.0)
    centres = made.centres.round().long()
    crops = tilt_series.cut(made.density, centres, 24)
    fine = tilt_series.truth(made, centres, 24, specimen.PIXEL_SIZE)
    difference = crops - fine
    assert difference.abs().median() < 0.5, "molecules are elsewhere"
    assert difference.min() > -25, "vesicles only add"
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


def test_a_cube_grows_around_a_voxel_across_the_edge():
    solid = torch.zeros(9, 12, 12, dtype=torch.bool)
    solid[4, 0, 5] = True
    assert specimen.dilate(solid, 2).sum() == 5**3 and specimen.dilate(solid, 2)[6, 11, 3]
