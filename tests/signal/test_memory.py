import subprocess
import sys

import pytest

from voxuda.signal import memory

PROGRAM = """
import resource
import numpy as np
from voxuda.signal import memory

def use():
    large = np.ones(2**24, np.float32)
    half = large[::2] * 2

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

use()
first = new_pages(), resident()
with memory.kept():
    with memory.kept():
        use()
    within = new_pages(), resident()
after = new_pages(), resident()
print(*first, *within, *after)
"""
"""An array of 64 MiB and one of 32, used again and again; in a process of its own, since pytest's has used memory before."""


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_arrays_come_without_new_pages_and_go_back_in_the_end():
    made = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    pages, resident, kept_pages, kept_resident, later_pages, later_resident = map(int, made.stdout.split())
    assert min(pages, later_pages) > 2 * kept_pages + 20, "each use has to ask for new pages but within"
    assert kept_resident - resident > 90 * 2**20, "both arrays stay"
    assert later_resident - resident < 10 * 2**20, "and go back"


@pytest.mark.parametrize("platform", ["win32", "darwin", "linux"])
def test_without_such_a_library_nothing_happens(monkeypatch, platform):
    monkeypatch.setattr(memory.sys, "platform", platform)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    with memory.kept():
        pass


def test_an_error_comes_through():
    with pytest.raises(ZeroDivisionError), memory.kept():
        1 / 0  # noqa: B018
