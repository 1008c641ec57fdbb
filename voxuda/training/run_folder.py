"""Read and write the configuration and the weights of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from voxuda.data.files import locked, write_atomically
from voxuda.data.listing import fingerprint
from voxuda.errors import InputError
from voxuda.methods.options import VoxUDAOptions
from voxuda.methods.registry import method_class
from voxuda.networks.normalisation import mixed_batch_norm
from voxuda.networks.voxresnet import VoxResNet
from voxuda.training.config import BatchNorm, Config


def _repository() -> Path:
    """The folder above the package that holds its results; the working directory beside an installed wheel."""
    above = Path(__file__).resolve().parents
    return next((p for p in above if (p / "results").is_dir() and (p / "pyproject.toml").is_file()), Path())


RESULTS = _repository() / "results"
"""Folder of the repository's finished runs, weights and benchmarks, from any working directory."""


MODELS = Path(__file__).parent / "models"
"""Folder of the runs that come with the package, with weights in bfloat16."""


def find_model(name: str | Path) -> Path:
    """Return the folder of a model, one that comes with the package or a run.

    A bare name such as "balanced" means the package's, even if the working directory has a run of that name; "./balanced" is
    the run.

    Raises
    ------
    InputError
        There is no such model.
    """
    run, packaged = Path(name), MODELS / name
    if os.sep not in str(name) and (packaged / "config.json").is_file():
        if (run / "config.json").is_file():
            print(f"{name}: the model that comes with the package is used; your run is ./{name}.", file=sys.stderr)
        return packaged
    if (run / "config.json").is_file():
        return run
    names = ", ".join(sorted(path.name for path in MODELS.iterdir()))
    if run.is_file():
        raise InputError(f"{name}: is a file; give the folder of the run that it lies in.")
    raise InputError(f"{name}: no such model; give the folder of a run, or one of {names}.")


def read_record(run: str | Path) -> dict:
    """Read all of ``RUN/config.json``, configuration, sizes and provenance; ``InputError`` if the folder is not a run."""
    path = Path(run) / "config.json"
    if Path(run).is_file():
        raise InputError(f"{run}: is a file; give the folder of the run that it lies in.")
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise ValueError(f"it holds a {type(record).__name__}")
        return record
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; make a run with `voxuda train --out {shlex.quote(str(run))}`.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a run's configuration ({error}); put back the file that `voxuda train` wrote."
        ) from error


def is_run_of(run: str | Path, config: Config) -> bool:
    """Return whether a run's folder was made with this configuration and these sizes."""
    return read_config(run) == config and read_record(run).get("sizes") == as_stored(config.sizes())


def fingerprints(config: Config) -> dict[str, str]:
    """Return the fingerprints of the folders of samples that a configuration names, by folder."""
    return {folder: fingerprint(folder) for folder in (config.source, config.target) if folder}


def check_samples(run: str | Path, *folders: str | None) -> None:
    """Refuse folders whose samples are not those that a run began with, since other samples are split in another way.

    Raises
    ------
    InputError
        A sample was added, removed, renamed or changed. Folders that a run did not record are not checked.
    """
    recorded = read_record(run).get("samples") or {}
    for folder in folders:
        if folder and folder in recorded and fingerprint(folder) != recorded[folder]:
            what = "its samples are not those with which training began"
            raise InputError(f"{folder}: {what}, so training and test samples would mix; put them back, or train again.")


def as_stored(values: dict) -> dict:
    """Convert a dictionary to what JSON gives back, with tuples as lists, also in nested dictionaries."""
    return {k: as_stored(v) if isinstance(v, dict) else list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def read_config(run: str | Path) -> Config:
    """Read the configuration of a run; ``InputError`` if the folder is not one."""
    values = read_record(run)
    try:
        options = dict(values["vox_uda"])
        options["lambdas"] = tuple(options["lambdas"])
        names = {f.name for f in dataclasses.fields(Config)} - {"vox_uda"}
        config = Config(**{k: v for k, v in values.items() if k in names}, vox_uda=VoxUDAOptions(**options))
        method_class(config.method)
        config.sizes()
        return config
    except (InputError, ValueError, KeyError, TypeError) as error:
        path = Path(run) / "config.json"
        raise InputError(
            f"{path}: not a run's configuration ({error}); put back the file that `voxuda train` wrote."
        ) from error


def save_json(values: dict, path: Path) -> None:
    """Write a dictionary as indented JSON, whole or not at all."""
    write_atomically(lambda temporary: temporary.write_text(json.dumps(values, indent=2) + "\n"), path)


def save_weights(path: Path, network: VoxResNet, target_bn: dict[str, torch.Tensor]) -> None:
    """Write a network's weights and, with the prefix ``target_bn.``, its batch norm statistics on the target."""
    tensors = {**network.state_dict(), **{f"target_bn.{k}": v for k, v in target_bn.items()}}
    tensors = {k: v.cpu().contiguous() for k, v in tensors.items()}
    write_atomically(lambda temporary: temporary.write_bytes(save(tensors, {CHECKSUM: checksum(tensors)})), path)


CHECKSUM = "sha256"
"""Metadata key of the checksum in a file of weights."""


def checksum(tensors: dict[str, torch.Tensor]) -> str:
    """Compute the SHA-256 of tensors, on the CPU and contiguous, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file of weights; :exc:`ValueError` if their checksum differs."""
    with safe_open(path, "pt") as file:
        written = (file.metadata() or {}).get(CHECKSUM)
    tensors = load_file(path)
    if written not in (None, checksum(tensors)):
        raise ValueError("another checksum")
    return tensors


def halve_weights(run: str | Path, out: str | Path) -> None:
    """Copy a run's configuration and its weights, as bfloat16 for half the size, into ``out``; refuses to replace others."""
    run, out = Path(run), Path(out)
    load_network(run)  # says what is wrong with them
    tensors = {k: v.bfloat16() if v.is_floating_point() else v for k, v in load_file(run / "weights.safetensors").items()}
    half = save(tensors, {CHECKSUM: checksum(tensors)})
    kept = out / "weights.safetensors"
    with locked(out):
        if kept.exists() and kept.read_bytes() != half:
            raise InputError(f"{kept}: other weights are kept there; delete them first, or choose another folder.")
        write_atomically(lambda temporary: temporary.write_bytes(half), kept)
        write_atomically(lambda temporary: temporary.write_bytes((run / "config.json").read_bytes()), out / "config.json")


def load_weights(run: str | Path, network: VoxResNet, batch_norm: BatchNorm) -> None:
    """Load ``RUN/weights.safetensors`` into ``network`` with "target", "running" or "mixed" batch norm statistics.

    ``InputError`` if the file is missing, damaged or of another architecture.
    """
    path = Path(run) / "weights.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: no such file; finish the run with `voxuda train --resume --out {shlex.quote(str(run))}`.")
    try:
        tensors = read_weights(path)
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError("not finite")
        trained = {k: v for k, v in tensors.items() if not k.startswith("target_bn.")}
        on_target = {k.removeprefix("target_bn."): v for k, v in tensors.items() if k.startswith("target_bn.")}
        if batch_norm != "running":
            trained |= on_target if batch_norm == "target" else mixed_batch_norm(trained, on_target)
        if next(network.parameters()).is_meta:  # made by load_network; kept weights may be bfloat16
            trained = {k: v.float() if v.is_floating_point() else v for k, v in trained.items()}
            network.load_state_dict(trained, assign=True)
        else:
            network.load_state_dict(trained)
    except Exception as error:
        raise InputError(f"{path}: damaged, or weights of another architecture than the run's configuration.") from error


def load_network(run: str | Path, batch_norm: BatchNorm | None = None) -> VoxResNet:
    """Load the trained network of a run, in evaluation mode, with the run's own kind of batch norm statistics or another."""
    config = read_config(run)
    with torch.device("meta"):  # no memory is taken for a width that the weights do not have
        planar, normalisation = method_class(config.method).planar, config.normalisation
        network = VoxResNet(config.size("width"), planar=planar, normalisation=normalisation)
    load_weights(run, network, batch_norm or config.batch_norm)
    return network.eval()
