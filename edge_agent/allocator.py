"""Lets the C library keep memory that is needed again in the next batch.

A batch of windows needs a few arrays of some hundred kB for a moment. By its defaults glibc gives
each of them back to the kernel, which then has to clear and map the pages again for the next batch:
several times the cost of computing the features.
"""

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
# Source: mallopt(3); the numbers are those of glibc's malloc.h.
LARGEST_KEPT = 4 * 1024 * 1024
MOST_KEPT = 16 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Keep up to 16 MiB of freed memory in the process; false where the C library has no say."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    done = mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
    return bool(done)


def give_back() -> None:
    """Give freed memory back to the kernel, where the C library can; takes milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
