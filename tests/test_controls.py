"""Controls on the real digits: without contrast nothing retrieves, without masking nothing generates."""

import dataclasses
from pathlib import Path

import pytest

from mm import recipes, workdir
from mm.evals.any_to_any import AnyToAny
from mm.evals.retrieval import Retrieval
from mm.train import Trainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def figures(folder: Path, cache: Path, weight: float = 0.3, masked: float = 1.0) -> dict:
    """Words said of images, and the lower of both directions of retrieval, after a short training."""
    (exp,) = recipes.read("configs/quickstart.py:smoke").values()
    image, _, word = next(e.kinds for e in exp.evals if isinstance(e, AnyToAny))
    contrast = dataclasses.replace(exp.task.contrast, weight=weight)
    exp = dataclasses.replace(
        exp,
        task=dataclasses.replace(exp.task, contrast=contrast, masked=masked),
        evals=(
            AnyToAny(kinds=(), extra=((image, word),), count=200, train_rows=400),
            Retrieval(kinds=(image, word), queries=200, gallery=400),
        ),
        steps=1000, eval_every=0, save_every=0,
    )  # fmt: skip
    workdir.claim(folder, exp)
    Trainer(exp, folder, cache).train()
    results = workdir.read_json(folder / "results.json")
    directions = ("image->text", "text->image")
    return {
        "generates": results["any_to_any"]["image->text"]["accuracy"],
        "retrieves": min(results["retrieval"][d]["map"] for d in directions),
    }


@pytest.fixture(scope="module")
def joint(tmp_path_factory, cache):
    return figures(tmp_path_factory.mktemp("joint") / "run", cache)


def test_the_joint_step_does_both(joint):
    assert joint["generates"] > 0.35 and joint["retrieves"] > 0.8, joint


def test_without_contrast_nothing_is_retrieved(tmp_path, cache, joint):
    alone = figures(tmp_path / "run", cache, weight=0.0)
    assert alone["retrieves"] < 0.3 < joint["retrieves"], alone  # chance: 0.1
    assert alone["generates"] > 0.2, alone


def test_without_masking_nothing_is_generated(tmp_path, cache, joint):
    alone = figures(tmp_path / "run", cache, masked=0.0)
    assert alone["generates"] < 0.15 < joint["generates"], alone  # chance: 0.1
    assert alone["retrieves"] > 0.8, alone
