"""One loop for every method: device, precision, checkpoint, resume, log."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from voxuda import __version__, data, molecules, simulate
from voxuda.data import Domain
from voxuda.evaluation import target_batch_norm
from voxuda.methods import Batch, Method, VoxUDAOptions, build
from voxuda.volumes import InputError

Scale = Literal["smoke", "laptop", "paper"]

SCALES: dict[str, dict] = {
    "smoke": dict(per_source=4, per_target=6, epochs=2, width=8, batch_size=8, source_snr=(0.3, 0.5)),
    "laptop": dict(per_source=48, per_target=100, epochs=10, width=8, batch_size=8, source_snr=(0.3, 0.5)),
    "paper": dict(per_source=500, per_target=574, epochs=300, width=32, batch_size=16, source_snr=(0.03, 0.05)),
}
"""Samples per source molecule and SNR, target samples per molecule (60 % of them for training), and training size.

smoke runs in seconds and shows that everything works, not how well; laptop takes minutes on two cores; paper has the
paper's 3,000 source samples, 1,033 target samples for training, width, batch and epochs.
"""


@dataclass(frozen=True)
class Config:
    """One run.

    Parameters
    ----------
    method : str
        source-only, supervised, dann or vox-uda.
    scale : str
        Sizes, see ``SCALES``.
    source, target : str, optional
        Folders made by ``voxuda simulate``; simulated by the scale when absent.
    epochs, width, batch_size : int, optional
        Override the scale.
    learning_rate : float
        Adam's, divided by 10 after each third of training as in the paper.
    batch_norm : str
        Statistics in force when the network is used: "target" measures them anew on the unlabelled target samples
        (AdaBN), "running" keeps the averages of training. The paper is silent, and it matters more than most modules.
    seed : int
        Seed of weights, data order, noise and simulated data.
    device : str
        "cpu", "cuda" or "auto".
    precision : str
        "32-true" or "bf16-mixed".
    vox_uda : VoxUDAOptions
        Options of the method vox-uda.
    """

    method: str = "vox-uda"
    scale: Scale = "smoke"
    source: str | None = None
    target: str | None = None
    epochs: int | None = None
    width: int | None = None
    batch_size: int | None = None
    learning_rate: float = 1e-3
    batch_norm: Literal["target", "running"] = "target"
    seed: int = 0
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    vox_uda: VoxUDAOptions = field(default_factory=VoxUDAOptions)

    def size(self, name: str) -> int:
        """``epochs``, ``width`` or ``batch_size``: the override, else the scale's."""
        override = getattr(self, name)
        value = SCALES[self.scale][name] if override is None else override
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1.")
        return value


def load_domains(config: Config) -> tuple[Domain, Domain, Domain]:
    """Source, target for training (60 % of each class) and target for testing, from folders or simulated."""
    sizes = SCALES[config.scale]
    if config.source:
        source = data.load(config.source)
        if source.masks is None:
            raise InputError(f"{config.source}: holds no masks.mrcs; the source domain must be labelled.")
    else:
        names = [molecules.STAND_INS.get(n, n) for n in molecules.PAPER_SOURCE_SETS["table1"]]
        library = [molecules.load(n) for n in names]
        source = data.from_simulation(
            simulate.simulate_source(
                library, n_per_molecule=sizes["per_source"], snr=sizes["source_snr"], seed=1000 + config.seed
            )
        )
    if config.target:
        target = data.load(config.target)
    else:
        library = [molecules.load(n) for n in molecules.TARGET_MOLECULES]
        target = data.from_simulation(
            simulate.simulate_target(library, n_per_molecule=sizes["per_target"], seed=2000 + config.seed)
        )
    if len(target) < 2:
        raise InputError(f"{config.target}: holds {len(target)} volume; training and testing need at least 2.")
    train, test = target.split(0.6, seed=0)
    if len(test) == 0:
        train, test = target, target
    return source, train, test


def make_batch(source: Domain, target: Domain, epoch: int, step: int, config: Config, steps: int) -> Batch:
    """The batch of one step, a pure function of seed, epoch and step, so that a resumed run sees the same data."""
    size = config.size("batch_size")

    def pick(domain: Domain, stream: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(hash((config.seed, epoch, stream)) % 2**63)
        needed = steps * size
        rounds = [torch.randperm(len(domain), generator=generator) for _ in range(-(-needed // len(domain)))]
        return torch.cat(rounds)[step * size : (step + 1) * size]

    s, t = pick(source, 0), pick(target, 1)
    assert source.masks is not None
    return Batch(
        source=source.volumes[s],
        source_labels=source.masks[s, 0].long(),
        target=target.volumes[t],
        target_labels=None if target.masks is None else target.masks[t, 0].long(),
        target_index=t,
        generator=torch.Generator().manual_seed(hash((config.seed, epoch, step, 2)) % 2**63),
    )


def save_atomically(write, path: Path) -> None:
    """Call ``write(temporary)``, flush the file to disk and rename it to ``path``."""
    temporary = path.with_name(path.name + ".part")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); free some space.") from error


def config_from_dict(values: dict) -> Config:
    """The :class:`Config` of a run's ``config.json``."""
    options = dict(values["vox_uda"])
    options["lambdas"] = tuple(options["lambdas"])
    names = {f.name for f in dataclasses.fields(Config)}
    return Config(**{k: v for k, v in values.items() if k in names and k != "vox_uda"}, vox_uda=VoxUDAOptions(**options))


def read_config(run: str | Path) -> Config:
    """Read ``RUN/config.json``.

    Raises
    ------
    InputError
        The folder is not a run.
    """
    path = Path(run) / "config.json"
    try:
        return config_from_dict(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; make a run with `voxuda train --out {run}`.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a run's configuration ({error}); train again.") from error


def train(config: Config, out: str | Path, *, resume: bool = False, progress: bool = True) -> Method:
    """Train one run and leave ``config.json``, ``log.jsonl``, ``weights.safetensors`` and ``checkpoint/`` in ``out``.

    Parameters
    ----------
    config : Config
        What to do.
    out : path
        A new folder, or with ``resume`` the folder of an interrupted run of the same configuration.
    resume : bool
        Go on from the last checkpoint.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Method
        The trained method, in evaluation mode with the configured batch norm statistics.
    """
    torch.manual_seed(config.seed)
    method = build(config.method, config.size("width"), config.vox_uda)
    out = Path(out)
    if not (resume and out.is_dir()):
        out = data.new_folder(out)
    elif read_config(out) != config:
        raise InputError(f"{out}: was made with another configuration; resume with the same options, or choose a new folder.")
    source, target, _ = load_domains(config)
    if method.needs_target_labels and target.masks is None:
        raise InputError(f"{config.target}: holds no masks.mrcs; method {config.method} needs target labels.")

    fabric = Fabric(accelerator=config.device, devices=1, precision=config.precision)
    method.prepare(target.volumes)
    optimizer = torch.optim.Adam((p for p in method.parameters() if p.requires_grad), lr=config.learning_rate)
    epochs = config.size("epochs")
    steps = max(1, len(source) // config.size("batch_size"))
    state = out / "checkpoint" / "state.pt"
    first = 0
    if resume and state.exists():
        first = load_checkpoint(state, method, optimizer)
    provenance = {
        "voxuda": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    record = {**dataclasses.asdict(config), "epochs_run": epochs, "steps_per_epoch": steps, "provenance": provenance}
    save_atomically(lambda p: p.write_text(json.dumps(record, indent=2)), out / "config.json")
    state.parent.mkdir(exist_ok=True)
    trim_log(out / "log.jsonl", first)

    method.to(fabric.device)
    bar = tqdm(total=epochs * steps, initial=first * steps, unit="step", disable=not progress, desc=config.method)
    for epoch in range(first, epochs):
        rate = config.learning_rate * 0.1 ** (3 * epoch // epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        method.train()
        sums: dict[str, float] = {}
        start = time.perf_counter()
        for step in range(steps):
            batch = make_batch(source, target, epoch, step, config, steps)
            with fabric.autocast():
                losses = method.losses(batch, (epoch * steps + step) / (epochs * steps))
            total = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(total):
                raise InputError(
                    f"{out}: the loss is {total.item()} at epoch {epoch}, step {step}; lower --learning-rate and resume "
                    "from the last checkpoint, which is kept."
                )
            optimizer.zero_grad()
            fabric.backward(total)
            optimizer.step()
            method.after_step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item()
            bar.update()
        means = {name: value / steps for name, value in sums.items()}
        bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
        line = {"epoch": epoch, "learning_rate": rate, "seconds": time.perf_counter() - start, **means}
        with open(out / "log.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")
        save_checkpoint(state, method, optimizer, epoch + 1)
    bar.close()
    save_weights(out / "weights.safetensors", method, target.volumes)
    load_weights(out, method.student, config.batch_norm)
    return method.eval()


def trim_log(path: Path, epochs: int) -> None:
    """Keep the first ``epochs`` lines, so that a resumed run repeats none."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    path.write_text("".join(lines[:epochs]))


def save_checkpoint(path: Path, method: Method, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Everything a resumed run needs; the data order follows from seed and epoch."""
    state = {"method": method.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    save_atomically(lambda temporary: torch.save(state, temporary), path)


def load_checkpoint(path: Path, method: Method, optimizer: torch.optim.Optimizer) -> int:
    """Restore a checkpoint and return the number of finished epochs; no code in the file is ever run."""
    try:
        state = torch.load(path, weights_only=True)
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["epoch"])
    except Exception as error:
        raise InputError(f"{path}: not a checkpoint of this method and width; train again into a new folder.") from error


@torch.no_grad()
def save_weights(path: Path, method: Method, target: torch.Tensor) -> None:
    """The student's weights, and under ``target_bn.`` its batch norm statistics on the unlabelled target."""
    tensors = {k: v.contiguous().cpu() for k, v in method.student.state_dict().items()}
    tensors |= {f"target_bn.{k}": v.cpu() for k, v in target_batch_norm(method.student, target).items()}
    save_atomically(lambda temporary: save_file(tensors, temporary), path)


def load_weights(run: str | Path, network: torch.nn.Module, batch_norm: str) -> None:
    """Load ``RUN/weights.safetensors`` with "target" or "running" batch norm statistics.

    Raises
    ------
    InputError
        The file is missing, damaged or of another architecture.
    """
    path = Path(run) / "weights.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: no such file; finish the run with `voxuda train --resume --out {run}`.")
    try:
        tensors = load_file(path)
        trained = {k: v for k, v in tensors.items() if not k.startswith("target_bn.")}
        if batch_norm == "target":
            trained |= {k.removeprefix("target_bn."): v for k, v in tensors.items() if k.startswith("target_bn.")}
        network.load_state_dict(trained)
    except Exception as error:
        raise InputError(f"{path}: damaged, or weights of another architecture than the run's configuration.") from error
