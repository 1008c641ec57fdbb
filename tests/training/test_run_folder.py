import json
from pathlib import Path

import pytest
import torch

from voxuda.errors import InputError
from voxuda.methods import VoxUDAOptions
from voxuda.networks.voxresnet import VoxResNet, target_batch_norm
from voxuda.training import run_folder
from voxuda.training.config import SCALES, Config
from voxuda.training.domains import load_domains
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import is_run_of, load_weights, read_config, save_json, save_weights


def test_paper_scale_is_the_papers():
    paper = SCALES["paper"]
    assert paper["per_source"] * 3 * 2 == 3000 and paper["source_snr"] == (0.03, 0.05)
    assert round(0.6 * 3 * paper["per_target"]) == 1033
    assert (paper["epochs"], paper["batch_size"], paper["width"]) == (300, 16, 32)
    assert {name for name in paper if SCALES["desk"][name] != paper[name]} == {"epochs", "width"}


def test_options_default_to_what_the_paper_prints():
    o = VoxUDAOptions()
    assert (o.denoiser, o.sigma_d, o.sigma_r, o.n_sampled, o.rho, o.eta) == ("ibf", 120.0, 1.2, 10, 0.244, 0.85)
    assert o.lambdas == (0.2, 0.2, 0.3, 0.3) and o.noise == "gaussian" and o.pseudo == "confident"


def test_config_round_trip(tmp_path):
    import dataclasses

    config = Config(method="dann", epochs=7, vox_uda=VoxUDAOptions(share=None, lambdas=(0.1, 0.1, 0.4, 0.4)))
    save_json({**dataclasses.asdict(config), "provenance": provenance()}, tmp_path / "config.json")
    assert read_config(tmp_path) == config
    (tmp_path / "config.json").write_text(json.dumps({"method": "dann"}))
    with pytest.raises(InputError, match="not a run's configuration"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not a run's configuration"):
        read_config(tmp_path)


def test_a_run_is_known_by_its_sizes_too(tmp_path, monkeypatch):
    import dataclasses

    config = Config(scale="smoke", width=2)
    save_json({**dataclasses.asdict(config), "sizes": config.sizes()}, tmp_path / "config.json")
    assert is_run_of(tmp_path, config) and not is_run_of(tmp_path, dataclasses.replace(config, width=4))
    monkeypatch.setitem(SCALES, "smoke", {**SCALES["smoke"], "per_target": 7})
    assert not is_run_of(tmp_path, config)


def test_bad_values():
    for bad, message in [({"seed": -1}, "seed"), ({"learning_rate": 0.0}, "learning_rate"), ({"scale": "huge"}, "scale")]:
        with pytest.raises(InputError, match=message):
            Config(**bad)


def test_weights_hold_every_kind_of_statistics(tmp_path, generator):
    torch.manual_seed(0)
    network = VoxResNet(2)
    target = 3 + torch.randn(4, 1, 16, 16, 16, generator=generator)
    save_weights(tmp_path / "weights.safetensors", network, target_batch_norm(network, target))
    loaded = {}
    for kind in ("target", "running", "mixed"):
        again = VoxResNet(2)
        load_weights(tmp_path, again, kind)
        loaded[kind] = again.state_dict()
        assert torch.equal(loaded[kind]["conv1a.weight"], network.conv1a.weight)
    assert torch.equal(loaded["running"]["conv1b.0.running_mean"], torch.zeros(2))
    mean, variance = (loaded["target"][f"conv1b.0.running_{name}"] for name in ("mean", "var"))
    assert mean.abs().max() > 0.1
    torch.testing.assert_close(loaded["mixed"]["conv1b.0.running_mean"], mean / 2)
    torch.testing.assert_close(loaded["mixed"]["conv1b.0.running_var"], (1 + variance) / 2 + mean**2 / 4)
    (tmp_path / "weights.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="damaged, or weights of another architecture"):
        load_weights(tmp_path, VoxResNet(2), "target")
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="no such file; finish the run"):
        load_weights(tmp_path, VoxResNet(2), "target")


def test_domains_split_by_class_and_must_agree_in_size(folders, tiny, tmp_path):
    _, train, test = load_domains(tiny())
    assert len(train) == 6 and len(test) == 4
    from voxuda.simulation import molecules, quick
    from voxuda.simulation.samples import save_samples

    save_samples(quick.simulate_target([molecules.load("4v94")], n_per_molecule=2, size=24), tmp_path / "t24")
    with pytest.raises(InputError, match="simulate both with the same --size"):
        load_domains(tiny(target=str(tmp_path / "t24")))


def test_simulated_domains_are_named_and_disjoint_in_seed():
    source, train, test = load_domains(Config(scale="smoke"))
    assert sorted(set(source.classes)) == ["1bxn", "1oel", "3gl1"]
    assert sorted(set(train.classes)) == sorted(set(test.classes)) == ["4cr2", "4v4r", "4v94"]
    other, other_train, _ = load_domains(Config(scale="smoke", seed=1))
    assert not torch.equal(source.volumes, other.volumes) and not torch.equal(train.volumes, other_train.volumes)


def test_a_source_of_nine_molecules_has_as_many_samples():
    sizes, made = SCALES["smoke"], load_domains(Config(scale="smoke", source_set="nine"))[0]
    assert len(set(made.classes)) == 9 and len(made) >= 3 * sizes["per_source"] * len(sizes["source_snr"])


def test_results_are_found_wherever_the_file_stands(root, tmp_path, monkeypatch):
    for file, repository in [
        (run_folder.__file__, root),
        (root / "voxuda" / "a" / "deeper" / "room.py", root),
        (tmp_path / "site-packages" / "voxuda" / "room.py", Path()),
    ]:
        monkeypatch.setattr(run_folder, "__file__", str(file))
        assert run_folder._repository() == repository
