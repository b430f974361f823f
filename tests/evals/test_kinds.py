from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.errors import UserError
from mm.evals import kinds as k
from mm.evals.fidelity import draw_of_class


def test_an_example_s_row_is_exchanged_for_the_row_of_the_kind(run, kinds):
    source = run.data.source
    order = source.order("train", 0, 0)
    words = k.find_rows(run.data, "train", kinds["text"])
    np.testing.assert_array_equal(words.row, order["text"] // 2 * 2)
    captions = k.find_rows(run.data, "train", kinds["caption"])
    np.testing.assert_array_equal(captions.row, order["text"] // 2 * 2 + 1)
    waves = k.find_rows(run.data, "train", kinds["wave"])
    np.testing.assert_array_equal(waves.row, order["wave"] // 3 * 3)
    np.testing.assert_array_equal(waves.item, order["wave"] // 3)
    np.testing.assert_array_equal(waves.group, order["group"])


def test_absent_rows_are_left_out(run, kinds):
    order = run.data.source.order("test", 0, 0)
    order["picture"] = np.where(np.arange(len(order["picture"])) % 3 == 0, -1, order["picture"])
    run.data.order = lambda split, seed, epoch: order
    rows = k.find_rows(run.data, "test", kinds["picture"])
    np.testing.assert_array_equal(rows.example, np.flatnonzero(order["picture"] >= 0))
    np.testing.assert_array_equal(rows.row, rows.example)


def test_a_source_that_describes_nothing_has_a_row_for_an_item(kinds):
    order = {"picture": np.array([4, -1, 2]), "group": np.array([1, 2, 3])}
    data = SimpleNamespace(source=object(), order=lambda split, seed, epoch: order)
    rows = k.find_rows(data, "test", kinds["picture"])
    assert rows.row.tolist() == rows.item.tolist() == [4, 2] and rows.group.tolist() == [1, 3]
    with pytest.raises(UserError, match="names no rows 'clean'"):
        k.find_rows(data, "test", k.Kind(name="picture", rows="clean"))
    with pytest.raises(UserError, match="no column 'wave' in the data"):
        k.find_rows(data, "test", kinds["wave"])


def make_rows(item, group=None):
    item = np.array(item)
    return k.Rows(np.arange(len(item)), item, item % 3 if group is None else group, item * 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 99))
def test_chosen_examples_are_distinct_and_balanced_over_items(item, count, seed):
    rows = make_rows(item)
    chosen = k.choose(rows, count, seed)
    assert len(set(chosen.row.tolist())) == len(chosen) == min(count, len(item))
    taken, there = np.bincount(chosen.item, minlength=7), np.bincount(item, minlength=7)
    short = taken < there  # an item that could have given more
    assert not short.any() or taken.max() - taken[short].min() <= 1


def test_distinct_keeps_an_item_once_per_group():
    rows = make_rows([5, 5, 2, 5, 2], np.array([0, 0, 1, 9, 1])).distinct()
    assert rows.row.tolist() == [0, 2, 3]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30), st.lists(st.integers(0, 4), max_size=30)
)
def test_drawn_rows_are_of_the_class_and_repeat_only_when_all_are_used(groups, wanted):
    groups, wanted = np.array(groups), np.array(wanted, int)
    drawn = draw_of_class(groups, wanted, seed=1)
    for g in range(5):
        own = drawn[wanted == g]
        if not (groups == g).any():
            assert (own == -1).all()
            continue
        assert (groups[own] == g).all()
        counts = np.bincount(own, minlength=len(groups))[groups == g]
        assert counts.max(initial=0) - counts.min(initial=len(own)) <= 1
