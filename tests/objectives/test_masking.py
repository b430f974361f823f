"""Views against a slow reference, and the properties that no mask may break."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mm.objectives import masking
from mm.objectives.masking import Masking
from tests.conftest import random_batch


@pytest.fixture(scope="module")
def views(space):
    return jax.jit(
        lambda key, batch: masking.generation_views(
            key, Masking(visible=9, targets=7), space, batch
        )
    )


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), absent=st.sampled_from([0.0, 0.4]))
def test_no_token_is_both_seen_and_asked_and_all_are_real(space, views, seed, absent):
    batch = random_batch(space, 16, seed, absent)
    visible, targets, counts = jax.device_get(views(jax.random.key(seed), batch))
    line = np.asarray(masking.line_ids(batch, space))
    table = space.per_place()
    for b in range(16):
        seen, asked = visible.place[b][visible.mask[b]], targets.place[b][targets.mask[b]]
        both = np.concatenate([seen, asked])
        assert len(set(both.tolist())) == len(both)
        for place in both:
            name = space.names[table["modality"][place]]
            assert batch.present[name][b] and table["position"][place] < batch.length[name][b]
        assert (np.diff(asked) > 0).all(), "targets of a modality must stand together"
        assert np.array_equal(visible.ids[b][visible.mask[b]], line[b][seen])
        assert np.array_equal(targets.ids[b][targets.mask[b]], line[b][asked])
        assert np.bincount(table["modality"][seen], minlength=3).tolist() == counts[b].tolist()


def test_mixture_holds_what_generation_meets(space):
    """All of one modality and nothing else; and all of one with part of another: both often."""
    batch = random_batch(space, 2000, 0)
    mask = Masking(visible=15, targets=7)
    visible, targets, counts = masking.generation_views(jax.random.key(1), mask, space, batch)
    length = np.asarray(masking.lengths(batch, space))
    whole, none = np.asarray(counts) == length, np.asarray(counts) == 0
    alone = (whole.sum(1) == 1) & (none.sum(1) == 2)
    partly = (whole.sum(1) == 1) & (none.sum(1) == 1)
    assert alone.mean() > 0.1 and partly.mean() > 0.1
    assert (none.all(1)).mean() > 0.01, "guidance needs examples that see nothing"
    assert np.asarray(targets.mask).any(1).mean() > 0.97


def test_pack_is_the_slow_loop(space):
    rng = np.random.default_rng(0)
    chosen, ids = rng.random((20, 15)) < 0.5, rng.integers(0, 99, (20, 15))
    view = masking.pack(chosen, ids, 6)
    for b in range(20):
        places = np.flatnonzero(chosen[b])[:6]
        assert np.asarray(view.place[b])[: len(places)].tolist() == places.tolist()
        assert np.asarray(view.ids[b])[: len(places)].tolist() == ids[b][places].tolist()
        assert np.asarray(view.mask[b]).sum() == len(places)


def test_ranks_are_argsort_of_argsort():
    x = np.random.default_rng(0).integers(0, 5, (50, 9)).astype(float)
    expected = np.argsort(np.argsort(x, axis=1, kind="stable"), axis=1, kind="stable")
    assert np.array_equal(masking.ranks(x), expected)


def test_contrast_subsets_have_fixed_size_and_are_independent(space):
    batch = random_batch(space, 4000, 0)
    view, drawn, there = masking.contrast_views(jax.random.key(0), space, batch, 3, 0.5)
    assert np.asarray(drawn).tolist() == [0, 1, 2] and np.asarray(there).all()
    mask = np.asarray(view.mask).reshape(4000, 3, -1).swapaxes(0, 1)
    assert (mask[0].sum(1) == 3).all() and (mask[1].sum(1) == 3).all()
    assert (mask[2].sum(1) == np.minimum(2, batch.length["words"])).all()
    chosen = np.zeros((3, 4000, space.places))
    for m in range(3):
        place = np.asarray(view.place).reshape(4000, 3, -1)[:, m]
        for b in range(4000):
            chosen[m, b, place[b][mask[m, b]]] = 1
    # Presence of one place says nothing about presence of another modality's places.
    a, b = chosen[0][:, :6] - 0.5, chosen[1][:, 6:11] - 0.6
    assert np.abs(a.T @ b / 4000).max() < 0.02


def test_contrast_draws_some_of_many(space):
    batch = random_batch(space, 8, 0)
    seen = {
        tuple(
            np.asarray(masking.contrast_views(jax.random.key(i), space, batch, 2, 0.5)[1]).tolist()
        )
        for i in range(30)
    }
    assert {frozenset(s) for s in seen} == {frozenset(s) for s in ((0, 1), (0, 2), (1, 2))}


def test_a_warm_up_hides_ever_more_and_predicts_only_what_is_mostly_hidden(space):
    """Shares against the truncated normal law of scipy; views keep them."""
    warmup = masking.Warmup(steps=100)
    draw = jax.jit(lambda step: warmup.draw(jax.random.key(0), step, (4000, 1)))
    for step, mean in ((0, 0.0), (50, 0.5), (100, 1.0), (300, 1.0)):
        law = stats.truncnorm(-mean / 0.45, (1 - mean) / 0.45, loc=mean, scale=0.45)
        assert stats.kstest(np.asarray(draw(step))[:, 0], law.cdf).pvalue > 1e-3

    settings = Masking(visible=15, targets=15, warmup=warmup, unconditional=0.0)
    batch, hidden = random_batch(space, 4000, 0), draw(50)
    views = jax.jit(lambda key, h: masking.generation_views(key, settings, space, batch, h))
    _, targets, counts = views(jax.random.key(1), hidden)
    length, asked = np.asarray(masking.lengths(batch, space)), np.asarray(targets.mask).sum(1)
    hidden = np.asarray(hidden)[:, 0]
    assert not asked[hidden < 0.5].any() and asked[hidden >= 0.5].all()
    partly = (np.asarray(counts) > 0) & (np.asarray(counts) < length)
    row, modality = partly.nonzero()
    shown = np.floor((1 - hidden[row]) * length[row, modality])
    assert np.array_equal(np.asarray(counts)[row, modality], shown)


def test_what_is_hidden_from_contrast_is_drawn_for_each_modality(space):
    batch = random_batch(space, 500, 0)
    hidden = np.random.default_rng(0).random((500, 3)).astype(np.float32)
    view, _, _ = masking.contrast_views(jax.random.key(0), space, batch, 3, 1.0, hidden)
    kept = np.asarray(view.mask).reshape(500, 3, -1).sum(-1)
    assert np.array_equal(
        kept, np.ceil((1 - hidden) * np.asarray(masking.lengths(batch, space))).astype(int)
    )
