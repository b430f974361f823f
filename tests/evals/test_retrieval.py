import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mm.errors import UserError
from mm.evals.retrieval import Retrieval, chance, retrieval_metrics


def slow_metrics(query, gallery, query_group, gallery_group, ks):
    average, recall = [], {k: [] for k in ks}
    for q, g in zip(query, query_group, strict=True):
        scored = [(-float(q @ x), int(h == g)) for x, h in zip(gallery, gallery_group, strict=True)]
        ranked = [relevant for _, relevant in sorted(scored)]  # ties: the irrelevant (0) first
        if sum(ranked):
            hits = [sum(ranked[: i + 1]) / (i + 1) for i, r in enumerate(ranked) if r]
            average.append(sum(hits) / len(hits))
            for k in ks:
                recall[k].append(any(ranked[:k]))
    return np.mean(average), {k: np.mean(r) for k, r in recall.items()}, len(average)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 12), st.integers(1, 4))
def test_metrics_equal_a_slow_reference_ties_included(seed, q, g, groups):
    rng = np.random.default_rng(seed)
    query, gallery = rng.integers(-1, 2, (q, 3)), rng.integers(-1, 2, (g, 3))
    query_group, gallery_group = rng.integers(0, groups, q), rng.integers(0, groups, g)
    if not set(query_group) & set(gallery_group):
        return
    found = retrieval_metrics(query, gallery, query_group, gallery_group, ks=(1, 2, 5))
    average, recall, asked = slow_metrics(query, gallery, query_group, gallery_group, (1, 2, 5))
    assert found["map"] == pytest.approx(average) and found["queries"] == asked
    assert {k: found[f"r{k}"] for k in recall} == pytest.approx(recall)


def test_average_precision_equals_scikit_learn():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(300, 5)), rng.normal(size=(80, 5))
    groups = rng.integers(0, 4, 300), rng.integers(0, 4, 80)
    found = retrieval_metrics(query, gallery, *groups)
    slow = [
        average_precision_score(groups[1] == g, gallery @ q)
        for q, g in zip(query, groups[0], strict=True)
    ]
    assert found["map"] == pytest.approx(np.mean(slow))
    assert found["interval"][0] < found["map"] < found["interval"][1]


@pytest.mark.parametrize(("size", "relevant"), [(5, 1), (5, 2), (5, 5), (4, 3)])
def test_chance_is_the_mean_over_all_rankings(size, relevant):
    groups = np.zeros(size, int)
    groups[relevant:] = 1
    rankings = [
        slow_metrics(np.ones((1, 1)), -np.array(order)[:, None], [0], groups, (1, 3))
        for order in itertools.permutations(range(size))
    ]
    expected = chance(np.array([relevant]), size, (1, 3))
    assert expected["map"] == pytest.approx(np.mean([r[0] for r in rankings]))
    assert expected["r1"] == pytest.approx(np.mean([r[1][1] for r in rankings]))
    assert expected["r3"] == pytest.approx(np.mean([r[1][3] for r in rankings]))


def test_a_constant_embedding_gains_nothing():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 10, 50), rng.integers(0, 10, 200)
    found = retrieval_metrics(np.ones((50, 2)), np.ones((200, 2)), *groups)
    assert found["map"] < found["chance"]["map"] and found["r10"] == 0


def test_queries_without_an_answer_are_left_out():
    found = retrieval_metrics(np.eye(2), np.eye(2), np.array([0, 5]), np.array([0, 1]))
    assert found["queries"] == 1 and found["map"] == 1
    assert retrieval_metrics(np.eye(2), np.eye(2), np.array([8, 9]), np.arange(2)) == {
        "queries": 0,
        "gallery": 2,
    }


def test_a_perfect_embedding_retrieves_in_all_directions_and_by_pairs(run, kinds):
    evaluator = Retrieval(kinds=tuple(kinds.values()), queries=50)
    evaluator.validate()
    results = dict(evaluator.run(run))
    names = ("picture", "wave", "text", "caption")
    single = [f"{a}->{b}" for a, b in itertools.permutations(names, 2)]
    single = [d for d in single if d not in ("text->caption", "caption->text")]
    fused = [
        "picture+wave->text", "picture+wave->caption", "picture+text->wave",
        "picture+caption->wave", "wave+text->picture", "wave+caption->picture",
    ]  # fmt: skip
    assert list(results) == single + fused
    for cell in results.values():
        assert cell["map"] == pytest.approx(1) and cell["r1"] == 1
    json.dumps(results, allow_nan=False)


def test_galleries_and_queries_are_distinct_items(run, kinds):
    results = dict(Retrieval(kinds=tuple(kinds.values()), queries=50, gallery=100).run(run))
    sizes = {name: (r["queries"], r["gallery"]) for name, r in results.items()}
    assert sizes["picture->wave"] == (50, 12)
    assert sizes["wave->picture"] == (12, 100)
    assert sizes["picture->text"] == (50, 4)  # words
    assert sizes["text->picture"] == (4, 100)
    assert sizes["caption->wave"] == (8, 12)
    assert sizes["wave+text->picture"] == (12, 100)  # as many as recordings: each has one word


def test_a_blurred_embedding_lies_between_chance_and_perfect(run, kinds):
    run.params["blur"] = 0.6
    cell = dict(Retrieval(kinds=tuple(kinds.values()), fused=False).run(run))["picture->wave"]
    assert cell["chance"]["map"] + 0.1 < cell["map"] < 0.95


def test_neighbours_right_and_wrong_and_embeddings_are_kept(run, kinds):
    run.params["blur"] = 0.6
    kept = dict(Retrieval(kinds=tuple(kinds.values())).run(run))
    folder = run.folder / "evals" / "retrieval"
    rows = json.loads((folder / "neighbours.json").read_text())["rows"]
    assert {row["direction"] for row in rows} == kept.keys()
    one = [row for row in rows if row["direction"] == "picture->wave"]
    assert [row["right"] for row in one] == [True] * 3 + [False] * 3
    for row in rows:
        assert row["right"] == (row["groups"][0] == row["group"])
        assert len(row["found"]) == len(row["groups"]) <= 5
        assert all((folder / f).is_file() for f in (*row["query"], *row["found"]))
        assert len(row["query"]) == 1 + row["direction"].count("+")
    with np.load(folder / "embeddings.npz", allow_pickle=False) as arrays:
        assert arrays["z/picture"].shape == (160, 4) and arrays["z/picture"].dtype == np.float16
        nearest = (arrays["z/wave"].astype(float) @ arrays["z/picture"].T.astype(float)).argmax(1)
        right = arrays["group/picture"][nearest] == arrays["group/wave"]
    assert right.mean() == pytest.approx(kept["wave->picture"]["r1"], abs=0.2)


def test_impossible_settings_are_refused(kinds):
    with pytest.raises(UserError, match="queries=0"):
        Retrieval(kinds=tuple(kinds.values()), queries=0).validate()
    twice = Retrieval(kinds=(kinds["text"], dataclasses.replace(kinds["text"], rows="caption")))
    with pytest.raises(UserError, match="two kinds are named 'text'"):
        twice.validate()
