import numpy as np
import pytest
import torch

from voxuda.errors import InputError
from voxuda.signal import fourier, optics
from voxuda.simulation import imaging, molecules, packing, quick

RUBISCO = molecules.load("1bxn")


def crops(count=8):
    generator = torch.Generator().manual_seed(0)
    choice = torch.zeros(count, 1, dtype=torch.long)
    return quick.render([RUBISCO], choice, size=32, voxel_size=10.0, generator=generator, max_offset=0)


def test_published_scale_of_the_source_recipe():
    """Voxel counts 355-366 and clean standard deviation 10.7, as computed from the published recipe for 1BXN."""
    densities = crops()
    counts = (densities > 300).flatten(1).sum(1)
    assert counts.min() >= 350 and counts.max() <= 372
    clean = imaging.image_source(densities, torch.full((8,), float("inf")), torch.Generator().manual_seed(1))
    assert clean.flatten(1).std(1).mean() == pytest.approx(10.7, rel=0.05)


@pytest.mark.parametrize(("snr", "realised"), [(0.05, 0.022), (0.03, 0.012)])
def test_realised_variance_ratio(snr, realised):
    densities = crops()
    clean = imaging.image_source(densities, torch.full((8,), float("inf")), torch.Generator().manual_seed(1))
    noisy = imaging.image_source(densities, torch.full((8,), snr), torch.Generator().manual_seed(1))
    ratio = clean.flatten(1).var(1) / (noisy - clean).flatten(1).var(1)
    assert ratio.mean() == pytest.approx(realised, rel=0.2)


@pytest.mark.parametrize(("half_width", "percent", "tolerance"), [(7, 6.9, 0.7), (9, 0.2, 0.1), (10, 0.0, 0.05)])
def test_noise_left_beyond_a_cube_of_low_frequencies(half_width, percent, tolerance):
    """The published recipe low-passes its noise, so hardly any stands beyond the cubes of the noise generation module."""
    densities = crops()
    clean, noisy = (
        imaging.image_source(densities, torch.full((8,), snr), torch.Generator().manual_seed(1)) for snr in (float("inf"), 0.05)
    )
    power = torch.fft.fftn(noisy - clean, dim=(-3, -2, -1)).abs().square().mean((0, 1))
    power[0, 0, 0] = 0
    k = torch.fft.fftfreq(32) * 32
    low = (k >= -half_width) & (k < half_width)
    cube = low[:, None, None] & low[None, :, None] & low[None, None, :]
    assert 100 * power[~cube].sum() / power.sum() == pytest.approx(percent, abs=tolerance)


def test_rotations_are_proper(generator):
    r = packing.random_rotations(50, generator)
    torch.testing.assert_close(r @ r.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(50))


def test_packed_spheres_touch_and_do_not_overlap(generator):
    radii = torch.tensor([[60.0, 50, 40, 30, 70]]).repeat(16, 1)
    centres = packing.pull_together(radii, packing.strew_spheres(radii, generator))
    distance = torch.cdist(centres, centres)
    gap = distance - radii[:, :, None] - radii[:, None]
    off_diagonal = gap[:, ~torch.eye(5, dtype=torch.bool)]
    assert off_diagonal.min() > -1.0, "overlap of more than 1 angstrom"
    assert gap[:, 0, 1:].amin(1).max() < 5.0, "nothing touches the target"
    assert centres[:, 0].abs().max() == 0


@pytest.mark.parametrize("first_step", [None, 3.0])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_packing_follows_its_rule(count, first_step, generator):
    radii = 20 + 60 * torch.rand(12, count, generator=generator)
    radii[0] = 0
    start = packing.strew_spheres(radii, generator)
    start[1] = start[1, :1]  # all at one place
    before = start.clone()
    found = packing.pull_together(radii, start, first_step)
    longest = radii.max().item() / 10 if first_step is None else first_step
    expected = [
        packing.pull_by_the_rule(r.double().numpy(), c.double().numpy(), longest) for r, c in zip(radii, start, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), atol=0.02)
    assert torch.equal(start, before)


RECIPES = {
    "source": lambda library: quick.simulate_source(library, n_per_molecule=5, seed=2, size=16, neighbours=2),
    "convolution": lambda library: quick.simulate_target(library, n_per_molecule=10, seed=2, size=16, neighbours=1),
}

KNOWN = {
    "source": ([341, 112, 126, 161], [0.2565, 0.3216, 1.7890, -0.3162]),
    "convolution": ([111, 93, 77, 91], [1.5007, 0.4849, 1.6578, -0.1288]),
}
"""Voxels of a mask, and one voxel in standard deviations, as first made: stored results were trained on such samples."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_seed_gives_the_samples_it_always_gave(recipe):
    """The first and the last sample of two parts, of which the second is not full."""
    made, which = RECIPES[recipe]([molecules.load("1bxn"), molecules.load("3gl1")]), [0, 15, 16, 19]
    masks, voxels = KNOWN[recipe]
    assert len(made.volumes) == len(made.table) == 20
    assert made.masks.sum((1, 2, 3, 4))[which].tolist() == pytest.approx(masks, abs=1)
    deviations = made.volumes.std((1, 2, 3, 4))
    assert (made.volumes[:, 0, 3, 4, 5] / deviations)[which].tolist() == pytest.approx(voxels, abs=0.01)
    assert made.volumes.isfinite().all() and deviations.min() > 0


def test_every_crop_has_its_own_voxel_size(generator):
    edges = torch.tensor([9.0, 14.0])
    choice = torch.zeros(2, 1, dtype=torch.long)
    poses = quick.draw_poses(torch.full((2, 1), RUBISCO.radius), generator)
    both = quick.render_poses([RUBISCO], choice, poses, size=16, voxel_size=edges)
    for i in range(2):
        one = quick.Poses(*(part[i : i + 1] for part in poses))
        alone = quick.render_poses([RUBISCO], choice[:1], one, size=16, voxel_size=edges[i].item())
        torch.testing.assert_close(both[i : i + 1], alone)


def test_cytosol_is_correlated_as_a_smoothed_field_is(generator):
    """White noise smoothed by a Gaussian of s = 3 voxels has the correlation exp(-r² / 4s²)."""
    fields = imaging.smooth_background(40, (48, 48, 48), generator)
    assert fields.mean((2, 3, 4)).abs().max() < 0.3
    torch.testing.assert_close(fields.var((2, 3, 4), correction=0), torch.ones(40, 1))
    for step in (1, 3, 6):
        found = [(fields * fields.roll(step, axis)).mean().item() for axis in (2, 3, 4)]
        assert np.mean(found) == pytest.approx(np.exp(-(step**2) / 36), abs=0.03)


def test_same_seed_same_samples_and_labels_follow_the_density():
    a = quick.simulate_source([RUBISCO], n_per_molecule=2, snr=(0.1,), seed=3)
    b = quick.simulate_source([RUBISCO], n_per_molecule=2, snr=(0.1,), seed=3)
    c = quick.simulate_source([RUBISCO], n_per_molecule=2, snr=(0.1,), seed=4)
    assert torch.equal(a.volumes, b.volumes) and not torch.equal(a.volumes, c.volumes)
    assert torch.equal(a.masks, a.densities > 300) and a.masks.any()


def test_target_varies_from_sample_to_sample():
    t = quick.simulate_target([molecules.load("4v94")], n_per_molecule=6, snr=(0.05, 0.2), seed=0)
    for key in ("snr", "defocus", "voxel_size"):
        assert len({row[key] for row in t.table}) == 6
    assert all(0.05 <= row["snr"] <= 0.2 for row in t.table)


@pytest.mark.parametrize("bad", [{"n_per_molecule": 0}, {"snr": (0.0,)}, {"snr": (-1.0,)}])
def test_bad_numbers(bad):
    with pytest.raises(InputError):
        quick.simulate_source([RUBISCO], **bad)


def test_render_leaves_out_only_beads_that_do_not_matter(generator):
    """The crop of a packed group equals the sum of all its molecules, drawn one by one with every bead."""
    library = [molecules.load("1bxn"), molecules.load("3gl1")]
    choice = torch.tensor([[0, 1, 0], [1, 0, 1]])
    state = generator.get_state()
    fast = quick.render(library, choice, size=32, voxel_size=10.0, generator=generator)
    generator.set_state(state)
    radii = torch.tensor([m.radius for m in library])[choice]
    centres = packing.pull_together(radii, packing.strew_spheres(radii, generator))
    rotations = packing.random_rotations(6, generator).reshape(2, 3, 3, 3)
    offset = ((torch.rand(2, 1, 1, 3, generator=generator) - 0.5) * 16).trunc()[:, 0, 0] * 10
    slow = torch.zeros_like(fast)
    for i in range(2):
        for j in range(3):
            m = library[choice[i, j]]
            placed = m.positions @ rotations[i, j].T + centres[i, j] + offset[i]
            slow[i] += molecules.density(placed[None], m.masses[None], m.spreads[None], 32)[0]
    torch.testing.assert_close(fast, slow, atol=0.05, rtol=1e-4)


def test_offset_moves_the_target_by_whole_voxels_up_to_eight():
    generator = torch.Generator().manual_seed(0)
    alone = torch.zeros(40, 1, dtype=torch.long)
    volumes = quick.render([RUBISCO], alone, size=48, voxel_size=10.0, generator=generator)
    grid = torch.arange(48.0) - 24
    total = volumes.sum((2, 3, 4))
    centre = torch.stack([(volumes.sum(d) * grid).sum(-1) / total for d in ((3, 4), (2, 4), (2, 3))], -1)[:, 0]
    assert centre.abs().max() <= 8.5 and centre.abs().max() > 5  # the centre of mass is not quite the centre of the box


def test_target_noise_is_white_and_of_the_stated_ratio(generator):
    densities = crops(4)
    snr = torch.full((4,), 0.05)
    same = torch.full((4,), 30e3), torch.full((4,), 10.0)
    noisy = imaging.image_target(densities, snr, *same, torch.Generator().manual_seed(1))
    clean = imaging.image_target(densities, torch.full((4,), 1e12), *same, torch.Generator().manual_seed(1))
    noise = noisy - clean
    kept = 0.35  # the share of the spectrum inside the inscribed sphere and outside the wedge: pi/6 times 2/3
    ratio = clean.flatten(1).var(1) / (noise.flatten(1).var(1) / kept)
    assert ratio.mean() == pytest.approx(0.05, rel=0.05)
    power = torch.fft.rfftn(noise, dim=(-3, -2, -1)).abs().square().mean((0, 1))
    radius, seen = fourier.radius_grid(32), optics.missing_wedge(32) > 0
    low, high = (power[seen & (radius > r) & (radius <= r + 4)].mean().item() for r in (3, 12))
    assert low == pytest.approx(high, rel=0.1)


@pytest.mark.parametrize("size", [15, 16])
def test_spectral_variance_is_the_variance(size, generator):
    volumes = 3 + torch.randn(5, 1, size, size, size, generator=generator)
    found = fourier.spectral_variance(fourier.spectrum(volumes), size)
    torch.testing.assert_close(found, volumes.var(dim=(-3, -2, -1), keepdim=True, correction=0))
