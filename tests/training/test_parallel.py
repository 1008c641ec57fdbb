import copy
import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch
from torch import distributed, nn

from voxuda import methods, parallel
from voxuda.errors import InputError
from voxuda.methods import VoxUDAOptions
from voxuda.training import loop
from voxuda.training.config import Config
from voxuda.training.run_folder import read_config, read_record

VARIANTS = {
    **{name: Config(name) for name in methods.METHODS if name != "vox-uda"},
    "vox-uda": Config(vox_uda=VoxUDAOptions(eta=0.55)),
    "balanced": Config(vox_uda=VoxUDAOptions(pseudo="balanced", warm_up=0.0, adversary=0.0)),
    "share-of-source": Config(vox_uda=VoxUDAOptions(pseudo="balanced", warm_up=0.0, share=None)),
    "poisson": Config(vox_uda=VoxUDAOptions(noise="poisson", average="volumes")),
    "speckle": Config(vox_uda=VoxUDAOptions(noise="speckle", segment_noised=False)),
}


def configs(folders):
    changes = dict(source=str(folders / "source"), target=str(folders / "target"), width=2, batch_size=4, epochs=2)
    return {name: dataclasses.replace(config, **changes) for name, config in VARIANTS.items()}


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def assert_same_losses(run, other, relative):
    a, b = log(run), log(other)
    assert len(a) == len(b) > 0
    for mine, theirs in zip(a, b, strict=True):
        assert set(mine) == set(theirs)
        for name in set(mine) - {"seconds"}:
            # Networks give float32 probabilities whatever their weights, 6e-8 apart; a term of 1e-4 has few digits.
            assert mine[name] == pytest.approx(theirs[name], rel=relative, abs=1e-8), name


def train(config, out, *, interrupt=False, resume=False):
    """A run in float64, lest rounding hide a wrong sum; with ``interrupt`` it ends in its second epoch."""
    load, build = loop.load_domains, loop.build

    def load_doubles(*arguments, **options):
        domains = load(*arguments, **options)
        return [dataclasses.replace(domain, volumes=domain.volumes.double()) for domain in domains]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "load_domains", load_doubles)
        patch.setattr(loop, "build", lambda *arguments: build(*arguments).double())
        if interrupt:
            means = loop.mean_losses

            def stop(history, out, epoch):
                if epoch:
                    raise KeyboardInterrupt
                return means(history, out, epoch)

            patch.setattr(loop, "mean_losses", stop)
            with pytest.raises(KeyboardInterrupt):
                loop.train(config, out, progress=False)
        else:
            loop.train(config, out, resume=resume, progress=False)


def batch_norm():
    torch.manual_seed(0)
    layer = nn.BatchNorm3d(3).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = 2 + torch.randn(4, 3, 2, 3, 4, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1, 2.0]).view(4, 1, 1, 1, 1)
    return layer, x, torch.randn_like(x)


def in_one_of_two(rank, folder, settings):
    """What each of two processes does; results go to ``folder``."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for name, config in settings.items():
        train(config, folder / "two" / name)
    train(settings["vox-uda"], folder / "interrupted-two", interrupt=True)
    train(settings["vox-uda"], folder / "interrupted-one", resume=True)

    layer, x, gradient = batch_norm()
    x = parallel.part(x).requires_grad_()
    with parallel.global_batch_norm(layer):
        y = layer(x)
        # Every process minimises the loss of the whole batch, here (y * gradient).sum().
        parallel.total((y * parallel.part(gradient)).sum()).backward()
    parallel.average_gradients(layer.parameters())
    results = {"y": y, "x": x.grad / 2, "weight": layer.weight.grad, "bias": layer.bias.grad, **layer.state_dict()}
    after = copy.deepcopy(layer)(x)
    results["plain"] = nn.functional.batch_norm(x, None, None, layer.weight, layer.bias, training=True) - after

    errors = []
    with pytest.raises(InputError) as caught:
        loop.train(dataclasses.replace(settings["dann"], batch_size=3), folder / "odd", progress=False)
    errors.append(str(caught.value))
    with pytest.raises(InputError) as caught:
        loop.train(settings["dann"], folder / "two" / "dann", progress=False)
    errors.append(str(caught.value))
    with pytest.raises(InputError) as caught, parallel.together():
        if rank == 1:
            raise InputError("only process 1 met this.")
    errors.append(str(caught.value))
    torch.save({k: v.detach() for k, v in results.items()} | {"errors": errors}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, folders):
    """Runs by two processes and their likes by one."""
    folder = tmp_path_factory.mktemp("parallel")
    settings = configs(folders)
    train(settings["vox-uda"], folder / "interrupted-one", interrupt=True)
    for name, config in settings.items():
        train(config, folder / "one" / name)
    torch.multiprocessing.spawn(in_one_of_two, (folder, settings), nprocs=2)
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_have_the_losses_of_one(folder, name):
    assert_same_losses(folder / "two" / name, folder / "one" / name, 1e-5)


def test_variants_cover_every_method_and_term(folder):
    assert {config.method for config in VARIANTS.values()} == set(methods.METHODS)
    assert set().union(*(log(folder / "one" / name)[-1] for name in VARIANTS)) >= {"seg", "con", "dis", "pseudo"}


def test_a_run_goes_on_with_another_number_of_processes(folder, folders):
    train(configs(folders)["vox-uda"], folder / "interrupted-two", resume=True)
    for run in ("interrupted-one", "interrupted-two"):
        assert_same_losses(folder / run, folder / "one" / "vox-uda", 1e-5)
    record = read_record(folder / "interrupted-two")
    assert [record["provenance"]["processes"], record["resumed"][0]["processes"]] == [2, 1]


def test_batch_norm_is_that_of_the_whole_batch(folder):
    layer, x, gradient = batch_norm()
    x.requires_grad_()
    y = layer(x)
    (y * gradient).sum().backward()
    expected = {"y": y, "x": x.grad, "weight": layer.weight.grad, "bias": layer.bias.grad, **layer.state_dict()}
    parts = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, value in expected.items():
        found = torch.cat([part[name] for part in parts]) if name in ("y", "x") else parts[1][name]
        torch.testing.assert_close(found, value.detach(), rtol=1e-10, atol=1e-10)
    assert all(part["plain"].abs().max() == 0 for part in parts)  # after the block it is as before


def test_an_error_of_one_is_the_error_of_all(folder):
    odd, full, other = torch.load(folder / "0.pt", weights_only=True)["errors"]
    assert odd == "batch_size is 3; it must be a multiple of the number of processes, 2."
    assert "the folder is not empty" in full and other == "only process 1 met this."
    assert torch.load(folder / "1.pt", weights_only=True)["errors"] == [odd, full, other] and not (folder / "odd").exists()


def test_torchrun_on_the_command_line(tmp_path, folders):
    def torchrun(out, batch_size):
        options = f"--method vox-uda --width 2 --batch-size {batch_size} --source {folders}/source --target {folders}/target"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "voxuda"]
        command = [*launch, "train", *options.split(), "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    done = torchrun(tmp_path / "two", 4)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run finished") == 1 and done.stderr.count("vox-uda: 100%") >= 1
    loop.train(read_config(tmp_path / "two"), tmp_path / "one", progress=False)
    assert_same_losses(tmp_path / "two", tmp_path / "one", 1e-4)
    refused = torchrun(tmp_path / "odd", 3)
    assert refused.returncode != 0 and refused.stderr.count("voxuda: batch_size is 3;") == 1
    assert "InputError" not in refused.stderr and not (tmp_path / "odd").exists()
