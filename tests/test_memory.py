"""Freed memory is kept: a real process allocates twice, and its page faults are counted."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import numpy as np
from mm.memory import keep_freed
if {keep}:
    assert keep_freed()
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_the_second_allocation_costs_no_page_faults():
    faults = {}
    for keep in (False, True):
        command = [sys.executable, "-c", COUNT.format(keep=keep)]
        faults[keep] = int(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout
        )
    assert faults[True] < 100 < faults[False]
