"""Runs side by side, each in a process of its own, with one progress bar."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from voxuda.data.files import locked
from voxuda.errors import InputError

Work = Callable[[int], float | None]
"""Makes a run with a number of threads, and may return its IoU."""


def run_all(todo: dict[Path, tuple[str, Work]], *, jobs: int, epochs: int, finished: int, title: str) -> None:
    """Make runs of ``epochs`` each, ``jobs`` at a time, which share the cores, and show how many epochs have been trained.

    ``todo`` has for each folder of a run what to call it, and how to make it, a function that a new process can import;
    ``finished`` runs are there already. ``InputError`` where a run's process is killed, or another job makes one of the runs.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}; it must be at least 1.")
    threads = max(1, torch.get_num_threads() // jobs)
    before, total = finished * epochs, (finished + len(todo)) * epochs
    with ExitStack() as held:
        for folder in todo:  # with those that wait; each run's own process locks its folder, and goes on if this one is killed
            held.enter_context(locked(folder.parent, f".{folder.name}.lock"))
        bar = held.enter_context(tqdm(total=total, initial=before, unit="epoch", desc=title))
        pool = held.enter_context(in_processes(jobs))
        runs: dict[Future, Path] = {pool.submit(work, threads): folder for folder, (_, work) in todo.items()}
        waiting = set(runs)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                # What is made counts whole: a reference trains no epochs.
                bar.n = before + sum(_epochs(runs[future]) if future in waiting else epochs for future in runs)
                bar.refresh()
                for future in done:
                    if (iou := future.result()) is not None:
                        bar.write(f"{todo[runs[future]][0]}: IoU {100 * iou:.1f} %")
        except BrokenProcessPool as error:
            raise InputError(f"{title}: a run was killed, perhaps for want of memory; try again with fewer --jobs.") from error
        except BaseException:  # Ctrl-C too
            pool.shutdown(wait=False, cancel_futures=True)  # do not start the runs that wait
            raise


def _epochs(run: Path) -> int:
    """How many epochs a run has trained so far."""
    log = run / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def in_processes(jobs: int) -> Executor:
    """Worker processes for runs side by side."""
    # Spawned, since a fork of a process that has used OpenMP hangs.
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
