"""What contrast costs, measured: the two networks' steps in alternation, in one process."""

import json
import os
import subprocess
import sys

import pytest
from etils.epath import Path

from mm.perf import tokenizers
from tests import tokens_config
from tests.tokens import unpacked

# Of the time of a masked-only step: at the quickstart's own size, and where the first K layers are few of many.
LIMITS = (1.20, 1.10)


@pytest.mark.perf
def test_the_joint_step_costs_little_more_than_masked_generation():
    command = [sys.executable, "-m", "mm.perf", "joint", "--pairs", "6", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["joint"].values()
    for figures, limit in zip(found, LIMITS, strict=True):
        # The fastest quarter: the median wanders with what runs beside this, up and never down.
        assert figures["ratio"] > 1.0 and figures["quartiles"][0] <= limit, found


def test_an_override_that_does_not_exist_is_one_line():
    command = [sys.executable, "-m", "mm.perf", "joint", "--config.task.model.widht=64"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "width" in done.stderr and done.stderr.count("\n") == 1


def test_the_parts_of_a_step_are_measured():
    """Of the toy, and that they add up."""
    command = [sys.executable, "-m", "mm.perf", "step", "--pairs", "4", "--json"]
    command += ["--config", "tests/toy_config.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["step"]
    ms = found["ms"]
    assert ms["forward"] + ms["backward"] + ms["optimizer"] == pytest.approx(ms["step"])
    assert min(ms[k] for k in ("dispatch", "host input", "metrics", "checkpoint stall")) > 0
    assert found["compile_seconds"] > 0 and found["examples_per_second"] > 0


def test_tokenizers_are_measured_both_ways(tmp_path):
    exp = tokens_config.get_config(str(unpacked(tmp_path)))
    found = tokenizers.measure(exp, 2, Path(tmp_path))
    assert found.keys() == {"picture", "tone", "word"} and "of_peak" not in found["word"]["encode"]
    for part in ("encode", "decode"):
        assert found["word"][part]["rows_per_second"] > 0
        figures = found["picture"][part]
        assert figures["tokens_per_second"] >= figures["rows_per_second"] > 0
        assert figures["compile_seconds"] > 0 and figures["temporaries_mib"] > 0
        assert 0 < figures["of_peak"] < 1


@pytest.mark.slow
def test_pipeline_and_reader_are_measured_beside_tokenizer_and_step(tmp_path):
    run = unpacked(tmp_path)
    command = [sys.executable, "-m", "mm.perf", "pipeline", "--pairs", "2", "--json"]
    command += ["--config", f"tests/tokens_config.py:{run}", f"--workdir={tmp_path}"]
    env = os.environ | {
        "XLA_FLAGS": "--xla_backend_optimization_level=0"
    }  # it compiles more than it computes
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found = json.loads(done.stdout)["pipeline"]
    assert found["modalities"].keys() == {"picture", "tone", "word"}
    for figures in found["modalities"].values():
        assert figures["pipeline_ms"] > 0 and figures["ratio"] > 0
    reading = found["reading"]
    assert (
        reading["ratio"] == pytest.approx(reading["reader"] / reading["training"])
        and reading["ratio"] > 0
    )
