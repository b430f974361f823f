"""A real process gets its memory from the system once, without losing its arguments."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from mm.memory import start_with_own_heap
if sys.argv[1] == "own":
    start_with_own_heap()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(b"1") * (256 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(sys.argv[2], faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these tunables")
def test_a_process_started_anew_keeps_its_memory_and_its_arguments():
    found = {}
    for how in ("own", "plain"):
        command = [sys.executable, "-c", PROGRAM, how, "an argument"]
        env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("an argument ")
        found[how] = int(done.stdout.split()[-1])
    assert found["own"] < 10 < 1000 < found["plain"], found
