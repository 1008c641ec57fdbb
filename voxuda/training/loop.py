"""The training loop of every method, with device, precision, processes, checkpoints, resume and log.

``torchrun`` or Slurm's ``srun`` may start several processes, one per GPU; each holds all samples and a copy of the networks.
In each step every process takes its part of the batch, and lightning-fabric's DistributedDataParallel averages the gradients
over the processes, so that all take the same step.

Two processes give nearly, but not exactly, the result of one. The averaged gradient is that of the mean of the processes'
losses, each over its own part of the batch; anything that is not a mean over samples (soft Dice loss, thresholds of
pseudo-labels, noise, CutMix's partner) is computed per process. Batch norm uses the statistics of the whole batch on GPUs
(SyncBatchNorm) and those of each process's part on CPUs, where the running averages are those of process 0. In one pair of
Vox-UDA runs (eight epochs, scale smoke, CPU) the segmentation loss of two processes stayed within 0.4 % of that of one;
changing the seed moves it by 5 % or more.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import statistics
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from tqdm import tqdm

from voxuda.data.domain import Domain
from voxuda.data.files import append_line, check_new_folder, locked, remove_debris, write_atomically
from voxuda.errors import InputError
from voxuda.methods.base import Batch, Method
from voxuda.methods.registry import build
from voxuda.networks.voxresnet import target_batch_norm
from voxuda.training.config import Config
from voxuda.training.domains import load_domains
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import (
    check_samples,
    fingerprints,
    is_run_of,
    load_weights,
    read_record,
    save_json,
    save_weights,
)

LEAST_SIDE_IN_BF16 = 24
"""Smallest side of a sample in voxels for bf16 on a CPU; the smallest tap then has sides of 3. With sides of 2, torch 2.13
reads uninitialised memory, so weight gradients of bfloat16 convolutions are often NaN, in either layout, on CPUs with AVX-512
but without AMX."""


def stream(*key: int) -> int:
    """Derive a seed from a key of integers; different keys give independent streams (NumPy SeedSequence)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=2)  # one epoch of both domains
def draw_order(samples: int, draws: int, seed: int, device: torch.device) -> torch.Tensor:
    """Draw the order ``(draws,)`` of samples in an epoch; all are used once, shuffled, before any repeats."""
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(samples, generator=generator) for _ in range(-(-draws // samples))]
    return torch.cat(rounds)[:draws].to(device)


def make_batch(
    source: Domain, target: Domain, epoch: int, step: int, config: Config, steps: int, rank: int = 0, processes: int = 1
) -> Batch:
    """Make part ``rank`` of the batch of one step.

    It is a pure function of seed, epoch and step, so that a resumed run sees the same data.
    """
    size = config.size("batch_size")

    def pick(domain: Domain, which: int) -> torch.Tensor:
        order = draw_order(len(domain), steps * size, stream(config.seed, epoch, which), domain.volumes.device)
        return order[step * size : (step + 1) * size].chunk(processes)[rank]

    s, t = pick(source, 0), pick(target, 1)
    assert source.masks is not None
    key = (config.seed, epoch, 2, step) + ((rank,) if processes > 1 else ())  # each process has its own noise
    return Batch(
        source=source.volumes[s],
        source_labels=source.masks[s, 0].long(),
        target=target.volumes[t],
        target_labels=None if target.masks is None else target.masks[t, 0].long(),
        target_index=t,
        generator=torch.Generator(target.volumes.device).manual_seed(stream(*key)),
    )


def started() -> tuple[int, int]:
    """Return the numbers of nodes and of processes per node that ``torchrun`` or ``srun`` started; 1 and 1 without them."""
    machines, processes = 1, 1
    if TorchElasticEnvironment.detect():
        machines, processes = int(os.environ["GROUP_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    elif SLURMEnvironment.detect() and "SLURM_STEP_NUM_TASKS" in os.environ:  # not in a batch script, which is one process
        machines, processes = int(os.environ["SLURM_STEP_NUM_NODES"]), int(os.environ["SLURM_STEP_NUM_TASKS"])
    return machines, processes // machines


def make_fabric(config: Config) -> Fabric:
    """Make the Fabric of a run, with one device per process; refuses a device that is not available."""
    machines, processes = started()
    # Some loss terms and parts of the networks are used in some steps only, so some parameters then have no gradient.
    strategy = "ddp_find_unused_parameters_true" if machines * processes > 1 else "auto"
    try:
        return Fabric(
            accelerator=config.device, strategy=strategy, devices=processes, num_nodes=machines, precision=config.precision
        )
    except (MisconfigurationException, RuntimeError) as error:
        raise InputError(f"device {config.device} is not available on this machine; choose cpu or auto.") from error


def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    after_epoch: Callable[[int, Method], None] | None = None,
) -> Method:
    """Train one run and write ``config.json``, ``log.jsonl``, ``weights.safetensors`` and ``checkpoint/`` into ``out``.

    Parameters
    ----------
    config : Config
        Configuration of the run.
    out : path
        A new folder, or with ``resume`` the folder of an interrupted run of the same configuration.
    resume : bool
        Continue from the last checkpoint, or start if there is none.
    progress : bool
        Show progress bars.
    after_epoch : callable, optional
        Called after each epoch with the number of finished epochs and the method, which it must not change.

    Returns
    -------
    Method
        The trained method, in evaluation mode with the configured batch norm statistics.

    Raises
    ------
    InputError
        The configuration, the data or the folder cannot be used, another job is writing there, or the loss is not finite.
    """
    out = Path(out)
    fabric = make_fabric(config)
    with locked(out) if fabric.is_global_zero else nullcontext():  # only process 0 prints and writes files
        again = resume and (out / "config.json").exists()
        check_folder(out, config, again)
        fabric.launch()  # connects to the other processes, if any
        progress = progress and fabric.is_global_zero
        session = prepare(config, fabric, progress)
        method, optimizer = session.method, session.optimizer

        # setup_module in prepare waits for all processes, so each has checked the folder before process 0 changes it.
        state = out / "checkpoint" / "state.pt"
        first = load_checkpoint(state, method, optimizer) if again and state.exists() else 0
        if fabric.is_global_zero:
            open_folder(config, out, first, again=again and first < config.size("epochs"), processes=fabric.world_size)

        for epoch, line in train_epochs(session, out, first, progress):
            if fabric.is_global_zero:
                append_line(json.dumps(line), out / "log.jsonl")
                if after_epoch:
                    after_epoch(epoch + 1, method)
                save_checkpoint(state, method, optimizer, epoch + 1)

        # Measured by all processes: SyncBatchNorm waits for each of them.
        statistics = target_batch_norm(method.student, session.target.volumes)
        if fabric.is_global_zero:
            save_weights(out / "weights.safetensors", method.student, statistics)
        fabric.barrier()
        load_weights(out, method.student, config.batch_norm)
    return method.eval()


@dataclass(frozen=True)
class Session:
    """What a step needs, on the device of this process."""

    config: Config
    fabric: Fabric
    source: Domain
    target: Domain
    method: Method
    model: torch.nn.Module  #: The method, wrapped by Fabric for several processes.
    optimizer: torch.optim.Optimizer


def prepare(config: Config, fabric: Fabric, progress: bool) -> Session:
    """Load the samples, build the method and its optimiser, and refuse what cannot be trained."""
    torch.manual_seed(config.seed)
    method = build(config.method, config.size("width"), config.vox_uda, normalisation=config.normalisation)
    source, target, _ = load_domains(config, progress=progress)
    check_input(config, fabric, method, source, target)
    source, target = source.to(fabric.device), target.to(fabric.device)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
    method.to(fabric.device)
    method.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # half the time of the default layout
    method.prepare(target.volumes)
    optimizer = torch.optim.Adam((p for p in method.parameters() if p.requires_grad), lr=config.learning_rate, fused=True)
    # Not fabric.setup: its wrapper would cast the volumes to bfloat16, for which there is no Fourier transform.
    model = fabric.strategy.setup_module(method)
    return Session(config, fabric, source, target, method, model, optimizer)


def check_folder(out: Path, config: Config, again: bool) -> None:
    """Refuse invalid sizes, and a folder in which the run cannot start or, with ``again``, resume."""
    config.sizes()
    if not again:
        check_new_folder(out)
    elif not is_run_of(out, config):
        raise InputError(f"{out}: was made with another configuration; resume with the same options, or choose a new folder.")
    else:
        check_samples(out, config.source, config.target)


def check_input(config: Config, fabric: Fabric, method: Method, source: Domain, target: Domain) -> None:
    """Refuse a batch that the processes cannot share, and samples on which the method cannot be trained."""
    batch_size, processes, shape = config.size("batch_size"), fabric.world_size, tuple(source.volumes.shape[2:])
    if batch_size % processes:
        raise InputError(f"batch_size is {batch_size}; it must be a multiple of the number of processes, {processes}.")
    if config.precision != "32-true" and fabric.device.type == "cpu" and min(shape) < LEAST_SIDE_IN_BF16:
        raise InputError(
            f"samples of {shape} voxels are too small for bf16 on a CPU; choose --precision 32-true, or samples of at least"
            f" {LEAST_SIDE_IN_BF16} voxels per side."
        )
    if config.normalisation == "renorm" and processes > 1 and fabric.device.type == "cuda":
        raise InputError("normalisation renorm does not work on several GPUs; choose batch or group, or train on one GPU.")
    if method.needs_target_labels and target.masks is None:
        raise InputError(f"{config.target}: has no masks; method {config.method} needs target labels.")


def train_epochs(session: Session, out: Path, first: int, progress: bool) -> Iterator[tuple[int, dict[str, float]]]:
    """Train from epoch ``first`` on, and yield each epoch's number and log line."""
    config, fabric, method, optimizer = session.config, session.fabric, session.method, session.optimizer
    epochs, steps = config.size("epochs"), max(1, len(session.source) // config.size("batch_size"))
    bar = tqdm(total=epochs * steps, initial=first * steps, unit="step", disable=not progress, desc=config.method)
    for epoch in range(first, epochs):
        start = time.perf_counter()
        rate = config.learning_rate * method.rate(epoch / epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        method.train()
        history: list[dict[str, torch.Tensor]] = []
        for step in range(steps):
            share = fabric.global_rank, fabric.world_size
            batch = make_batch(session.source, session.target, epoch, step, config, steps, *share)
            with fabric.autocast():
                losses = session.model(batch, (epoch * steps + step) / (epochs * steps))
            optimizer.zero_grad()
            # Eq 1, with the pseudo-labels' loss; each method's losses() names the terms.
            fabric.backward(torch.stack(list(losses.values())).sum())  # also averages the gradients over processes
            optimizer.step()
            method.after_step()
            # The values stay on the device until the epoch ends, since reading one makes the CPU wait for the GPU.
            history.append({name: value.detach() for name, value in losses.items()})
            bar.update()
        history = fabric.all_reduce(history)  # type: ignore[assignment]  # the mean over processes, in the same structure
        means = mean_losses(history, out, epoch)
        check_weights(method, out, epoch, steps)
        bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
        yield epoch, {"epoch": epoch, "learning_rate": rate, "seconds": time.perf_counter() - start, **means}
    bar.close()


def mean_losses(history: list[dict[str, torch.Tensor]], out: Path, epoch: int) -> dict[str, float]:
    """Average each named loss, a scalar on the device, over the steps of an epoch; refuses a loss that is not finite."""
    totals = torch.stack([torch.stack(list(losses.values())).sum() for losses in history]).tolist()
    for step, total in enumerate(totals):
        if not math.isfinite(total):
            raise InputError(
                f"{out}: the loss is {total} at epoch {epoch}, step {step}; lower --learning-rate and train into a "
                "new folder; the last good checkpoint is kept."
            )
    terms: dict[str, list[torch.Tensor]] = {}
    for losses in history:
        for name, value in losses.items():
            terms.setdefault(name, []).append(value)  # a term may start within an epoch
    return {name: statistics.fmean(torch.stack(values).tolist()) for name, values in terms.items()}


def check_weights(method: Method, out: Path, epoch: int, steps: int) -> None:
    """Refuse weights that are NaN or infinite after the last step of an epoch, which no loss shows before the checkpoint."""
    if not torch.stack([value.isfinite().all() for value in method.state_dict().values()]).all():
        raise InputError(
            f"{out}: a weight is not finite after epoch {epoch}, step {steps - 1}; lower --learning-rate and train into a "
            "new folder; the last good checkpoint is kept."
        )


def open_folder(config: Config, out: Path, epochs: int, *, again: bool, processes: int) -> None:
    """Make a run's folder, or reopen it after ``epochs`` epochs; records the first provenance and that of each resume."""
    made_by = {**provenance(), "processes": processes}
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "config.json").exists():
            record = {**dataclasses.asdict(config), "sizes": config.sizes(), "provenance": made_by}
            record["samples"] = fingerprints(config)
            save_json(record, out / "config.json")
        elif again:
            record = read_record(out)
            save_json({**record, "resumed": [*record.get("resumed", []), made_by]}, out / "config.json")
        (out / "checkpoint").mkdir(exist_ok=True)
        remove_debris(out / "checkpoint")
        trim_log(out / "log.jsonl", epochs)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose a writable folder.") from error


def trim_log(path: Path, epochs: int) -> None:
    """Keep the first ``epochs`` lines of a log, so that a resumed run repeats none."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    write_atomically(lambda temporary: temporary.write_text("".join(lines[:epochs])), path)


def save_checkpoint(path: Path, method: Method, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Save everything a resumed run needs; the data order follows from seed and epoch."""
    state = {"method": method.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    buffer = io.BytesIO()  # so that Python writes the file, and a full disk raises a clear OSError
    torch.save(state, buffer)
    write_atomically(lambda temporary: temporary.write_bytes(buffer.getbuffer()), path)


def load_checkpoint(path: Path, method: Method, optimizer: torch.optim.Optimizer) -> int:
    """Restore a checkpoint and return the number of finished epochs; code in the file is never run."""
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(damaged)
        state = torch.load(path, weights_only=True, map_location="cpu")
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["epoch"])
    except Exception as error:
        raise InputError(f"{path}: not a checkpoint of this method and width; train again into a new folder.") from error
