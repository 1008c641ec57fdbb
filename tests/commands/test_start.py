"""The command line starts quickly, for it imports what a command needs and no more."""

import importlib
import resource
import subprocess
import sys

import numpy as np
import pytest

import voxuda
from voxuda.data.mrc import write_mrc

ROOMS = ["signal", "data", "simulation", "denoising", "networks", "methods", "training", "experiments"]


def cpu_seconds(*arguments):
    """User and system time of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_and_segment_start_quickly(tmp_path):
    """In shares of what ``import torch`` takes; the least of three interleaved runs, for a busy machine only adds time."""
    write_mrc(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32), 13.5)
    segment = ["segment", str(tmp_path / "a.mrc"), "--out"]
    runs = [
        {
            "torch": cpu_seconds("-c", "import torch"),
            "help": cpu_seconds("-m", "voxuda", "--help"),
            "help of train": cpu_seconds("-m", "voxuda", "train", "--help"),
            "segment": cpu_seconds("-m", "voxuda", *segment, str(tmp_path / f"masks{i}")),
        }
        for i in range(3)
    ]
    least = {name: min(run[name] for run in runs) for name in runs[0]}
    share = {name: seconds / least["torch"] for name, seconds in least.items()}
    assert share["help"] < 0.3 and share["help of train"] < 0.5 and share["segment"] < 1.6, share


def test_commands_tables_and_rooms_are_imported_without_what_is_slow():
    modules = ["voxuda.commands.main", "voxuda.experiments.tables", *(f"voxuda.{room}" for room in ROOMS)]
    slow = {"torch", "numba", "scipy", "pandas", "sklearn", "matplotlib", "plotly", "lightning_fabric"}
    code = f"import sys, {', '.join(modules)}; print(*sorted({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


@pytest.mark.parametrize("name", ["voxuda", *(f"voxuda.{room}" for room in ROOMS)])
def test_a_room_has_the_names_that_it_promises(name):
    room = importlib.import_module(name)
    names = [name for names in room._NAMES.values() for name in names]
    assert set(room.__all__) == {*room._NAMES, *names} and len(room.__all__) == len(room._NAMES) + len(names)
    for name in room.__all__:
        getattr(room, name)


def test_the_front_door_has_twenty_names_or_so():
    assert 20 <= sum(map(len, voxuda._NAMES.values())) <= 35
