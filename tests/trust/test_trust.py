"""It loses nothing, and no file makes it crash: a few of the trials of `make trust`, and that they can fail."""

import errno
import json
import os
import pickle
import socket
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from voxuda import methods
from voxuda.errors import InputError
from voxuda.training import loop
from voxuda.training.run_folder import load_network


def script(root, *arguments):
    """Run a script in a process of its own, which has started no threads that a fork could lose."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(("trials", "every", "at_least"), [(1, 25, 1), pytest.param(2, 9, 3, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_loses_nothing(tmp_path, root, trials, every, at_least):
    options = ["--trials", trials, "--every", every, "--out", tmp_path / "found.json"]
    done = script(root, "-m", "tests.trust.interrupt", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["by_time"] == trials and found["by_change"] >= at_least and found["different"] == 0
    assert sum(found["kills"].values()) == found["by_time"] + found["by_change"]


@pytest.mark.parametrize("each", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_no_damaged_file_is_read_wrongly(tmp_path, root, each):
    done = script(root, "-m", "tests.trust.fuzz", "--cases", 8 * each, "--seed", 1, "--out", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    kinds = json.loads((tmp_path / "found.json").read_text())["kinds"]
    assert len(kinds) == 8 and all(sum(counts.values()) == each and counts["sentence"] for counts in kinds.values())


@pytest.mark.parametrize("pairs", [6, pytest.param(42, marks=pytest.mark.slow)])
def test_two_jobs_never_share_a_folder(tmp_path, root, pairs):
    done = script(root, "-m", "tests.trust.pairs", "--pairs", pairs, "--out", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    counts = [sum(outcomes.values()) for outcomes in found["outcomes"].values()]
    assert counts == [pairs // 6] * 6 and found["killed"] > 0 and found["wrong"] == 0


FAULTS = """
import os, signal
from pathlib import Path
from tests.trust import fuzz
from voxuda.errors import InputError

def refuse(sentence):
    raise InputError(sentence)

fuzz.SECONDS = 6
reads = [
    lambda: None,
    lambda: refuse("/a/b.mrc: is damaged; give another."),
    lambda: refuse("is damaged; give another."),
    lambda: refuse("/a/b.mrc: is damaged\\ngive another."),
    lambda: {}["key"],
    lambda: bytearray(800 << 20),
    lambda: bytearray(30 << 30),
    lambda: os.kill(os.getpid(), signal.SIGSEGV),
    lambda: signal.pause(),
]
for read in reads:
    print(ascii(fuzz.attempt(fuzz.Kind(Path("/a/b.mrc"), [], read)).splitlines()[-1]))
"""


def test_the_trials_notice_each_way_to_fail(root):
    done = script(root, "-c", FAULTS)
    assert done.returncode == 0, done.stderr
    said = [line.strip("'\"") for line in done.stdout.splitlines()]
    assert said[:2] == ["answer", "sentence"]
    assert said[2].startswith("not one sentence") and said[3] == "give another."
    assert said[4] == "KeyError: 'key" and said[5].endswith("GB of memory") and said[6] == "MemoryError"
    assert said[7:] == ["crash -11", "hang"]


def test_a_full_disk_loses_nothing(tmp_path, tiny, monkeypatch):
    """Each write of a run in turn meets a full disk; with room again the run ends as one that always had room."""
    setting = tiny(method="vox-uda", epochs=2)
    whole = loop.train(setting, tmp_path / "whole", progress=False).student.state_dict()
    fsync, written = os.fsync, 0

    def full(descriptor):
        nonlocal written
        written += 1
        if written == refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    refused, kept = 1, 0
    while True:
        out, written = tmp_path / str(refused), 0
        monkeypatch.setattr(os, "fsync", full)
        try:
            loop.train(setting, out, progress=False)
            break
        except InputError as error:
            assert "cannot be written (No space left on device); free some space" in str(error)
        monkeypatch.setattr(os, "fsync", fsync)
        state = out / "checkpoint" / "state.pt"
        if state.exists():
            kept += 1
            assert torch.load(state, weights_only=True)["epoch"] in (1, 2)
        resumed = loop.train(setting, out, resume=True, progress=False).student.state_dict()
        assert all(torch.equal(whole[k], resumed[k]) for k in whole)
        refused += 1
    assert refused > 4 and kept >= 2


def test_the_tests_have_no_network():
    # Newer releases warn before they refuse, and a warning is an error here.
    with (
        socket.socket() as unconnected,
        pytest.raises((UserWarning, RuntimeError), match=r"tried to use socket\.socket\.connect"),
    ):
        unconnected.connect(("192.0.2.1", 443))  # an address that documentation may use and nobody has


NO_SOCKETS = """
import socket

def refuse(*arguments, **options):
    raise RuntimeError("a connection was opened")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import importlib, pkgutil, voxuda
for module in pkgutil.walk_packages(voxuda.__path__, "voxuda."):
    if module.name != "voxuda.__main__":
        importlib.import_module(module.name)
"""


def test_importing_the_package_asks_no_one(root):
    done = script(root, "-c", NO_SOCKETS)
    assert done.returncode == 0, done.stderr


class Evil:
    def __reduce__(self):
        return os.mkdir, ("trap",)


def test_code_in_a_checkpoint_is_refused(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop.train(tiny(epochs=1), "run", progress=False)
    state = tmp_path / "run" / "checkpoint" / "state.pt"
    with zipfile.ZipFile(state) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(state, "w") as new:
        for name, content in members.items():
            new.writestr(name, pickle.dumps(Evil(), protocol=2) if name.endswith("data.pkl") else content)
    with pytest.raises(InputError, match=r"state\.pt: not a checkpoint of this method and width; train again"):
        loop.train(tiny(epochs=1), "run", resume=True, progress=False)
    assert not (tmp_path / "trap").exists()
    torch.load(state, weights_only=False)  # which would have run it
    assert (tmp_path / "trap").exists()


def test_a_changed_bit_is_found(tmp_path, tiny):
    """Of weights by their checksum, of a checkpoint by the archive's."""
    out = tmp_path / "run"
    loop.train(tiny(method="source-only", epochs=1), out, progress=False)
    weights, state = out / "weights.safetensors", out / "checkpoint" / "state.pt"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(InputError, match=r"weights\.safetensors: damaged"):
        load_network(out)
    save_file(load_file(weights), weights)  # weights of another origin, which say no checksum
    assert not load_network(out).training
    content = bytearray(state.read_bytes())
    with zipfile.ZipFile(state) as archive:
        member = max(archive.infolist(), key=lambda info: info.file_size)
    content[member.header_offset + 200] ^= 1
    state.write_bytes(content)
    method = methods.build("source-only", 2)
    optimizer = torch.optim.Adam(method.parameters(), fused=True)
    with pytest.raises(InputError, match=r"state\.pt: not a checkpoint"):
        loop.load_checkpoint(state, method, optimizer)
