import numpy as np
import pytest
import torch

from voxuda import data, molecules, simulate
from voxuda.volumes import InputError, read_mrc, write_mrc


def test_folder_round_trip(tmp_path):
    samples = simulate.simulate_target([molecules.load("4v94")], n_per_molecule=3, seed=0)
    out = data.save(samples, tmp_path / "t")
    assert {p.name for p in out.iterdir()} == {"volumes.mrcs", "masks.mrcs", "densities.mrcs", "samples.csv"}
    domain = data.load(out)
    torch.testing.assert_close(domain.volumes, data.from_simulation(samples).volumes, atol=1e-5, rtol=1e-4)
    assert torch.equal(domain.masks, samples.masks) and domain.classes == ["4v94"] * 3
    with pytest.raises(InputError, match="not empty"):
        data.save(samples, out)
    (out / "volumes.mrcs").unlink()
    with pytest.raises(InputError, match=r"no volumes\.mrcs"):
        data.load(out)
    with pytest.raises(InputError, match="no such folder"):
        data.load(tmp_path / "none")


def test_split_parts_are_disjoint_and_cover_all():
    volumes = torch.arange(13.0)[:, None, None, None, None].expand(13, 1, 16, 16, 16)
    for classes in (["a"] * 6 + ["b"] * 4 + ["c"] * 3, ["a"] * 12 + ["b"], [str(i) for i in range(13)]):
        first, second = data.Domain(volumes, None, classes).split(0.6, 0)
        parts = [set(part.volumes[:, 0, 0, 0, 0].tolist()) for part in (first, second)]
        assert not parts[0] & parts[1] and parts[0] | parts[1] == set(range(13)) and all(parts)
        assert 7 <= len(first) <= 9


@pytest.fixture
def folder(tmp_path):
    return data.save(simulate.simulate_target([molecules.load("4v94")], n_per_molecule=3, size=16), tmp_path / "t")


def replace(folder, name, array):
    write_mrc(folder / name, array, overwrite=True)


def test_a_folder_that_does_not_fit_together_is_refused(folder):
    good = read_mrc(folder / "volumes.mrcs").data
    replace(folder, "masks.mrcs", np.zeros((2, 16, 16, 16), bool))
    with pytest.raises(InputError, match=r"masks\.mrcs: masks \(2, 16, 16, 16\) for volumes \(3, 16, 16, 16\)"):
        data.load(folder)
    replace(folder, "masks.mrcs", np.zeros((3, 24, 16, 16), bool))
    with pytest.raises(InputError, match="give one mask a volume"):
        data.load(folder)
    (folder / "masks.mrcs").unlink()
    assert data.load(folder).masks is None
    (folder / "samples.csv").write_text("index,name\n0,a\n1,a\n2,a\n")
    with pytest.raises(InputError, match="no column molecule"):
        data.load(folder)
    (folder / "samples.csv").write_text("index,molecule\n0,a\n")
    with pytest.raises(InputError, match="1 rows for 3 volumes"):
        data.load(folder)
    (folder / "samples.csv").unlink()
    assert data.load(folder).classes == ["unknown"] * 3
    flat = good.copy()
    flat[1] = 5
    replace(folder, "volumes.mrcs", flat)
    with pytest.raises(InputError, match=r"volumes\.mrcs volume 1: every voxel has the same value"):
        data.load(folder)
    replace(folder, "volumes.mrcs", np.concatenate([good, good], 3))
    with pytest.raises(InputError, match="training needs cubes"):
        data.load(folder)


def test_one_volume_is_a_stack_of_one(tmp_path):
    write_mrc(tmp_path / "volumes.mrcs", np.random.default_rng(0).normal(size=(16, 16, 16)))
    write_mrc(tmp_path / "masks.mrcs", np.zeros((16, 16, 16), bool))
    domain = data.load(tmp_path)
    assert domain.volumes.shape == domain.masks.shape == (1, 1, 16, 16, 16)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), data.new_folder(tmp_path / "a" / "b") as work:
        (work / "file").touch()
        raise KeyboardInterrupt
    assert not (tmp_path / "a" / "b").exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with data.new_folder(tmp_path / "link") as work:
        (work / "file").touch()
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["file"]


def test_split_keeps_classes_apart():
    domain = data.Domain(torch.randn(10, 1, 16, 16, 16), None, ["a"] * 6 + ["b"] * 4)
    first, second = domain.split(0.5, 0)
    assert first.classes.count("a") == 3 and second.classes.count("b") == 2 and len(first) + len(second) == 10
