import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from voxuda import methods
from voxuda.data.domain import Domain
from voxuda.errors import InputError
from voxuda.methods import base
from voxuda.networks.normalisation import BatchRenorm3d
from voxuda.simulation import molecules, quick
from voxuda.simulation.samples import save_samples
from voxuda.training import loop
from voxuda.training.domains import load_domains
from voxuda.training.evaluation import evaluate_run
from voxuda.training.run_folder import load_network


def weights(config, out, **options):
    return loop.train(config, out, progress=False, **options).student.state_dict()


def save_then_die(path, method, optimizer, epoch):
    save_checkpoint(path, method, optimizer, epoch)
    if epoch == 2:
        raise KeyboardInterrupt


save_checkpoint, load = loop.save_checkpoint, loop.load_domains


def load_with_other_labels(config, **options):
    source, target, test = load(config, **options)
    return source, dataclasses.replace(target, masks=~target.masks), test


@pytest.mark.parametrize("method", methods.METHODS)
def test_an_interrupted_run_has_the_weights_of_a_whole_one_and_only_supervised_reads_target_labels(
    tmp_path, monkeypatch, tiny, method
):
    """The interrupted run has wrong labels of the target, so equality shows both; ``supervised`` has a third run."""
    setting = tiny(method=method, epochs=3)

    def interrupted(out, load_domains):
        monkeypatch.setattr(loop, "load_domains", load_domains)
        monkeypatch.setattr(loop, "save_checkpoint", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            loop.train(setting, out, progress=False)
        monkeypatch.setattr(loop, "save_checkpoint", save_checkpoint)
        return weights(setting, out, resume=True)

    whole = weights(setting, tmp_path / "a")
    resumed = interrupted(tmp_path / "b", load_with_other_labels)
    assert torch.equal(whole["conv1a.weight"], resumed["conv1a.weight"]) == (method != "supervised")
    if method == "supervised":
        shutil.rmtree(tmp_path / "b")
        resumed = interrupted(tmp_path / "b", load)
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    logs = [[json.loads(line)["seg"] for line in (tmp_path / r / "log.jsonl").read_text().splitlines()] for r in "ab"]
    assert logs[0] == logs[1] and len(logs[0]) == 3


def test_an_interrupted_run_with_batch_renorm_has_the_weights_of_a_whole_one(tmp_path, monkeypatch, tiny):
    for name, value in dict(WARM_UP=2, R_WIDE=12, D_WIDE=8).items():
        monkeypatch.setattr(BatchRenorm3d, name, value)
    setting = tiny(normalisation="renorm", epochs=3)
    whole = weights(setting, tmp_path / "a")
    monkeypatch.setattr(loop, "save_checkpoint", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        weights(setting, tmp_path / "b")
    monkeypatch.setattr(loop, "save_checkpoint", save_checkpoint)
    resumed = weights(setting, tmp_path / "b", resume=True)
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    again = load_network(tmp_path / "b").state_dict()
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    batch = weights(tiny(epochs=3), tmp_path / "c")
    assert whole.keys() == batch.keys() and not torch.equal(whole["conv1a.weight"], batch["conv1a.weight"])


@pytest.mark.parametrize("normalisation", ["group", "renorm"])
@pytest.mark.parametrize("method", ["vox-uda", "pdam", "le-uda-slices", "advent", "tent"])  # those with a part of their own
def test_methods_train_with_every_normalisation(tmp_path, tiny, method, normalisation):
    setting = tiny(method=method, normalisation=normalisation, width=4, epochs=1)
    trained = weights(setting, tmp_path / "run")
    assert all(value.isfinite().all() for value in trained.values())
    assert any("running_mean" in name for name in trained) == (normalisation == "renorm")
    again = load_network(tmp_path / "run").state_dict()
    assert all(torch.equal(trained[k], again[k]) for k in trained)


@pytest.mark.parametrize("method", ["source-only", "vox-uda"])
def test_another_seed_gives_other_weights(tmp_path, tiny, method):
    one, other = (weights(tiny(method=method, epochs=1, seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    assert not torch.equal(one["conv1a.weight"], other["conv1a.weight"])


def test_resume_without_a_run_starts_one_and_a_finished_run_stays(tmp_path, tiny):
    first = weights(tiny(method="source-only"), tmp_path / "a", resume=True)
    again = weights(tiny(method="source-only"), tmp_path / "a", resume=True)
    assert all(torch.equal(first[k], again[k]) for k in first)
    with pytest.raises(InputError, match="not empty"):
        loop.train(tiny(method="source-only"), tmp_path / "a", progress=False)


def test_checkpoint_that_is_not_one(tmp_path, tiny):
    out = tmp_path / "run"
    loop.train(tiny(epochs=1), out, progress=False)
    with pytest.raises(InputError, match="another configuration"):
        loop.train(tiny(epochs=1, width=4), out, resume=True, progress=False)
    state = out / "checkpoint" / "state.pt"
    other = methods.build("vox-uda", 4)
    loop.save_checkpoint(state, other, torch.optim.Adam(other.parameters()), 1)
    with pytest.raises(InputError, match=r"state\.pt: not a checkpoint of this method and width"):
        loop.train(tiny(epochs=1), out, resume=True, progress=False)
    state.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"state\.pt: not a checkpoint"):
        loop.train(tiny(epochs=1), out, resume=True, progress=False)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path, tiny, monkeypatch):
    losses = methods.METHODS["source-only"].losses

    def explode(self, batch, progress):
        values = losses(self, batch, progress)
        return {"seg": values["seg"] * (bad if progress == 5 / 8 else 1.0)}

    monkeypatch.setattr(methods.METHODS["source-only"], "losses", explode)
    for bad in (float("nan"), float("inf")):
        out = tmp_path / str(bad)
        # The sixth of twice four steps; the two that follow have lost their weights, but are not the cause.
        with pytest.raises(InputError, match=f"the loss is {bad} at epoch 1, step 1; lower --learning-rate"):
            loop.train(tiny(method="source-only", epochs=2, batch_size=2), out, progress=False)
        state = torch.load(out / "checkpoint" / "state.pt", weights_only=True)
        assert state["epoch"] == 1 and all(torch.isfinite(v).all() for v in state["method"].values())
        assert len((out / "log.jsonl").read_text().splitlines()) == 1 and not (out / "weights.safetensors").exists()


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_gradient_that_is_not_finite_in_the_last_step_of_an_epoch_spoils_no_checkpoint(tmp_path, tiny, monkeypatch, epoch):
    """Of three epochs: no loss of the epoch tells, and after the last there is none at all."""
    losses = methods.METHODS["source-only"].losses

    def explode(self, batch, progress):
        broken = progress == (4 * epoch + 3) / 12
        slope_of_root = (0 * next(self.parameters()).sum()).sqrt()  # nought, and its gradient is nought times infinity
        return {"seg": losses(self, batch, progress)["seg"] + (slope_of_root if broken else 0)}

    monkeypatch.setattr(methods.METHODS["source-only"], "losses", explode)
    out = tmp_path / "run"
    with pytest.raises(InputError, match=f"a weight is not finite after epoch {epoch}, step 3; lower --learning-rate"):
        loop.train(tiny(method="source-only", epochs=3, batch_size=2), out, progress=False)
    state = torch.load(out / "checkpoint" / "state.pt", weights_only=True)
    assert state["epoch"] == epoch and all(torch.isfinite(v).all() for v in state["method"].values())
    assert len((out / "log.jsonl").read_text().splitlines()) == epoch and not (out / "weights.safetensors").exists()


def test_a_resumed_run_keeps_what_made_it(tmp_path, tiny, monkeypatch):
    out = tmp_path / "run"
    setting = tiny(method="source-only")
    monkeypatch.setattr(loop, "save_checkpoint", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        loop.train(setting, out, progress=False)
    monkeypatch.undo()
    record = json.loads((out / "config.json").read_text())
    record["provenance"]["commit"] = "first"
    (out / "config.json").write_text(json.dumps(record))
    for _ in range(2):  # the second finds nothing to do
        loop.train(setting, out, resume=True, progress=False)
    record = json.loads((out / "config.json").read_text())
    assert record["provenance"]["commit"] == "first" and len(record["resumed"]) == 1


def test_options_are_checked_before_anything_is_made(tmp_path, tiny):
    for bad in ({"rho": 2.0}, {"share": 5.0}, {"n_sampled": 0}, {"eta": 0.3}, {"warm_up": 5.0}, {"window": 4}, {"ema": 1.0}):
        with pytest.raises(InputError, match=f"{next(iter(bad))} is"):
            methods.VoxUDAOptions(**bad)
    for bad in ({"learning_rate": float("nan")}, {"seed": 2**40}, {"seed": -1}):
        with pytest.raises(InputError, match=f"{next(iter(bad))} is"):
            tiny(**bad)


def test_a_run_belongs_to_one_job(tmp_path, tiny):
    out, said = tmp_path / "run", []

    def as_another_job(*_):
        def tries():
            for job in (partial(weights, tiny(seed=1)), partial(weights, setting, resume=True), evaluate_run):
                before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
                with pytest.raises(InputError, match="run: another job is writing here") as refused:
                    job(out=out) if isinstance(job, partial) else job(out)
                assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
                said.append(str(refused.value))

        thread = threading.Thread(target=tries)
        thread.start()
        thread.join()

    setting = tiny(method="source-only", epochs=1)
    loop.train(setting, out, progress=False, after_epoch=as_another_job)
    assert len(said) == 3 and {p.name for p in out.iterdir()} == {
        "config.json",
        "log.jsonl",
        "weights.safetensors",
        "checkpoint",
    }
    weights(setting, out, resume=True)


def test_what_a_killed_run_left_half_written_goes(tmp_path, tiny):
    out, half = tmp_path / "run", "voxuda-00112233.part"
    out.mkdir()
    (out / f"config.json.{half}").touch()
    loop.train(tiny(method="source-only", epochs=1), out, progress=False)
    for name in (f"weights.safetensors.{half}", f"checkpoint/state.pt.{half}"):
        (out / name).touch()
    weights(tiny(method="source-only", epochs=1), out, resume=True)
    assert not list(out.rglob("*.part"))


def test_learning_rate_falls_tenfold_after_each_third(tmp_path, tiny):
    loop.train(tiny(method="source-only", epochs=3), tmp_path / "run", progress=False)
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-5])


def test_batches_cover_an_epoch_and_follow_from_the_seed(tiny):
    source, target, _ = load_domains(tiny())
    batches = [loop.make_batch(source, target, 0, step, tiny(), 3) for step in range(3)]
    # 12 draws from 6 target samples: each comes twice
    assert torch.bincount(torch.cat([b.target_index for b in batches])).tolist() == [2] * 6
    again = loop.make_batch(source, target, 0, 2, tiny(), 3)
    assert (
        torch.equal(again.source, batches[2].source) and again.generator.initial_seed() == batches[2].generator.initial_seed()
    )
    other = loop.make_batch(source, target, 1, 2, tiny(), 3)
    assert other.generator.initial_seed() != batches[2].generator.initial_seed()


@pytest.fixture(scope="module")
def folders_of_24(tmp_path_factory):
    base = tmp_path_factory.mktemp("domains")
    source = quick.simulate_source([molecules.load("3gl1")], n_per_molecule=2, snr=(0.3, 0.5), size=24)
    save_samples(source, base / "source")
    save_samples(quick.simulate_target([molecules.load("4v94")], n_per_molecule=4, size=24), base / "target")
    return {name: str(base / name) for name in ("source", "target")}


def test_bf16_computes_in_bf16_and_keeps_float32_weights(tmp_path, tiny, monkeypatch, folders_of_24):
    seen = []
    original = base.segmentation_loss
    monkeypatch.setattr(
        base, "segmentation_loss", lambda logits, labels: (seen.append(logits.dtype), original(logits, labels))[1]
    )
    setting = tiny(method="source-only", precision="bf16-mixed", epochs=1, **folders_of_24)
    trained = weights(setting, tmp_path / "run")
    assert set(seen) == {torch.bfloat16}
    assert all(torch.isfinite(v).all() and v.dtype != torch.bfloat16 for v in trained.values())


def test_bf16_on_a_processor_refuses_samples_that_torch_gets_wrong(tmp_path, tiny):
    with pytest.raises(InputError, match=r"samples of \(16, 16, 16\) voxels .* choose --precision 32-true"):
        loop.train(tiny(precision="bf16-mixed"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


GRADIENTS = """
import sys, torch
from voxuda.methods import Batch, build

def fill_free_memory():
    held = [torch.full((2**k,), -1, dtype=torch.int32) for k in range(6, 23) for _ in range(4)]  # what is no number, as bytes
    del held

torch.manual_seed(0)
side = int(sys.argv[1])
volumes = torch.randn(2, 1, side, side, side)
method = build("vox-uda", 8).to(memory_format=torch.channels_last_3d).train()
method.prepare(volumes.repeat(4, 1, 1, 1, 1))
for _ in range(3):
    fill_free_memory()
    batch = Batch(volumes, (volumes[:, 0] > 1).long(), volumes, None, torch.arange(2), torch.Generator())
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum(method.losses(batch, 0.5).values())
    fill_free_memory()
    loss.backward()
print(sum(not p.grad.isfinite().all() for p in method.parameters() if p.grad is not None))
"""


@pytest.mark.parametrize("instructions", ["AVX512_CORE_BF16", "ALL"])
def test_bf16_gradients_do_not_depend_on_what_memory_held(instructions):
    """With samples as small as are taken, in the layout of the loop, as several processors compute it."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    command = [sys.executable, "-c", GRADIENTS, str(loop.LEAST_SIDE_IN_BF16)]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "0\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_missing_device_is_one_sentence(tmp_path, tiny):
    with pytest.raises(InputError, match="device cuda is not available on this machine"):
        loop.train(tiny(device="cuda"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU path is tested above")
def test_trains_on_a_gpu(tmp_path, tiny):
    trained = weights(tiny(device="cuda"), tmp_path / "run")
    assert all(torch.isfinite(v).all() for v in trained.values())
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert set(log[-1]) >= {"seg", "con", "dis", "pseudo"}


@pytest.mark.parametrize("method", ["vox-uda", "tent", "asc-slices"])
def test_gpus_share_batch_norm(tiny, monkeypatch, method):
    """As far as it can be seen without one: every batch norm is made SyncBatchNorm, and the weights keep their names."""
    fabric = SimpleNamespace(
        world_size=2, device=torch.device("cuda"), strategy=SimpleNamespace(setup_module=lambda module: module)
    )
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    monkeypatch.setattr(Domain, "to", lambda self, device: self)
    config = tiny(method=method)
    made = loop.prepare(config, fabric, progress=False).method
    one = methods.build(method, config.size("width"), config.vox_uda)
    assert made.state_dict().keys() == one.state_dict().keys()
    assert not [module for module in made.modules() if type(module) is torch.nn.BatchNorm3d]
    kinds = (torch.nn.SyncBatchNorm, torch.nn.BatchNorm3d)
    counts = [sum(isinstance(module, kind) for module in who.modules()) for who, kind in zip((made, one), kinds, strict=True)]
    assert counts[0] == counts[1] > 0
    with pytest.raises(InputError, match="normalisation renorm does not work on several GPUs; choose batch or group"):
        loop.prepare(tiny(method=method, normalisation="renorm"), fabric, progress=False)
