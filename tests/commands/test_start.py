"""The command line starts quickly, for it imports what a command needs and no more."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

import voxuda
from voxuda.data.mrc import write_mrc

ROOMS = ["signal", "data", "simulation", "denoising", "networks", "methods", "training", "experiments"]


SLOW = {"numba", "pandas", "sklearn", "matplotlib", "plotly", "lightning_fabric", "torch._dynamo", "torch._inductor"}
"""What no command imports unless it needs it; beside torch and scipy these take longest. `make bench` times the start."""


def imported(code, *arguments):
    """The slow modules, torch and scipy too, that a new process has imported after ``code``."""
    shown = f"{code}\nimport sys; print('imported', *({SLOW | {'torch', 'scipy'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", shown, *arguments], check=True, capture_output=True, text=True)
    return set(run.stdout.splitlines()[-1].split()[1:])


def test_commands_tables_and_rooms_are_imported_without_what_is_slow():
    modules = ["voxuda.commands.main", "voxuda.experiments.tables", *(f"voxuda.{room}" for room in ROOMS)]
    assert imported(f"import {', '.join(modules)}") == set()


COMMAND = """
from voxuda.commands.main import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended
"""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]], ids=" ".join)
def test_help_needs_no_torch(arguments):
    assert imported(COMMAND, *arguments) == set()


def test_segment_imports_torch_and_scipy_alone_of_what_is_slow(tmp_path):
    write_mrc(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32), 13.5)
    assert imported(COMMAND, "segment", str(tmp_path / "a.mrc"), "--out", str(tmp_path / "m")) == {"torch", "scipy"}


@pytest.mark.parametrize("name", ["voxuda", *(f"voxuda.{room}" for room in ROOMS)])
def test_a_room_has_the_names_that_it_promises(name):
    room = importlib.import_module(name)
    names = [name for names in room._NAMES.values() for name in names]
    assert set(room.__all__) == {*room._NAMES, *names} and len(room.__all__) == len(room._NAMES) + len(names)
    for name in room.__all__:
        getattr(room, name)


def test_the_front_door_has_twenty_names_or_so():
    assert 20 <= sum(map(len, voxuda._NAMES.values())) <= 35
