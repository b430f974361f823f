"""Controls on the real digits: without contrast nothing retrieves, without masking nothing generates."""

import json
from pathlib import Path

import pytest

from tests.test_quickstart import mm_main

pytestmark = pytest.mark.slow
STEPS = 400


def results_of(folder: Path, *overrides: str) -> dict[str, float]:
    """Image and text, there and back, after a short training of the small model."""
    mm_main(
        "--config", "configs/quickstart.py:smoke", "--workdir", str(folder), f"--config.steps={STEPS}",
        "--config.eval_every=0", "--config.save_every=0", *overrides,
    )  # fmt: skip
    results = json.loads((folder / "results.json").read_text())
    found = {"generates": results["any_to_any"]["image->text"]["accuracy"]}
    directions = ("image->text", "text->image")
    found["retrieves"] = min(results["retrieval"][d]["map"] for d in directions)
    return found


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    return results_of(tmp_path_factory.mktemp("joint"))


def test_the_joint_step_does_both(joint):
    assert joint["generates"] > 0.5 and joint["retrieves"] > 0.5, joint


def test_without_contrast_nothing_is_retrieved(tmp_path, joint):
    alone = results_of(tmp_path, "--config.task.contrast.weight=0")
    assert alone["retrieves"] < 0.3 < joint["retrieves"], alone  # chance: 0.1
    assert alone["generates"] > joint["generates"] - 0.3, alone


def test_without_masking_nothing_is_generated(tmp_path, joint):
    alone = results_of(tmp_path, "--config.task.masked=0")
    assert alone["generates"] < 0.25 < joint["generates"], alone  # chance: 0.1
    assert alone["retrieves"] > joint["retrieves"] - 0.3, alone
