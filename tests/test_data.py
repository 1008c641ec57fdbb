import pytest
import torch

from voxuda import data, molecules, simulate
from voxuda.volumes import InputError


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


def test_split_keeps_classes_apart():
    domain = data.Domain(torch.randn(10, 1, 16, 16, 16), None, ["a"] * 6 + ["b"] * 4)
    first, second = domain.split(0.5, 0)
    assert first.classes.count("a") == 3 and second.classes.count("b") == 2 and len(first) + len(second) == 10
