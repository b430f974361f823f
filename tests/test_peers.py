"""The comparison with the original 4M: both sides get full budgets, and a wrong path is one line."""

import subprocess
import sys

import numpy as np

from benchmarks.peers import case


def test_the_batch_fills_both_budgets():
    made = case.batch(rows=4)
    seen = np.sum([(~d["input_mask"]).sum(1) for d in made.values()], axis=0)
    asked = np.sum([(~d["target_mask"]).sum(1) - (n == "caption") for n, d in made.items()], axis=0)
    assert seen.tolist() == [case.SEEN] * 4 and asked.tolist() == [case.ASKED] * 4
    assert not (~made["tok_rgb@224"]["input_mask"] & ~made["tok_rgb@224"]["target_mask"]).any()


def test_a_path_without_the_original_is_one_line(tmp_path):
    command = [sys.executable, "-m", "benchmarks.peers", "--checkout", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no checkout of apple/ml-4m" in done.stderr
    assert done.stderr.count("\n") == 1
