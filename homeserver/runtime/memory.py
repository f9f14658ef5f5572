"""Has the C library give memory back that is not needed any more.

By itself glibc learns from each large block that is freed, such as that of a password's hash, to keep blocks of that
size for the next time, and has a pool for every thread: tens of megabytes that a server holds for nothing.
"""

import ctypes
from contextlib import suppress
from typing import Final

LARGE_BYTES: Final = 1024 * 1024
"""Blocks of this size are given back when they are freed."""
POOLS_MAX: Final = 2

# The names of parameters in malloc.h.
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def give_memory_back() -> None:
    """Sets that, where the C library is glibc; elsewhere it does nothing."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_ARENA_MAX, POOLS_MAX)
