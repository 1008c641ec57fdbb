"""A run on disk: its configuration, its data, its weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import platform
import subprocess
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from voxuda import __version__, data, molecules, simulate, tiltseries
from voxuda.data import Domain
from voxuda.methods import VoxUDAOptions, method_class
from voxuda.options import check_types
from voxuda.volumes import InputError, write_atomically
from voxuda.voxresnet import VoxResNet, target_batch_norm

Scale = Literal["smoke", "laptop", "paper"]
BatchNorm = Literal["target", "running"]
Recipe = Literal["convolution", "tilt-series"]
SourceSet = Literal["table1", "table2"]

RESULTS = Path(__file__).resolve().parents[1] / "results"
"""Finished runs, weights and benchmarks of the repository, from any working directory; beside an installed package there are
none."""

SCALES: dict[str, dict] = {
    "smoke": dict(per_source=4, per_target=6, epochs=2, width=8, batch_size=8, source_snr=(0.3, 0.5)),
    "laptop": dict(per_source=48, per_target=100, epochs=10, width=8, batch_size=8, source_snr=(0.3, 0.5)),
    "paper": dict(per_source=500, per_target=574, epochs=300, width=32, batch_size=16, source_snr=(0.03, 0.05)),
}
"""Samples per source molecule and SNR, target samples per molecule (60 % of them for training), and training size.

smoke runs in seconds and shows that everything works, not how well; laptop takes minutes on two cores; paper has the
paper's 3,000 source samples, 1,033 target samples for training, width, batch and epochs.
"""

MOST = 1_000_000
"""The largest number of epochs, channels or samples of a step: far beyond use, and a damaged number is found."""


@dataclass(frozen=True)
class Config:
    """One run.

    Parameters
    ----------
    method : str
        The paper's: source-only, supervised, dann, pdam, asc, asc-slices, le-uda, le-uda-slices, vox-uda. Others: mean-teacher,
        fda, minent, advent, cbst, mic, tent, domain-randomisation, zero-shot.
    scale : str
        Sizes: smoke runs in seconds, laptop in minutes on two cores, paper has the paper's sizes.
    source : str, optional
        Labelled folder, for example of ``voxuda simulate source``; simulated at the size of the scale when absent.
    target : str, optional
        Folder or star file of subtomograms; 60 % of each class is for training, without labels, the rest for testing.
    recipe : str
        How the target is simulated when no folder is given: "convolution" takes a second, "tilt-series" a minute at scale
        laptop and is what a microscope does. Both have as many samples; by tilt series their classes are as the paper's.
    source_set : str
        Molecules of a simulated source: those of Table I or of Table II, with stand-ins where the paper's are not embedded.
    epochs : int, optional
        Overrides the scale.
    width : int, optional
        Channels of the network's first stage; overrides the scale.
    batch_size : int, optional
        Samples of each domain in a step; overrides the scale.
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
        "32-true" or "bf16-mixed"; the latter on a processor for samples of 24 voxels a side or more.
    vox_uda : VoxUDAOptions
        Options of the method vox-uda.
    """

    method: str = "vox-uda"
    scale: Scale = "smoke"
    source: str | None = None
    target: str | None = None
    recipe: Recipe = "convolution"
    source_set: SourceSet = "table1"
    epochs: int | None = None
    width: int | None = None
    batch_size: int | None = None
    learning_rate: float = 1e-3
    batch_norm: BatchNorm = "target"
    seed: int = 0
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    vox_uda: VoxUDAOptions = field(default_factory=VoxUDAOptions)

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; it must lie between 0 and 2^32 - 1.")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; it must be positive.")
        for name in ("source", "target"):  # absolute, so that a run can be scored from any folder
            folder = getattr(self, name)
            object.__setattr__(self, name, None if folder is None else str(Path(folder).absolute()))

    def size(self, name: str) -> int:
        """``epochs``, ``width`` or ``batch_size``: the override, else the scale's."""
        override = getattr(self, name)
        value = SCALES[self.scale][name] if override is None else override
        if not 1 <= value <= MOST:
            raise InputError(f"{name} is {value}; it must lie between 1 and {MOST}.")
        return value

    def sizes(self) -> dict:
        """All sizes in force, which with the configuration itself decide what a run is."""
        return {**SCALES[self.scale], **{name: self.size(name) for name in ("epochs", "width", "batch_size")}}


def read_record(run: str | Path) -> dict:
    """The whole of ``RUN/config.json``: configuration, sizes, provenance.

    Raises
    ------
    InputError
        The folder is not a run.
    """
    path = Path(run) / "config.json"
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; make a run with `voxuda train --out {run}`.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a run's configuration ({error}); train again into a new folder.") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}: not a run's configuration; train again into a new folder.")
    return record


def is_run_of(run: str | Path, config: Config) -> bool:
    """Whether a run's folder was made with this configuration and these sizes."""
    return read_config(run) == config and read_record(run).get("sizes") == json.loads(json.dumps(config.sizes()))


def read_config(run: str | Path) -> Config:
    """Read ``RUN/config.json``.

    Raises
    ------
    InputError
        The folder is not a run.
    """
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
        raise InputError(f"{path}: not a run's configuration ({error}); train again into a new folder.") from error


LIBRARIES = ("numpy", "scipy", "numba", "scikit-image", "lightning-fabric", "safetensors")
"""What else computes a run: distributions whose versions it notes."""


def provenance() -> dict:
    """What decides a run's numbers beside its configuration: code, libraries, hardware."""
    here = Path(__file__).resolve().parent
    try:
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
        commit = subprocess.run(describe, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None  # installed from a wheel
    return {
        "voxuda": __version__,
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "libraries": {name: version(name) for name in LIBRARIES},
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def load_domains(config: Config, *, progress: bool = False) -> tuple[Domain, Domain, Domain]:
    """Source, target for training (60 % of each class) and target for testing, from folders or simulated."""
    sizes = SCALES[config.scale]
    train, test = load_target(config, progress=progress)
    if config.source:
        source = data.load(config.source)
    else:
        source = _simulated_source(config.source_set, sizes["per_source"], sizes["source_snr"], config.seed, progress)
    if source.masks is None:
        raise InputError(f"{config.source}: has no masks; the source domain must be labelled.")
    if source.volumes.shape[2:] != train.volumes.shape[2:]:
        raise InputError(
            f"source volumes are {tuple(source.volumes.shape[2:])} and target volumes {tuple(train.volumes.shape[2:])}; "
            "simulate both with the same --size."
        )
    return source, train, test


def load_target(config: Config, *, progress: bool = False) -> tuple[Domain, Domain]:
    """The target's two parts, for training and for testing, which no sample shares.

    A folder holds few samples, so each seed tests on other ones; what is simulated is new for each seed anyway.
    """
    if not config.target:
        simulated = _simulated_target(config.recipe, SCALES[config.scale]["per_target"], config.seed, progress)
        return simulated.split(0.6, seed=0)
    target = data.load(config.target)
    if len(target) < 2:
        raise InputError(f"{config.target}: holds {len(target)} volume; training and testing need at least 2.")
    return target.split(0.6, seed=config.seed)


# Rows of a table train on the same samples, and so does a run's evaluation: the last ones are kept.
@lru_cache(maxsize=1)
def _simulated_source(which: SourceSet, n_per_molecule: int, snr: tuple[float, ...], seed: int, progress: bool) -> Domain:
    names = [molecules.STAND_INS.get(n, n) for n in molecules.PAPER_SOURCE_SETS[which]]
    library = [molecules.load(n) for n in names]
    samples = simulate.simulate_source(library, n_per_molecule=n_per_molecule, snr=snr, seed=1000 + seed, progress=progress)
    return data.from_simulation(samples)


@lru_cache(maxsize=1)
def _simulated_target(recipe: Recipe, n_per_molecule: int, seed: int, progress: bool) -> Domain:
    library = [molecules.load(n) for n in molecules.TARGET_MOLECULES]
    if recipe == "tilt-series":
        n = n_per_molecule * len(library)
        samples = tiltseries.simulate_tilt_series(library, n=n, seed=2000 + seed, progress=progress)
    else:
        samples = simulate.simulate_target(library, n_per_molecule=n_per_molecule, seed=2000 + seed, progress=progress)
    return data.from_simulation(samples)


def save_json(values: dict, path: Path) -> None:
    """Write a dictionary as indented JSON, whole or not at all."""
    write_atomically(lambda temporary: temporary.write_text(json.dumps(values, indent=2) + "\n"), path)


@torch.no_grad()
def save_weights(path: Path, network: VoxResNet, target: torch.Tensor) -> None:
    """A network's weights, and under ``target_bn.`` its batch norm statistics on target volumes ``(N, 1, D, H, W)``."""
    tensors = dict(network.state_dict())
    tensors |= {f"target_bn.{k}": v for k, v in target_batch_norm(network, target).items()}
    tensors = {k: v.cpu().contiguous() for k, v in tensors.items()}
    write_atomically(lambda temporary: temporary.write_bytes(save(tensors, {CHECKSUM: checksum(tensors)})), path)


CHECKSUM = "sha256"
"""Where a file of weights says what its tensors add up to."""


def checksum(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of tensors, on the CPU and contiguous, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights; :exc:`ValueError` when they are not those that were written."""
    with safe_open(path, "pt") as file:
        written = (file.metadata() or {}).get(CHECKSUM)
    tensors = load_file(path)
    if written not in (None, checksum(tensors)):
        raise ValueError("another checksum")
    return tensors


def halve_weights(run: str | Path, out: str | Path) -> None:
    """Copy a run's configuration and weights into ``out``, the weights as bfloat16: half the size, for a repository.

    Raises
    ------
    InputError
        The run has no weights, they cannot be read, or ``out`` has others.
    """
    run, out = Path(run), Path(out)
    load_network(run)  # says what is wrong with them
    tensors = {k: v.bfloat16() if v.is_floating_point() else v for k, v in load_file(run / "weights.safetensors").items()}
    half = save(tensors, {CHECKSUM: checksum(tensors)})
    kept = out / "weights.safetensors"
    if kept.exists() and kept.read_bytes() != half:
        raise InputError(f"{kept}: other weights are kept there; delete them first, or choose another folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(lambda temporary: temporary.write_bytes(half), kept)
    write_atomically(lambda temporary: temporary.write_bytes((run / "config.json").read_bytes()), out / "config.json")


def load_weights(run: str | Path, network: VoxResNet, batch_norm: BatchNorm) -> None:
    """Load ``RUN/weights.safetensors`` into ``network`` with "target" or "running" batch norm statistics.

    Raises
    ------
    InputError
        The file is missing, damaged or of another architecture.
    """
    path = Path(run) / "weights.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: no such file; finish the run with `voxuda train --resume --out {run}`.")
    try:
        tensors = read_weights(path)
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError("not finite")
        trained = {k: v for k, v in tensors.items() if not k.startswith("target_bn.")}
        if batch_norm == "target":
            trained |= {k.removeprefix("target_bn."): v for k, v in tensors.items() if k.startswith("target_bn.")}
        if next(network.parameters()).is_meta:  # made by load_network; kept weights may be bfloat16
            trained = {k: v.float() if v.is_floating_point() else v for k, v in trained.items()}
            network.load_state_dict(trained, assign=True)
        else:
            network.load_state_dict(trained)
    except Exception as error:
        raise InputError(f"{path}: damaged, or weights of another architecture than the run's configuration.") from error


def load_network(run: str | Path, batch_norm: BatchNorm | None = None) -> VoxResNet:
    """The trained network of a run, in evaluation mode, with the run's own choice of batch norm statistics or another."""
    config = read_config(run)
    with torch.device("meta"):  # no memory is taken for a width that the weights do not have
        network = VoxResNet(config.size("width"), planar=method_class(config.method).planar)
    load_weights(run, network, batch_norm or config.batch_norm)
    return network.eval()
