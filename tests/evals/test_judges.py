import dataclasses

import jax
import numpy as np
import pytest

from mm.evals.judges import Judges
from mm.evals.kinds import open_judge
from mm.models.classifier import ConvNet
from mm.tasks import judge
from mm.tasks.fronts import Pixels


def test_real_and_tokenized_accuracy_are_of_the_same_items(run, kinds):
    results = dict(Judges(kinds=tuple(kinds.values())).run(run))
    assert results["picture"]["real"] == results["picture"]["tokenized"] == 1
    assert results["wave"]["items"] == 12 and results["picture"]["items"] == 160


def test_what_a_tokenizer_loses_is_seen(run, kinds):
    tokenizer = run.data.tokenizers["picture"]
    blank = tokenizer.rows[tokenizer.known[0]]
    tokenizer.decode = lambda ids, length: [blank] * len(ids)
    result = dict(Judges(kinds=(kinds["picture"],), count=100).run(run))["picture"]
    assert result["real"] == 1 and result["tokenized"] == pytest.approx(0.25, abs=0.12)
    low, high = result["tokenized_interval"]
    assert low < result["tokenized"] < high


def test_the_lower_of_two_judges_counts_and_none_is_passed_over(run, kinds):
    two = dataclasses.replace(kinds["picture"], judge=(kinds["picture"].judge, lambda row: 0))
    unjudged = dataclasses.replace(kinds["wave"], judge=())
    results = dict(Judges(kinds=(two, unjudged)).run(run))
    assert results.keys() == {"picture"} and results["picture"]["real"] == 0.25


def test_a_judge_is_opened_from_its_artefact(run, kinds, tmp_path):
    network = ConvNet(widths=(4,), depths=(1,))
    settings = judge.Classify(
        column="picture", classes=4, front=Pixels(height=8, width=8), network=network
    )
    task = settings.build(run.data)
    path = task.export(*task.init(jax.random.key(0)), tmp_path)
    mark = judge.load(path).fingerprint
    kind = dataclasses.replace(kinds["picture"], judge=(f"{path}#{mark}", kinds["picture"].judge))
    rows = run.data.raw("test")["picture"][np.arange(30)]
    read = open_judge(kind)(rows)
    np.testing.assert_array_equal(read[0], judge.load(path).predict(rows))
    np.testing.assert_array_equal(read[1], np.arange(30) % 4)
