"""Two jobs never write into one folder, however they begin and end."""

import errno
import os
import re
import signal
import threading
import time
import traceback

import pytest

from voxuda.data import files
from voxuda.data.files import LOCK, check_new_folder, locked, new_folder, write_atomically
from voxuda.errors import InputError


def fork(action):
    """Call ``action`` in a forked process, whose exit code is 2 where it is refused."""
    child = os.fork()
    if child == 0:
        signal.alarm(120)  # if a test fails that would end it
        code = 70
        try:
            action()
            code = 0
        except InputError:
            code = 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def hold(folder, **options):
    """Hold a folder until killed, with something half-written in it."""
    with locked(folder, **options), new_folder(folder / "new") as work:
        (work / "file").touch()
        write_atomically(lambda temporary: (temporary.touch(), signal.pause()), folder / "whole")


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_job_is_refused_at_once_until_the_first_ends_or_is_killed(tmp_path):
    out = tmp_path / "deep" / "out"
    child = fork(lambda: hold(out))
    wait_for(lambda: list(out.glob("whole.*")))
    before = sorted(out.rglob("*"))
    sentence = (
        rf"out: another job is writing here \(process {child} on \S+ since [-\d]+ [:\d]+\); wait for it, or choose another"
    )
    for begin in (locked, new_folder):
        with pytest.raises(InputError, match=sentence), begin(out):
            raise AssertionError
    assert sorted(out.rglob("*")) == before
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    with locked(out):
        assert sorted(p.name for p in out.iterdir()) == [LOCK, "new"], "debris of the killed job"
        assert f"process {os.getpid()} on" in (out / LOCK).read_text()
    with new_folder(out / "new") as work:
        (work / "file").touch()
    assert sorted(p.name for p in out.rglob("*")) == ["file", "new"]


def test_one_job_may_lock_again_and_its_threads_and_processes_are_others(tmp_path):
    refused = []

    def in_a_thread():
        with pytest.raises(InputError, match=f"process {os.getpid()} on"), locked(tmp_path):
            raise AssertionError
        refused.append(True)

    def leave():
        raise InputError  # through the lock of the process that was forked

    for _ in range(2):
        with locked(tmp_path):
            (tmp_path / "link").symlink_to(tmp_path)
            with locked(tmp_path / "link"), locked(tmp_path, "other"):
                thread = threading.Thread(target=in_a_thread)
                thread.start()
                thread.join()
                assert ended(fork(lambda: locked(tmp_path).__enter__())) == 2
            assert (tmp_path / LOCK).exists() and not (tmp_path / "other").exists()
            (tmp_path / "link").unlink()
        assert not list(tmp_path.iterdir())
    assert refused == [True, True]
    try:
        with locked(tmp_path):
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                leave()
            assert ended(child) == 0
            assert (tmp_path / LOCK).exists(), "the forked process has removed the lock of its parent"
    except InputError:
        if os.getpid() == parent:
            raise
        os._exit(0)


def test_nobody_holds_what_another_holds_while_the_folder_comes_and_goes(tmp_path, monkeypatch):
    """Each of three processes takes the lock again and again; each time the folder and the lock's file are new."""
    slept = os.path.samestat
    monkeypatch.setattr("os.path.samestat", lambda *both: slept(*both) and not time.sleep(0.001))  # just before the file goes
    out, inside = tmp_path / "out", tmp_path / "inside"

    def take(until):
        while time.monotonic() < until:
            try:
                with locked(out):
                    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                    time.sleep(0)
                    inside.unlink()
                    with open(tmp_path / "taken", "a") as file:
                        file.write(".")
            except InputError as error:
                assert "another job is writing here" in str(error), error

    until = time.monotonic() + 1.5
    children = [fork(lambda: take(until)) for _ in range(3)]
    assert [ended(child) for child in children] == [0, 0, 0]
    assert len((tmp_path / "taken").read_text()) > 50 and not list(out.glob("*"))


def test_a_folder_that_cannot_be_locked_is_one_sentence(tmp_path, monkeypatch):
    def refuse(number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        return flock

    for number in (errno.ENOLCK, errno.ENOSYS):
        monkeypatch.setattr("fcntl.flock", refuse(number))
        sentence = re.escape(f"out: cannot be locked against other jobs ({os.strerror(number)}); choose a folder on another")
        with pytest.raises(InputError, match=sentence), locked(tmp_path / "out"):
            raise AssertionError
    monkeypatch.setattr("fcntl.flock", refuse(errno.EROFS))
    with (
        pytest.raises(InputError, match=r"out: cannot be written \(Read-only file system\); choose a writable"),
        new_folder(tmp_path / "out"),
    ):
        raise AssertionError
    monkeypatch.setattr("os.access", lambda *_: False)  # whoever runs the tests may be allowed everything
    with pytest.raises(InputError, match=r"out: .* cannot be written; choose a writable folder"), locked(tmp_path / "out"):
        raise AssertionError
    monkeypatch.undo()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(InputError, match=r"file is a file; give a folder for the output"), locked(path):
            raise AssertionError


def test_debris_is_removed_but_not_the_mark_of_a_folder_that_is_half_renamed(tmp_path):
    others = ["a.mrc.part", "a.mrc.progress"]  # of an unfinished tomogram, which goes on
    (tmp_path / ".part" / "00112233").mkdir(parents=True)
    (tmp_path / "log.jsonl.voxuda-8899aabb.part").touch()
    check_new_folder(tmp_path)
    for name in others:
        (tmp_path / name).touch()
    with locked(tmp_path):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [".part", *others]
    for name in others:
        (tmp_path / name).unlink()
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "file"

    def outer(temporary):
        temporary.write_text("outer ")
        write_atomically(lambda other: other.write_text("inner"), path)
        assert path.read_text() == "inner"
        with open(temporary, "a") as file:
            file.write("whole")

    write_atomically(outer, path)
    assert path.read_text() == "outer whole" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_needs_no_room_for_the_name_of_the_job(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.Path, "write_text", full)
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == ""
        assert ended(fork(lambda: locked(tmp_path).__enter__())) == 2
    assert not list(tmp_path.iterdir())
