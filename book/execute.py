"""Execute the notebooks with papermill, two at a time; one runs again only when something that it hangs on changed."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path

import check
import exercises
import nbformat
import papermill
import psutil
from fingerprint import fingerprint

JOBS = 2
"""Notebooks that run side by side, each with one thread, so that they do not fight over a small machine."""

LONGEST = ("C_", "09", "13", "B_")
"""Chapters to begin with, so that none of them is left alone at the end."""

LOOPS = 300
"""What a notebook may take at scale smoke, as a multiple of the calibration loop; of memory it may take what its first cell
says. More is reported, not refused, for a machine that is busy with other things is slow."""


def calibration() -> float:
    """Seconds that one thread takes for a fixed piece of work, the best of three: one small network, there and back."""
    import torch

    from voxuda.networks.voxresnet import VoxResNet

    torch.set_num_threads(1)
    network, volumes = VoxResNet(8), torch.randn(8, 1, 32, 32, 32)

    def loop() -> float:
        start = time.perf_counter()
        network(volumes).square().mean().backward()
        return time.perf_counter() - start

    return min(loop() for _ in range(4))  # the first warms up


def execute_all(notebooks: list[Path], folder: Path, parameters: dict) -> None:
    """Bring each notebook's copy in ``folder`` up to date: with outputs, and with the time and memory that they took.

    Raises
    ------
    papermill.PapermillExecutionError
        A cell fails; notebooks that no worker has been given yet do not run.
    """
    stale = []
    for notebook in sorted(notebooks, key=lambda path: not path.name.startswith(LONGEST)):
        key, wanted = (folder / notebook.name).with_suffix(".key"), fingerprint(notebook, parameters)
        if not ((folder / notebook.name).exists() and key.exists() and key.read_text() == wanted):
            stale.append((notebook, folder / notebook.name, parameters, wanted))
    print(f"{len(notebooks) - len(stale)} notebooks are unchanged, {len(stale)} to run", flush=True)
    if not stale:
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # which the kernels inherit
    pace = calibration()
    with ProcessPoolExecutor(JOBS) as pool:
        runs = [pool.submit(execute, *notebook, pace) for notebook in stale]
        try:
            for run in as_completed(runs):
                print(run.result(), flush=True)
        except BaseException:
            for run in runs:  # not by shutdown(cancel_futures=True), which leaving the pool takes back
                run.cancel()
            raise


def execute(notebook: Path, out: Path, parameters: dict, wanted: str, pace: float) -> str:
    """Run one notebook, and say what it took, also as a multiple of ``pace`` seconds.

    On the way each exercise's stub is proved to fail its check. It runs in an empty folder, which proves that it needs no file
    of where it is run.
    """
    key, proved = out.with_suffix(".key"), out.with_suffix(".proved.ipynb")
    key.unlink(missing_ok=True)
    nbformat.write(exercises.with_proofs(nbformat.read(notebook, as_version=4)), proved)
    with peak_memory() as peak, tempfile.TemporaryDirectory() as empty:
        papermill.execute_notebook(
            proved, out, parameters,
            cwd=empty, kernel_name="python3", progress_bar=False, execution_timeout=7200,
            extra_arguments=["--log-level=ERROR"],  # the kernel warns that it is reached over TCP, which is local
        )  # fmt: skip
    proved.unlink()
    content = exercises.without_proofs(nbformat.read(out, as_version=4))
    seconds, memory = content.metadata.papermill.duration, peak[0] / 1e9
    loops = seconds / pace
    took = f"{seconds:.0f} s, {loops:.0f} times the calibration loop, {memory:.1f} GB of memory, 1 of {os.cpu_count()} cores"
    content.metadata["voxuda_cost"] = took
    nbformat.write(content, out)
    key.write_text(wanted)
    says = re.search(check.NEEDS, content.cells[0].source)
    if parameters["scale"] == "smoke" and says and (loops > LOOPS or memory > float(says[1])):
        took += f"\n    over its budget of {LOOPS} loops and the {says[1]} GB it says it needs"
    return f"{notebook.name}: {took}"


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """A list whose one number is, at the end, the most memory that this process's children held at once, in bytes."""
    peak, finished = [0], threading.Event()

    def watch() -> None:
        while not finished.wait(0.2):
            held = 0
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it may just have ended
                    if child.cmdline() != child.parent().cmdline():  # else about to run another program: its parent's memory
                        held += child.memory_info().rss
            peak[0] = max(peak[0], held)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        finished.set()
        thread.join()
