"""Memory that a process keeps: XLA's steps on CPU would spend a tenth of their time and more on getting it anew.

XLA allocates the arrays of a step at every step. glibc gives large blocks back to the system as soon as they are free,
and the system clears each page again when it is touched next; ordinary pages of 4 KiB cost a fault each besides.
"""

import os
import sys

# Huge pages, where the system gives them to who asks (a setting called `madvise`); one heap, that never shrinks, for
# blocks of all sizes: in glibc only the first heap can hold large ones.
TUNABLES = {"hugetlb": 1, "arena_max": 1, "mmap_max": 0, "trim_threshold": 2**60}


def start_with_own_heap() -> None:
    """Starts this very command anew with a malloc that keeps what it has.

    glibc reads its tunables once, before Python runs. The process stays the same to all others; a user's own
    GLIBC_TUNABLES is left alone. Call it before anything else is done.
    """
    if not sys.platform.startswith("linux") or "GLIBC_TUNABLES" in os.environ:
        return
    tunables = ":".join(f"glibc.malloc.{name}={value}" for name, value in TUNABLES.items())
    # Not orig_argv[0]: only by its own path does Python find its virtual environment.
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, os.environ | {"GLIBC_TUNABLES": tunables})
