import json

import pytest
import torch

from voxuda import runs
from voxuda.methods import VoxUDAOptions
from voxuda.volumes import InputError
from voxuda.voxresnet import VoxResNet


def test_paper_scale_is_the_papers():
    paper = runs.SCALES["paper"]
    assert paper["per_source"] * 3 * 2 == 3000 and paper["source_snr"] == (0.03, 0.05)
    assert round(0.6 * 3 * paper["per_target"]) == 1033
    assert (paper["epochs"], paper["batch_size"], paper["width"]) == (300, 16, 32)


def test_options_default_to_what_the_paper_prints():
    o = VoxUDAOptions()
    assert (o.denoiser, o.sigma_d, o.sigma_r, o.n_sampled, o.rho, o.eta) == ("ibf", 120.0, 1.2, 10, 0.244, 0.85)
    assert o.lambdas == (0.2, 0.2, 0.3, 0.3) and o.noise == "gaussian" and o.pseudo == "confident"


def test_config_round_trip(tmp_path):
    import dataclasses

    config = runs.Config(method="dann", epochs=7, vox_uda=VoxUDAOptions(share=None, lambdas=(0.1, 0.1, 0.4, 0.4)))
    runs.save_json({**dataclasses.asdict(config), "provenance": runs.provenance()}, tmp_path / "config.json")
    assert runs.read_config(tmp_path) == config
    (tmp_path / "config.json").write_text(json.dumps({"method": "dann"}))
    with pytest.raises(InputError, match="not a run's configuration"):
        runs.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not a run's configuration"):
        runs.read_config(tmp_path)


def test_a_run_is_known_by_its_sizes_too(tmp_path, monkeypatch):
    import dataclasses

    config = runs.Config(scale="smoke", width=2)
    runs.save_json({**dataclasses.asdict(config), "sizes": config.sizes()}, tmp_path / "config.json")
    assert runs.is_run_of(tmp_path, config) and not runs.is_run_of(tmp_path, dataclasses.replace(config, width=4))
    monkeypatch.setitem(runs.SCALES, "smoke", {**runs.SCALES["smoke"], "per_target": 7})
    assert not runs.is_run_of(tmp_path, config)


def test_bad_values():
    for bad, message in [({"seed": -1}, "seed"), ({"learning_rate": 0.0}, "learning_rate"), ({"scale": "huge"}, "scale")]:
        with pytest.raises(InputError, match=message):
            runs.Config(**bad)


def test_weights_hold_both_kinds_of_statistics(tmp_path, generator):
    torch.manual_seed(0)
    network = VoxResNet(2)
    target = 3 + torch.randn(4, 1, 16, 16, 16, generator=generator)
    runs.save_weights(tmp_path / "weights.safetensors", network, target)
    loaded = {}
    for kind in ("target", "running"):
        again = VoxResNet(2)
        runs.load_weights(tmp_path, again, kind)
        loaded[kind] = again.state_dict()
        assert torch.equal(loaded[kind]["conv1a.weight"], network.conv1a.weight)
    assert torch.equal(loaded["running"]["conv1b.0.running_mean"], torch.zeros(2))
    assert loaded["target"]["conv1b.0.running_mean"].abs().max() > 0.1
    (tmp_path / "weights.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="damaged, or weights of another architecture"):
        runs.load_weights(tmp_path, VoxResNet(2), "target")
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="no such file; finish the run"):
        runs.load_weights(tmp_path, VoxResNet(2), "target")


def test_domains_split_by_class_and_must_agree_in_size(folders, tiny, tmp_path):
    _, train, test = runs.load_domains(tiny())
    assert len(train) == 6 and len(test) == 4
    from voxuda import data, molecules, simulate

    data.save(simulate.simulate_target([molecules.load("4v94")], n_per_molecule=2, size=24), tmp_path / "t24")
    with pytest.raises(InputError, match="simulate both with the same --size"):
        runs.load_domains(tiny(target=str(tmp_path / "t24")))


def test_simulated_domains_are_named_and_disjoint_in_seed():
    source, train, test = runs.load_domains(runs.Config(scale="smoke"))
    assert sorted(set(source.classes)) == ["1bxn", "1oel", "3gl1"]
    assert sorted(set(train.classes)) == sorted(set(test.classes)) == ["4cr2", "4v4r", "4v94"]
    other, other_train, _ = runs.load_domains(runs.Config(scale="smoke", seed=1))
    assert not torch.equal(source.volumes, other.volumes) and not torch.equal(train.volumes, other_train.volumes)
