"""A real process asks for huge pages, and gets them without losing its arguments."""

import os
import subprocess
import sys

import pytest

from mm.memory import SETTING

PROGRAM = """
import re, sys
from mm.memory import start_with_huge_pages
if sys.argv[1] == "huge":
    start_with_huge_pages()
block = bytearray(256 << 20)
block[:: 4096] = bytes(len(block) // 4096)
print(sys.argv[2], re.search(r"AnonHugePages: *([0-9]+)", open("/proc/self/smaps_rollup").read())[1])
"""


@pytest.mark.skipif(
    not SETTING.exists() or "[madvise]" not in SETTING.read_text(),
    reason="the system gives no huge pages to who asks",
)
def test_a_process_started_anew_has_huge_pages_and_its_arguments():
    found = {}
    for how in ("huge", "plain"):
        command = [sys.executable, "-c", PROGRAM, how, "an argument"]
        env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("an argument ")
        found[how] = int(done.stdout.split()[-1])  # KiB
    assert found["huge"] > 200 << 10 > found["plain"], found
