"""Methods, the loop, evaluation and the command line, on tiny data."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from voxuda import data, evaluation, methods, molecules, runs, simulate, training
from voxuda.cli import main
from voxuda.methods import VoxUDAOptions
from voxuda.volumes import InputError, read_mrc, write_mrc
from voxuda.voxresnet import VoxResNet, target_batch_norm


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("domains")
    source = simulate.simulate_source([molecules.load("3gl1")], n_per_molecule=4, snr=(0.3, 0.5), size=16)
    target = simulate.simulate_target([molecules.load("4v94")], n_per_molecule=10, size=16)
    data.save(source, base / "source")
    data.save(target, base / "target")
    return base


def config(folders, **changes):
    base = runs.Config(source=str(folders / "source"), target=str(folders / "target"), width=2, batch_size=4, epochs=2)
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("name", list(methods.METHODS))
def test_every_method_trains_saves_and_scores(folders, tmp_path, name, capsys):
    out = tmp_path / "run"
    training.train(config(folders, method=name), out, progress=False)
    assert {p.name for p in out.iterdir()} == {"config.json", "log.jsonl", "weights.safetensors", "checkpoint"}
    assert len((out / "log.jsonl").read_text().splitlines()) == 2
    assert main(["evaluate", str(out)]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert 0 <= scores["iou"] <= scores["dice"] <= 1 and "4v94" in scores["classes"]
    low, high = scores["overall"]["iou_interval"]
    assert low <= scores["iou"] <= high
    assert scores["by_batch_norm"]["target"]["overall"]["iou"] == scores["iou"]


def test_same_seed_same_weights_and_resume_equals_uninterrupted(folders, tmp_path, monkeypatch):
    setting = config(folders, epochs=3)
    whole = training.train(setting, tmp_path / "a", progress=False).student.state_dict()
    save = training.save_checkpoint

    def save_then_die(path, method, optimizer, epoch):
        save(path, method, optimizer, epoch)
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        training.train(setting, tmp_path / "b", progress=False)
    monkeypatch.setattr(training, "save_checkpoint", save)
    resumed = training.train(setting, tmp_path / "b", resume=True, progress=False).student.state_dict()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    logs = [[json.loads(line)["seg"] for line in (tmp_path / r / "log.jsonl").read_text().splitlines()] for r in "ab"]
    assert logs[0] == logs[1] and len(logs[0]) == 3
    other = training.train(dataclasses.replace(setting, seed=1), tmp_path / "c", progress=False).student.state_dict()
    assert not torch.equal(whole["conv1a.weight"], other["conv1a.weight"])


def test_only_supervised_reads_target_labels(folders, tmp_path):
    copy = tmp_path / "target"
    shutil.copytree(folders / "target", copy)
    masks = copy / "masks.mrcs"
    write_mrc(masks, 1 - read_mrc(masks).data, overwrite=True)
    for name, same in [("source-only", True), ("dann", True), ("vox-uda", True), ("supervised", False)]:
        setting = config(folders, method=name, epochs=1)
        a = training.train(setting, tmp_path / f"{name}-a", progress=False).student.state_dict()
        b = training.train(dataclasses.replace(setting, target=str(copy)), tmp_path / f"{name}-b", progress=False)
        assert torch.equal(a["conv1a.weight"], b.student.state_dict()["conv1a.weight"]) == same


def test_vox_uda_options_switch_terms(folders):
    source, target, _ = runs.load_domains(config(folders))

    def terms(progress=1.0, **changes):
        torch.manual_seed(0)
        method = methods.build("vox-uda", 2, VoxUDAOptions(**changes))
        method.prepare(target.volumes)
        return set(method.losses(training.make_batch(source, target, 0, 0, config(folders), 1), progress))

    assert terms() == {"seg", "con", "dis", "pseudo"}
    assert terms(progress=0.0) == {"seg", "con", "dis"}
    assert terms(noise="none") == {"seg", "dis", "pseudo"}
    assert terms(pseudo="none", adversary=0.0) == {"seg", "con"}
    for denoiser in ("ngm", "bf", "ibf", "none"):
        assert "pseudo" in terms(denoiser=denoiser)


def test_iou_and_dice_against_scikit_learn(generator):
    a, b = (torch.rand(2, 6, 500, generator=generator) > 0.6).unbind(0)
    iou, dice = evaluation.iou_and_dice(a, b)
    for i in range(6):
        assert iou[i] == pytest.approx(jaccard_score(b[i], a[i])) and dice[i] == pytest.approx(f1_score(b[i], a[i]))
    empty = torch.zeros(1, 5, dtype=torch.bool)
    assert evaluation.iou_and_dice(empty, empty)[0] == 1 and evaluation.iou_and_dice(~empty, empty)[0] == 0


def test_bootstrap_covers_the_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        low, high = evaluation.bootstrap(rng.normal(size=40), draws=400, seed=trial)
        hits += low <= 0 <= high
    assert 85 <= hits <= 99


def test_target_batch_norm_is_the_mean_of_the_target(generator):
    network = VoxResNet(2)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    x = 4 + torch.randn(8, 1, 16, 16, 16, generator=generator)
    statistics = target_batch_norm(network, x, batch_size=8)
    torch.testing.assert_close(statistics["conv1b.0.running_mean"], network.conv1a(x).mean((0, 2, 3, 4)), atol=1e-4, rtol=1e-3)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_checkpoint_that_is_not_one(folders, tmp_path):
    out = tmp_path / "run"
    training.train(config(folders, epochs=1), out, progress=False)
    with pytest.raises(InputError, match="another configuration"):
        training.train(config(folders, epochs=1, width=4), out, resume=True, progress=False)
    (out / "checkpoint" / "state.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a checkpoint"):
        training.train(config(folders, epochs=1), out, resume=True, progress=False)
    (out / "weights.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="damaged, or weights of another architecture"):
        runs.load_weights(out, VoxResNet(2), "target")


def test_command_line_from_simulation_to_masks(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main("simulate source --molecules 3gl1 --n-per-molecule 1 --snr 0.3 --size 16 --seed 1 --out s".split()) == 0
    assert main("simulate target --molecules 4v94 --n-per-molecule 5 --size 16 --out t".split()) == 0
    assert main("train --method source-only --source s --target t --epochs 1 --width 2 --batch-size 1 --out r".split()) == 0
    stack = read_mrc("t/volumes.mrcs").data
    write_mrc("one.mrc", stack[0], 13.5)
    assert main("segment r one.mrc t/volumes.mrcs --out m".split()) == 0
    one, many = read_mrc("m/one_mask.mrc"), read_mrc("m/volumes_mask.mrcs")
    assert one.data.shape == (16, 16, 16) and one.voxel_size == pytest.approx(13.5)
    assert many.data.shape == (5, 16, 16, 16) and set(np.unique(many.data)) <= {0.0, 1.0}
    np.testing.assert_array_equal(one.data, many.data[0])
    assert main(["molecules", "list"]) == 0
    assert "1bxn" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("simulate source --molecules nope --out s", "nope: no embedded molecule"),
        ("simulate source --molecules 1bxn --out full", "full: the folder is not empty"),
        ("simulate source --molecules 1bxn --out full/file", "is a file"),
        ("simulate source --molecules 1bxn --snr 0 --out s", "positive variance ratio"),
        ("train --method nope --out r", "nope: no such method"),
        ("train --target none --out r", "no such folder"),
        ("train --epochs 0 --out r", "epochs is 0"),
        ("evaluate none", "no such file; make a run"),
        ("segment none x.mrc --out m", "make a run"),
        ("molecules derive full --only 1bxn --out d", "1bxn.pdb.gz: no such file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Traceback" not in error
    assert not any((tmp_path / "s").glob("*")) if (tmp_path / "s").exists() else True
    with pytest.raises(InputError):
        main([*command.split(), "--debug"])


def test_segment_refuses_bad_volumes(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    training.train(config(folders, method="source-only", epochs=1), tmp_path / "r", progress=False)
    write_mrc("flat.mrc", np.ones((16, 16, 16), np.float32))
    write_mrc("odd.mrc", np.random.default_rng(0).normal(size=(15, 16, 16)))
    for file, message in [("flat.mrc", "same value"), ("odd.mrc", "multiples of 8"), ("none.mrc", "no such file")]:
        assert main(["segment", "r", file, "--out", "m"]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
