import pytest
import torch

from voxuda import molecules, simulate
from voxuda.volumes import InputError

RUBISCO = molecules.load("1bxn")


def crops(count=8):
    generator = torch.Generator().manual_seed(0)
    choice = torch.zeros(count, 1, dtype=torch.long)
    return simulate.render([RUBISCO], choice, size=32, voxel_size=10.0, generator=generator, max_offset=0)


def test_published_scale_of_the_source_recipe():
    """Voxel counts 355-366 and clean standard deviation 10.7, as computed from the published recipe for 1BXN."""
    densities = crops()
    counts = (densities > 300).flatten(1).sum(1)
    assert counts.min() >= 350 and counts.max() <= 372
    clean = simulate.image_source(densities, torch.full((8,), float("inf")), torch.Generator().manual_seed(1))
    assert clean.flatten(1).std(1).mean() == pytest.approx(10.7, rel=0.05)


@pytest.mark.parametrize(("snr", "realised"), [(0.05, 0.022), (0.03, 0.012)])
def test_realised_variance_ratio(snr, realised):
    densities = crops()
    clean = simulate.image_source(densities, torch.full((8,), float("inf")), torch.Generator().manual_seed(1))
    noisy = simulate.image_source(densities, torch.full((8,), snr), torch.Generator().manual_seed(1))
    ratio = clean.flatten(1).var(1) / (noisy - clean).flatten(1).var(1)
    assert ratio.mean() == pytest.approx(realised, rel=0.2)


def test_rotations_are_proper(generator):
    r = simulate.random_rotations(50, generator)
    torch.testing.assert_close(r @ r.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(50))


def test_packed_spheres_touch_and_do_not_overlap(generator):
    radii = torch.tensor([[60.0, 50, 40, 30, 70]]).repeat(16, 1)
    centres = simulate.pack_spheres(radii, generator)
    distance = torch.cdist(centres, centres)
    gap = distance - radii[:, :, None] - radii[:, None]
    off_diagonal = gap[:, ~torch.eye(5, dtype=torch.bool)]
    assert off_diagonal.min() > -1.0, "overlap of more than 1 angstrom"
    assert gap[:, 0, 1:].amin(1).max() < 5.0, "nothing touches the target"
    assert centres[:, 0].abs().max() == 0


def test_same_seed_same_samples_and_labels_follow_the_density():
    a = simulate.simulate_source([RUBISCO], n_per_molecule=2, snr=(0.1,), seed=3)
    b = simulate.simulate_source([RUBISCO], n_per_molecule=2, snr=(0.1,), seed=3)
    c = simulate.simulate_source([RUBISCO], n_per_molecule=2, snr=(0.1,), seed=4)
    assert torch.equal(a.volumes, b.volumes) and not torch.equal(a.volumes, c.volumes)
    assert torch.equal(a.masks, a.densities > 300) and a.masks.any()


def test_target_varies_from_sample_to_sample():
    t = simulate.simulate_target([molecules.load("4v94")], n_per_molecule=6, snr=(0.05, 0.2), seed=0)
    for key in ("snr", "defocus", "voxel_size"):
        assert len({row[key] for row in t.table}) == 6
    assert all(0.05 <= row["snr"] <= 0.2 for row in t.table)


@pytest.mark.parametrize("bad", [{"n_per_molecule": 0}, {"snr": (0.0,)}, {"snr": (-1.0,)}])
def test_bad_numbers(bad):
    with pytest.raises(InputError):
        simulate.simulate_source([RUBISCO], **bad)
