"""Start pairs of jobs into one folder at random moments, kill some of the first, and see that it holds one job's work, whole.

Jobs are commands as a user gives them. They run in forked processes that have the package imported already, since to start
Python takes seconds; this process has no threads that a fork could lose (see ``tests.trust.interrupt.in_child``). What stands
in the folder in the end is compared with what each job leaves that runs alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from tqdm import tqdm

from tests.trust.interrupt import in_child, keep, prepare
from voxuda.commands.main import main as voxuda
from voxuda.data.listing import list_entries
from voxuda.data.mrc import write_mrc
from voxuda.errors import InputError

BUSY = re.compile(
    r"another job is writing here \((process (\d+) on \S+ since [-\d]+ [:\d]+|its process is not known yet)\); wait for it"
)
UNREADABLE = ("no such folder or file", "so writing is in progress or was interrupted; wait", "holds no volumes.mrcs")
"""What a job says whose input is not there yet."""
TAKEN = ("the folder is not empty", "made from another volume", "unfinished mask of other volume")
"""What a job says where another has written before."""


@dataclass
class Job:
    """A command, the process that runs it, and how that ended."""

    command: list[str]
    log: Path
    process: int = 0
    code: int | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = 70  # of what raises
            try:
                code = voxuda(self.command)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def wait(self, until: float | None = None) -> bool:
        """Wait for the end, or for a moment; whether the end has come."""
        while self.code is None:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                self.code, self.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - self.started
            elif until is not None and time.monotonic() >= until:
                return False
            else:
                time.sleep(0.002)
        return True

    def kill(self) -> None:
        """As the operating system does when memory runs out."""
        if self.code is None:
            os.kill(self.process, signal.SIGKILL)

    def said(self) -> str:
        """The last line that it printed."""
        return self.log.read_text().replace("\r", "\n").strip().rpartition("\n")[2]


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder, but for what tells when it was made."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        bytes_ = path.read_bytes()
        if path.suffix in (".mrc", ".mrcs"):
            bytes_ = bytes_[:220] + bytes_[1024:]  # without the labels, which hold the time
        elif path.name == "config.json":
            record = json.loads(bytes_)
            bytes_ = json.dumps({k: v for k, v in record.items() if k not in ("provenance", "resumed")}).encode()
        elif path.name == "log.jsonl":
            lines = [{**json.loads(line), "seconds": 0} for line in bytes_.splitlines()]
            bytes_ = json.dumps(lines).encode()
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(bytes_).hexdigest()
    return found


def readable(folder: Path) -> bool:
    """Whether a folder of samples is taken for a whole one."""
    try:
        return bool(list_entries(folder))
    except InputError:
        return False


@dataclass
class Kind:
    """Two commands that write ``--out``, the folder of the pair, or of which the second reads what the first writes."""

    first: list[str]
    second: list[str]
    out: Path
    second_out: Path  #: Another folder if the second command reads the first one's.
    again: list[str]  #: What finishes the work of the first after it was killed.

    def clear(self) -> None:
        """Remove what a pair has left."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.second_out, ignore_errors=True)


def kinds(base: Path) -> dict[str, Kind]:
    """The pairs, of jobs that take about a second at most."""
    config = prepare(base)
    out, run = base / "out", base / "run"

    def samples() -> None:
        for name, seed in (("a", "3"), ("b", "4")):
            voxuda(f"simulate quick --molecules 4v94 --n-per-molecule 60 --size 16 --seed {seed} --out {base / name}".split())

    in_child(samples)
    source, target = ["--source", str(config.source)], ["--target", str(config.target)]
    train = ["train", *source, "--width", "2", "--batch-size", "4", "--epochs", "4", "--method", "vox-uda", *target]
    trains = [[*train, "--seed", seed, "--out", str(out)] for seed in "01"]
    converts = [["data", "convert", str(base / name), "--size", "16", "--out", str(out)] for name in "ab"]
    simulate = "simulate quick --molecules 4v94 --n-per-molecule 40 --size 16"
    simulates = [[*simulate.split(), "--seed", seed, "--out", str(out)] for seed in "01"]
    reads = [*train[:-1], str(out), "--out", str(run)]
    for name, seed in (("a", 3), ("b", 4)):  # two tomograms of one name
        write_mrc(base / name / "t.mrc", np.random.default_rng(seed).normal(size=(72, 40, 40)).astype(np.float32), 10.0)
    segments = [["segment", str(base / name / "t.mrc"), "--out", str(out)] for name in "ab"]
    return {
        "convert, train on it": Kind(converts[0], reads, out, run, converts[0]),
        "convert, convert": Kind(*converts, out, out, converts[0]),
        "train, train": Kind(*trains, out, out, [*trains[0], "--resume"]),
        "train, train --resume": Kind(trains[0], [*trains[0], "--resume"], out, out, [*trains[0], "--resume"]),
        "simulate, simulate": Kind(*simulates, out, out, simulates[0]),
        "segment, segment": Kind(*segments, out, out, segments[0]),
    }


class Wrong(Exception):
    """What a pair must not do."""


def demand(right: bool, sentence: str) -> None:
    """Stop at what a pair must not do."""
    if not right:
        raise Wrong(sentence)


def check(kind: Kind, jobs: list[Job], alone: list[dict[str, str]], run: Callable[[list[str]], Job]) -> str:
    """How a pair ended, if that is a way in which it may.

    Raises
    ------
    Wrong
        Says what it did that it must not.
    """
    shared = kind.out == kind.second_out
    first, second = jobs
    killed = first.code == -signal.SIGKILL
    for job, other in ((first, second), (second, first)):
        demand(job.code in (0, 2) or (job is first and killed), f"exit {job.code}: {job.said()}")
        if job.code != 2:
            continue
        said, busy = job.said(), BUSY.search(job.said())
        demand(said.startswith("voxuda: "), f"exit 2 without a sentence: {said}")
        if shared:
            demand(bool(busy) or any(why in said for why in TAKEN), f"refused otherwise: {said}")
        else:
            demand(job is second and any(why in said for why in UNREADABLE), f"refused otherwise: {said}")
        if busy and busy[2]:
            demand(int(busy[2]) == other.process, f"names another process than the other job's: {said}")
    done = [job for job in jobs if job.code == 0]
    if not shared:
        demand(killed or first.code == 0, f"the writer failed: {first.said()}")
        demand(content(kind.second_out) == (alone[1] if second.code == 0 else {}), "the reader's folder is another than alone")
    elif killed:
        demand(len(done) <= 1, "a job ended well in the folder of another")
    elif second.command[-1] != "--resume":
        demand(len(done) == 1, f"{len(done)} jobs ended well")
    else:  # which does nothing after a run that is finished
        demand(len(done) >= 1, "no job ended well")
    if done and (shared or first.code == 0):
        demand(content(kind.out) == alone[jobs.index(done[0])], f"the folder is not what {done[0].command} leaves alone")
    else:
        again = run(kind.again)
        again.wait()
        if again.code == 0:
            demand(content(kind.out) == alone[0], "not what the first job leaves alone, after it was killed and went on")
        else:
            demand("--resume" not in kind.again and "not empty" in again.said(), f"did not go on: {again.said()}")
            finished = content(kind.out) == alone[0]  # and killed after its last file
            demand(finished or not readable(kind.out), "a folder that is not finished is taken for a whole one")
    how = {0: "ended well", 2: "was refused", -signal.SIGKILL: "was killed"}
    return f"the first {how[first.code]}, the second {how[second.code]}"  # type: ignore[index]


def trials(base: Path, pairs: int, seed: int = 0, share_killed: float = 0.3) -> dict:
    """Run ``pairs`` pairs, of each kind as many.

    Returns
    -------
    dict
        ``pairs``, ``killed``, ``outcomes`` (by kind), ``slowest_refusal`` in seconds from the start of a job, and ``wrong``.
    """
    torch.set_num_threads(1)  # no threads, see above
    tqdm.monitor_interval = 0
    tqdm.set_lock(RLock())  # the usual one is shared with forked processes, and stays locked when its holder is killed
    draw, number = random.Random(seed), 0

    def run(command: list[str]) -> Job:
        nonlocal number
        number += 1
        return Job(command, base / f"log-{number % 8}")

    left: dict[str, tuple[dict[str, str], float]] = {}

    def alone(command: list[str], folder: Path) -> tuple[dict[str, str], float]:
        """What a job leaves that runs alone, and the seconds that it takes."""
        if str(command) not in left:
            shutil.rmtree(folder, ignore_errors=True)
            job = run(command)
            job.wait()
            if job.code:
                raise RuntimeError(f"a job fails that runs alone: {job.said()}")
            left[str(command)] = content(folder), job.seconds
        return left[str(command)]

    found = kinds(base)
    whole, seconds = {}, {}
    for name, kind in found.items():  # first the one whose second job reads what the first has just written
        first, second = alone(kind.first, kind.out), alone(kind.second, kind.second_out)
        whole[name], seconds[name] = [first[0], second[0]], first[1]
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in found}
    killed, slowest, wrong = 0, 0.0, 0
    with tqdm(total=pairs, desc="pairs of jobs", unit="pair") as bar:
        for trial in range(pairs):
            name = list(found)[trial % len(found)]
            kind = found[name]
            kind.clear()
            dies = draw.random() < share_killed
            offset, death = draw.uniform(0, 1.3 * seconds[name]), draw.uniform(0, seconds[name])
            jobs = [run(kind.first)]
            start = jobs[0].started
            for moment, event in sorted([(offset, "second"), *([(death, "kill")] if dies else [])]):
                time.sleep(max(0.0, start + moment - time.monotonic()))
                jobs[0].wait(start + moment)
                if event == "kill":
                    jobs[0].kill()
                else:
                    jobs.append(run(kind.second))
            for job in jobs:
                job.wait()
            killed += jobs[0].code == -signal.SIGKILL
            slowest = max([slowest, *(job.seconds for job in jobs if job.code == 2 and BUSY.search(job.said()))])
            try:
                outcomes[name][check(kind, jobs, whole[name], run)] += 1
            except Wrong as error:
                wrong += 1
                bar.write(f"{name}, pair {trial}: {error}", file=sys.stderr)
            bar.update()
    return {
        "pairs": pairs,
        "seed": seed,
        "killed": killed,
        "outcomes": {name: dict(sorted(counts.items())) for name, counts in outcomes.items()},
        "slowest_refusal": round(slowest, 2),
        "wrong": wrong,
    }


def main() -> int:
    """Parse the command line, run the trials, and keep their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200, help="pairs of jobs, of each kind as many")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--out", type=Path, default=Path("results/trust/pairs.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = trials(Path(folder), options.pairs, options.seed)
    keep(found, options.out)
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
