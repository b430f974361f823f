"""Pairs made by label stay within the label and use rows equally often."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.data.pairing import halves, partners

labels = st.lists(st.integers(0, 4), max_size=60).map(np.array)


@given(group=labels, row_group=labels, seed=st.integers(0, 99))
@settings(deadline=None)
def test_partners_have_the_label_and_are_used_equally_often(group, row_group, seed):
    chosen = partners(group, row_group, np.random.default_rng(seed))
    assert chosen.shape == group.shape
    for g in np.unique(group):
        rows, own = chosen[group == g], np.flatnonzero(row_group == g)
        if not len(own):
            assert (rows == -1).all()
            continue
        use = np.bincount(rows, minlength=len(row_group))
        assert use.sum() == use[own].sum()
        assert use[own].max() - use[own].min() <= 1


@given(group=labels, seed=st.integers(0, 99))
@settings(deadline=None)
def test_halves_halve_each_label(group, seed):
    chosen = halves(group, np.random.default_rng(seed))
    for g in np.unique(group):
        assert chosen[group == g].sum() == (group == g).sum() // 2


def test_both_depend_on_the_generator_alone():
    group = np.repeat(np.arange(5), 20)
    first, same, other = (np.random.default_rng(seed) for seed in (1, 1, 2))
    assert np.array_equal(partners(group, group, first), partners(group, group, same))
    assert not np.array_equal(partners(group, group, first), partners(group, group, other))
    assert not np.array_equal(halves(group, first), halves(group, other))
