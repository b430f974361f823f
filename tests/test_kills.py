"""Runs that are killed, and runs whose disk is full. Real processes, real signals."""

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mm import checkpoint
from mm.main import main

KILLS, STEPS = 25, 1500


def command(folder: Path, *extra: str) -> list[str]:
    run = ["--config", "tests/toy_config.py", f"--config.steps={STEPS}", "--config.save_every=3"]
    return [
        *run,
        "--config.eval_every=0",
        "--config.task.outputs=64",
        f"--workdir={folder}",
        *extra,
    ]


def warm(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.warm", *command(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def go(process: subprocess.Popen) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def newest_state(folder: Path) -> list[np.ndarray]:
    """The arrays of the newest checkpoint, verified."""
    kept = checkpoint.Checkpoints(folder / "checkpoints")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), kept.shapes(kept.latest())
    )
    state = kept.restore_part(kept.latest(), shapes)
    kept.close()
    return jax.tree.leaves(jax.device_get(state))


@pytest.mark.slow
def test_killed_25_times_it_ends_at_the_same_bits(tmp_path):
    """Every start finds a whole checkpoint, not older than the one before, and goes on from it."""
    whole, folder, rng = tmp_path / "whole", tmp_path / "run", random.Random(0)
    assert main(["mm", *command(whole)]) == 0
    reached, kills, process = 0, 0, warm(folder)
    while True:
        before = size(folder / "metrics.jsonl")
        go(process)
        following = warm(folder)  # imports while the other one works
        while process.poll() is None and size(folder / "metrics.jsonl") == before:
            time.sleep(0.005)
        if kills < KILLS:
            time.sleep(rng.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            kills += 1
        said = process.communicate()[0]
        assert "damaged" not in said and "Traceback" not in said, said
        found = [line for line in said.splitlines() if line.startswith("continues after step ")]
        now = int(found[0].split()[-1]) if found else 0
        assert now >= reached, "what was complete once is complete"
        reached = now
        process, done = following, process.returncode == 0
        if done:
            break
    process.kill()
    process.communicate()
    assert kills == KILLS and reached > 0
    for a, b in zip(newest_state(folder), newest_state(whole), strict=True):
        assert np.array_equal(a, b)
    values = [
        {v["step"]: v["loss"] for line in (f / "metrics.jsonl").read_text().splitlines() if "loss" in (v := json.loads(line))}
        for f in (folder, whole)
    ]  # fmt: skip
    assert values[0] == values[1], "and so do the curves"


LIMIT = 200_000  # bytes; a checkpoint of the run below is larger


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    """The size of files is limited, as a disk's end limits them."""
    run = [sys.executable, "-m", "mm.main", "--config", "tests/toy_config.py"]
    run += [f"--workdir={tmp_path / 'run'}", "--config.task.outputs=60000"]
    run += ["--config.evals[0].signal_at=20", "--config.steps=80"]
    first = subprocess.run(run, capture_output=True, text=True)
    assert first.returncode == 0 and "saved step 20" in first.stdout, first.stderr

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))

    full = subprocess.run(run, capture_output=True, text=True, preexec_fn=limited)
    assert full.returncode == 2, full.stderr
    (line,) = [x for x in full.stderr.splitlines() if x.startswith("mm: ")]
    assert "a checkpoint could not be written" in line and "step 20 stands; make room" in line
    again = subprocess.run(run, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "continues after step 20" in again.stdout and "results:" in again.stdout
