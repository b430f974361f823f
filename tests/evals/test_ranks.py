"""Ranks on the device against a slow sort."""

import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.evals import rescoring
from mm.evals.ranks import mean_rank_variance, median, ranked


def slow(scores, query_group, gallery_group, k):
    """By a Python sort: falling score, of equal ones the irrelevant first."""
    first, precision, chosen = [], [], np.zeros(scores.shape[1], int)
    for row, group in zip(scores, query_group, strict=True):
        right = gallery_group == group
        order = sorted(range(len(row)), key=lambda i: (-row[i], right[i]))
        places = [p for p, i in enumerate(order) if right[i]]
        first.append(places[0] if places else -1)
        hits = [(n + 1) / (p + 1) for n, p in enumerate(places)]
        precision.append(np.mean(hits) if hits else 0.0)
        chosen[np.argsort(-row, kind="stable")[:k]] += 1
    return np.array(first), np.array(precision), chosen


@settings(max_examples=40)
@given(
    st.integers(0, 10**6), st.sampled_from([1, 3, 9]), st.sampled_from([1, 2, 30]),
    st.sampled_from([1, 2, 8]), st.booleans(),
)  # fmt: skip
def test_equal_to_a_slow_sort(seed, queries, gallery, groups, shifted):
    rng = np.random.default_rng(seed)
    query, items = rng.integers(-2, 3, (queries, 3)), rng.integers(-2, 3, (gallery, 3))
    asked, there = rng.integers(0, groups, queries), rng.integers(0, groups, gallery)
    offset = rng.integers(-1, 2, gallery) if shifted else None
    scores = query @ items.T - (offset if shifted else 0)
    first, precision, chosen = slow(scores, asked, there, 2)
    found = ranked(query, items, asked, there, offset=offset, k=2, chunk=4)
    np.testing.assert_array_equal(found.first, first)
    np.testing.assert_allclose(found.precision, precision, rtol=1e-5)
    np.testing.assert_array_equal(found.chosen, chosen)


def test_the_offset_is_what_a_bank_takes():
    rng = np.random.default_rng(0)
    query, items, bank = (rng.normal(size=(n, 8)) for n in (40, 50, 60))
    scores = rescoring.inverted_softmax(query @ items.T, bank @ items.T, 5.0)
    group = np.arange(50)
    taken = (5.0 * query @ items.T - scores)[0] / 5.0
    found = ranked(query, items, group[:40], group, offset=taken)
    np.testing.assert_array_equal(found.first, slow(scores, group[:40], group, 1)[0])


def test_medians_and_variances_of_ranks():
    assert median(np.array([0, 2, -1, 4])) == 3.0
    assert mean_rank_variance(np.array([[0, 1], [2, 1]])) == 0.5


def test_no_query_at_all():
    found = ranked(np.zeros((0, 3)), np.ones((4, 3)), np.zeros(0, int), np.arange(4))
    assert found.first.shape == (0,) and found.chosen.sum() == 0


@pytest.mark.slow
def test_a_hundred_thousand_without_the_matrix():
    """In a twentieth of the 40 GB that all scores would take; the answer is known: each finds itself."""
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    before = peak()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100_000, 16)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    group = np.arange(len(x))
    found = ranked(x[:2048], x, group[:2048], group)
    assert (found.first == 0).all() and found.chosen[:2048].min() >= 1
    assert peak() - before < 2e9
