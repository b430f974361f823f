"""Memory of the process on Linux: what is freed stays, in huge pages.

On CPU, XLA allocates the arrays of a step anew each time. glibc gives such large blocks back to the system at once,
and the next step pays for every page again: up to a tenth of a small step.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # glibc's malloc.h
MADV_HUGEPAGE = 14
HUGE = 1 << 21


def keep_freed(reserve: int = 1 << 30) -> bool:
    """Makes malloc reuse memory rather than return it, and asks for huge pages in its first `reserve` bytes.

    Only address space is reserved; resident memory grows as it is used. False where the C library is another one:
    nothing is changed then.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "gnu_get_libc_version"):
        return False
    done = [
        libc.mallopt(k, v) for k, v in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (ARENA_MAX, 1))
    ]
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = libc.malloc(reserve)
    if block:
        start = -(-block // HUGE) * HUGE
        libc.madvise(start, (reserve - HUGE) // HUGE * HUGE, MADV_HUGEPAGE)
        libc.free(block)
    return all(done)
