"""Huge pages for the process: on Linux a CPU training step spends a tenth of its time on ordinary ones.

XLA allocates the arrays of a step anew each time, and each page of 4 KiB costs a fault when it is first touched.
"""

import os
import sys
from pathlib import Path

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb=1"


def start_with_huge_pages() -> None:
    """Starts this very command anew with malloc asking for huge pages, where the system gives them to who asks.

    glibc reads its tunables once, before Python runs. The process stays the same to all others; a user's own
    GLIBC_TUNABLES is left alone. Call it before anything else is done.
    """
    if not sys.platform.startswith("linux") or "GLIBC_TUNABLES" in os.environ:
        return
    if SETTING.exists() and "[madvise]" in SETTING.read_text():
        # Not orig_argv[0]: only by its own path does Python find its virtual environment.
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, os.environ | {"GLIBC_TUNABLES": TUNABLE})
