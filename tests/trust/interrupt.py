"""Kill -9 a training run at random moments and at every change of a file, go on, and compare with a run left alone."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from voxuda.errors import InputError
from voxuda.simulation import molecules, quick
from voxuda.simulation.samples import save_samples
from voxuda.training import loop
from voxuda.training.config import Config
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import save_json

CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.truncate"}
"""Events of the interpreter (see PEP 578) that change a file or folder; opening a file for writing is another."""


def in_child(action: Callable[[], object], *, kill_after: float | None = None, fails: bool = False) -> tuple[bool, float]:
    """Call ``action`` in a forked process; whether it came to its end, and the seconds it took.

    An :class:`~voxuda.errors.InputError` is an end that is not reached where ``fails`` allows it, anything else is raised.

    The fork inherits the imported libraries, which spares each trial some seconds. It is safe as long as this process has
    started no thread of OpenMP, so whatever computes must be called through here.
    """
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            action()
        except InputError as error:
            if fails:
                os._exit(2)
            print(error, file=sys.stderr, flush=True)
            os._exit(3)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(3)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)  # negative when killed
    if code > 2:
        raise RuntimeError("a run ended in an error, printed above")
    return code == 0, time.perf_counter() - start


def die_at(change: int) -> None:
    """Let this process kill itself just before its n-th change of a file."""
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGES:
            seen += 1
            if seen == change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def prepare(base: Path) -> Config:
    """A small source and target on disk, and a run of Vox-UDA on them that takes about a second."""

    def make() -> None:
        source = quick.simulate_source([molecules.load("3gl1")], n_per_molecule=4, snr=(0.3, 0.5), size=16)
        target = quick.simulate_target([molecules.load("4v94")], n_per_molecule=10, size=16)
        save_samples(source, base / "source")
        save_samples(target, base / "target")

    in_child(make)
    return Config(source=str(base / "source"), target=str(base / "target"), width=2, batch_size=4, epochs=6)


def outcome(run: Path) -> tuple[list[str], bytes, list[dict], dict]:
    """What must be equal to the bit: names of files, weights, losses of all epochs, the checkpoint with its optimiser."""
    files = sorted(path.relative_to(run).as_posix() for path in run.rglob("*"))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    state = torch.load(run / "checkpoint" / "state.pt", weights_only=True)
    return files, (run / "weights.safetensors").read_bytes(), losses, state


def equal(a: object, b: object) -> bool:
    """Equality to the bit of nested dictionaries and lists of tensors."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


def reached(run: Path) -> str:
    """How far a killed run had come."""
    if not (run / "config.json").exists():
        return "before the run's folder was complete"
    if (run / "weights.safetensors").exists():
        return "after the weights were written"
    return "after a checkpoint" if (run / "checkpoint" / "state.pt").exists() else "before the first checkpoint"


def trials(base: Path, by_time: int, every: int = 1, seed: int = 0) -> dict:
    """Kill ``by_time`` runs at random moments, and one before every ``every``-th change of a file.

    Returns
    -------
    dict
        ``by_time``, ``by_change`` (trials), ``kills`` (by how far the run had come) and ``different``: trials that did not end
        as the run left alone did.
    """
    torch.set_num_threads(1)  # no threads, see in_child
    config = prepare(base)
    train = dict(config=config, resume=True, progress=False)
    in_child(lambda: loop.train(out=base / "alone", **train))
    alone = outcome(base / "alone")
    _, seconds = in_child(lambda: loop.train(out=base / "again", **train))  # now that all is warm
    if not equal(outcome(base / "again"), alone):
        raise RuntimeError("two runs that nobody interrupts differ, so that nothing can be compared")
    kills: dict[str, int] = {}
    draw, different, changes = random.Random(seed), 0, 0
    run = base / "run"

    def die(change: int) -> None:
        die_at(change)
        loop.train(out=run, **train)

    def go_on() -> None:
        nonlocal different
        kills[reached(run)] = kills.get(reached(run), 0) + 1
        in_child(lambda: loop.train(out=run, **train))
        different += not equal(outcome(run), alone)
        shutil.rmtree(run)

    killed = 0
    with tqdm(total=by_time, desc="killed at a random moment", unit="trial") as bar:
        while killed < by_time:
            ended = False
            for _ in range(draw.choice([1, 1, 2, 3])):  # a run that is killed, goes on, and is killed again
                end, _ = in_child(lambda: loop.train(out=run, **train), kill_after=draw.uniform(0, seconds))
                ended |= end
            if ended or not run.exists():  # killed too late, or before it began
                shutil.rmtree(run, ignore_errors=True)
                continue
            killed += 1
            go_on()
            bar.update()
    with tqdm(desc="killed at a change of a file", unit="trial") as bar:
        while not in_child(lambda: die(1 + changes * every))[0]:  # noqa: B023
            changes += 1
            go_on()
            bar.update()
    shutil.rmtree(run)
    return {"by_time": by_time, "by_change": changes, "kills": kills, "different": different}


def keep(found: dict, out: Path) -> None:
    """Print the figures of some trials, and write them with what made them."""
    print(json.dumps(found, indent=2))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_json({**found, "provenance": provenance()}, out)


def main() -> int:
    """Parse the command line, run the trials, and keep their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60, help="runs killed at a random moment")
    parser.add_argument("--every", type=int, default=1, help="kill at every n-th change of a file")
    parser.add_argument("--out", type=Path, default=Path("results/trust/interrupt.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = trials(Path(folder), options.trials, options.every)
    keep(found, options.out)
    return 1 if found["different"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
