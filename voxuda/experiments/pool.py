"""Make runs in parallel, each in its own process, with one progress bar."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread

import torch
from tqdm import tqdm

from voxuda.data.files import locked
from voxuda.errors import InputError

Work = Callable[[int], float | None]
"""Function that makes a run with a given number of threads, and may return its IoU."""


def run_all(todo: dict[Path, tuple[str, Work]], *, jobs: int, epochs: int, finished: int, title: str) -> None:
    """Make runs of ``epochs`` each, ``jobs`` at a time on shared cores, and show how many epochs have been trained.

    ``todo`` has, by folder, the label of each run and the function that makes it, which a new process can import; ``finished``
    is the number of runs already done. ``InputError`` if a run's process is killed, or another job makes one of the runs.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}; it must be at least 1.")
    threads = max(1, torch.get_num_threads() // jobs)
    before, total = finished * epochs, (finished + len(todo)) * epochs
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = len(todo) + 200  # a file for each lock; 1,000 runs are more than some systems allow at first
    if hard != resource.RLIM_INFINITY and hard < many:
        raise InputError(
            f"{len(todo)} runs need {many} open files, this system allows {hard}; make fewer with --only or --seeds."
        )
    if soft != resource.RLIM_INFINITY and soft < many:
        resource.setrlimit(resource.RLIMIT_NOFILE, (many, hard))
    with ExitStack() as held:
        for folder in todo:  # queued ones too; each run's process locks its own folder, and continues if this one is killed
            held.enter_context(locked(folder.parent, f".{folder.name}.lock"))
        bar = held.enter_context(tqdm(total=total, initial=before, unit="epoch", desc=title))
        pool = held.enter_context(in_processes(jobs))
        runs: dict[Future, Path] = {pool.submit(work, threads): folder for folder, (_, work) in todo.items()}
        waiting = set(runs)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                # A finished run counts in full, since a reference trains no epochs.
                bar.n = before + sum(_epochs(runs[future]) if future in waiting else epochs for future in runs)
                bar.refresh()
                for future in done:
                    if (iou := future.result()) is not None:
                        bar.write(f"{todo[runs[future]][0]}: IoU {100 * iou:.1f} %")
        except BrokenProcessPool as error:
            raise InputError(f"{title}: a run was killed, perhaps for lack of memory; try again with fewer --jobs.") from error
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)  # do not start the queued runs
            if isinstance(error, InputError) and waiting:
                bar.write(f"{error}\nthe other runs that have begun are finished first; Ctrl-C stops them.")
            if isinstance(error, KeyboardInterrupt):  # a signal to this process alone does not reach the others
                for process in active_children():
                    process.terminate()
            raise


def _epochs(run: Path) -> int:
    """Count the epochs that a run has trained so far."""
    log = run / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def in_processes(jobs: int) -> Executor:
    """Return a pool of worker processes for parallel runs."""
    # Spawned, since a fork of a process that has used OpenMP hangs.
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Let this worker end as soon as the process that started it is killed; its run continues from the last epoch."""
    Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
