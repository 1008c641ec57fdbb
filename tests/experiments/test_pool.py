import inspect
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from voxuda.errors import InputError
from voxuda.experiments import pool


def make(folder, ends, threads):
    """Stand in for a run of two epochs: log them, then end well, be killed, or be stopped."""
    folder.mkdir()
    (folder / "log.jsonl").write_text("{}\n{}\n")
    if ends == "killed":
        os._exit(1)
    if ends == "waits":
        (folder / "process").write_text(str(os.getpid()))
        time.sleep(600)
    if ends == "stopped":
        raise KeyboardInterrupt
    return 0.25


def start(tmp_path, ends, **options):
    todo = {tmp_path / name: (name, partial(make, tmp_path / name, how)) for name, how in ends.items()}
    pool.run_all(todo, epochs=2, title="table", **options)


class Here:
    """A pool that works in this process when a result is asked for."""

    def __init__(self, jobs):
        self.cancelled = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def submit(self, work, threads):
        from concurrent.futures import Future

        future = Future()
        try:
            future.set_result(work(threads))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait, cancel_futures):
        pool.asked = (wait, cancel_futures)


def test_the_bar_counts_epochs_and_the_iou_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool, "in_processes", Here)
    start(tmp_path, {"one": "well", "two": "well"}, jobs=2, finished=1)
    shown = capsys.readouterr()
    assert "table: 100%" in shown.err and "6/6" in shown.err
    assert "one: IoU 25.0 %" in shown.out + shown.err and "two: IoU 25.0 %" in shown.out + shown.err


def test_what_waits_is_not_started_after_ctrl_c(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "in_processes", Here)
    monkeypatch.setattr(pool, "asked", None, raising=False)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, {"one": "stopped"}, jobs=1, finished=0)
    assert pool.asked == (False, True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    said = "import pathlib, signal, sys, test_pool; signal.signal(signal.SIGINT, signal.default_int_handler); "
    said += "test_pool.start(pathlib.Path(sys.argv[1]), {'one': 'waits'}, jobs=1, finished=0)"
    file = tmp_path / "one" / "process"
    with subprocess.Popen(
        [sys.executable, "-c", said, tmp_path], cwd=Path(__file__).parent, stderr=subprocess.DEVNULL
    ) as parent:
        try:
            wait_until(lambda: file.exists() and file.read_text(), 120)
            parent.send_signal(how)
            parent.wait(60)
        finally:
            parent.kill()
    wait_until(lambda: not alive(file.read_text()), 60)


def alive(process):
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        os.kill(int(process), 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it ended just now, or the system has no /proc
        return not Path("/proc/self").exists()
    return state != "Z"


def wait_until(true, seconds):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_waits_is_held_too_and_other_runs_are_not(tmp_path, monkeypatch, hold):
    monkeypatch.setattr(pool, "in_processes", Here)
    with hold(tmp_path, ".two.lock") as said:
        with pytest.raises(InputError) as refused:
            start(tmp_path, {"one": "well", "two": "well"}, jobs=1, finished=0)
        assert said in str(refused.value) and [p.name for p in tmp_path.iterdir()] == [".two.lock"]
        start(tmp_path, {"one": "well", "three": "well"}, jobs=1, finished=0)
    start(tmp_path, {"two": "well"}, jobs=1, finished=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "three", "two"]


def test_a_killed_process_is_told_of(tmp_path):
    before = time.monotonic()
    with pytest.raises(InputError, match="table: a run was killed, perhaps for lack of memory; try again with fewer --jobs"):
        start(tmp_path, {"one": "killed", "two": "well"}, jobs=1, finished=0)
    assert time.monotonic() - before < 300 and not (tmp_path / "two").exists()


def test_more_runs_than_open_files(tmp_path):
    code = f"""
import resource
from pathlib import Path
from voxuda.experiments import pool
{inspect.getsource(Here)}
pool.in_processes = Here
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
runs = {{Path({str(tmp_path)!r}) / str(n): ("run", lambda threads: None) for n in range(100)}}
pool.run_all(runs, jobs=1, epochs=1, finished=0, title="table")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    fixed = subprocess.run([sys.executable, "-c", code.replace("resource.getrlimit(resource.RLIMIT_NOFILE)[1]", "64")],
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert "100 runs need 300 open files, this system allows 64; make fewer" in fixed.stderr
