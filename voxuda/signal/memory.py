"""Memory that stays with the process until it is used again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3): how much may lie free, and from what size on an array has pages of its own."""

_LARGEST = 32 * 2**20
"""Bytes that glibc takes for the second by itself once arrays so large were freed; for the first it takes twice as many."""

_within = 0


@contextmanager
def kept() -> Iterator[None]:
    """Within, memory that is freed stays with the process; afterwards what is free by then goes back to the system.

    Arrays of many megabytes go back after each use otherwise, and the system clears every page before it gives it again.
    Training asks for the same arrays at every step, simulation for every few samples. The setting holds for the whole process,
    and until the outermost of nested uses ends. It is glibc's, of Linux; elsewhere nothing changes.
    """
    global _within
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_TRIM_THRESHOLD, -1)
    libc.mallopt(_MMAP_THRESHOLD, 2**30)
    _within += 1
    try:
        yield
    finally:
        _within -= 1
        if _within == 0:
            _give_back(libc)


def _give_back(libc: Any) -> None:
    libc.mallopt(_MMAP_THRESHOLD, _LARGEST)
    libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST)
    libc.malloc_trim(0)
