"""Shared fixtures."""

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker for each core, and no thread that waits for another's
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import pytest
import torch

from voxuda.data import microtubule
from voxuda.data.files import LOCK, locked
from voxuda.simulation import molecules, quick
from voxuda.simulation.samples import save_samples
from voxuda.training.config import SCALES, Config

hypothesis.settings.register_profile("voxuda", deadline=None)  # no test is about time
hypothesis.settings.load_profile("voxuda")

ROOT = Path(__file__).resolve().parent.parent


TRAINS = {"tiny", "short_smoke", "test_parallel.py", "test_every_row.py"}
KEPT = "test_an_interrupted_run_has_the_weights_of_a_whole_one_and_only_supervised_reads_target_labels[vox-uda]"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what trains: tests that ask for a fixture, or stand in a file, named in ``TRAINS``; but one, for `make unit`."""
    for item in items:
        if TRAINS & {*getattr(item, "fixturenames", ()), item.path.name} and item.name != KEPT:
            item.add_marker("training")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@contextmanager
def held(folder: Path, name: str = LOCK) -> Iterator[str]:
    """Let another process hold a folder; yields what a job says that is refused."""
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        try:
            with locked(folder, name):
                signal.pause()
        finally:
            os._exit(1)
    lock = folder / name
    while not (lock.exists() and lock.read_text()):
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.01)
    try:
        yield f"{folder.name}: another job is writing here (process {child} on "
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.fixture
def hold() -> Callable:
    """Call it with a folder, and maybe the name of the lock's file, in a ``with`` statement; see ``held``."""
    return held


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def stacks() -> Path:
    """Real tilt stacks, which the repository does not hold."""
    if "VOXUDA_DATA" not in os.environ:
        pytest.skip("no real tilt stacks: set VOXUDA_DATA to a folder that holds real/ribosome_tilt_stacks")
    return Path(os.environ["VOXUDA_DATA"]) / "real" / "ribosome_tilt_stacks"


@pytest.fixture(scope="session")
def microtubule_files() -> Path:
    """The real crop as it was published, with a label of its wall, which the repository does not hold."""
    if "VOXUDA_DATA" not in os.environ:
        pytest.skip("no real tomogram: set VOXUDA_DATA to a folder that holds real/microtubule")
    return Path(os.environ["VOXUDA_DATA"]) / "real" / "microtubule"


@pytest.fixture(scope="session")
def fetched_microtubule(microtubule_files, tmp_path_factory) -> Path:
    """What `voxuda data fetch microtubule` makes of it."""
    folder = tmp_path_factory.mktemp("microtubule")
    microtubule.prepare(microtubule_files / "13pf_MT.tif", folder)
    return folder


@pytest.fixture
def molecule_files() -> Path:
    """Coordinates and maps from which the beads were derived, which the repository does not hold."""
    if "VOXUDA_DATA" not in os.environ:
        pytest.skip("no molecule files: set VOXUDA_DATA to a folder that holds molecules/")
    folder = Path(os.environ["VOXUDA_DATA"]) / "molecules"
    assert folder.is_dir(), f"VOXUDA_DATA is set, but {folder} is no folder"
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Path:
    """A folder with a tiny ``source`` and a tiny ``target`` of 16³ samples."""
    base = tmp_path_factory.mktemp("domains")
    source = quick.simulate_source([molecules.load("3gl1")], n_per_molecule=4, snr=(0.3, 0.5), size=16)
    target = quick.simulate_target([molecules.load("4v94")], n_per_molecule=10, size=16)
    save_samples(source, base / "source")
    save_samples(target, base / "target")
    return base


@pytest.fixture
def tiny(folders) -> Callable[..., Config]:
    """A configuration that trains in a second; keywords change it."""
    base = Config(source=str(folders / "source"), target=str(folders / "target"), width=2, batch_size=4, epochs=2)
    return lambda **changes: dataclasses.replace(base, **changes)


@pytest.fixture
def short_smoke(monkeypatch) -> None:
    """Scale smoke with a few samples and one epoch, for runs that a table makes by its own configuration."""
    monkeypatch.setitem(SCALES, "smoke", {**SCALES["smoke"], "per_source": 1, "per_target": 2, "epochs": 1})
