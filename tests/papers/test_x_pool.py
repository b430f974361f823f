"""Text-conditioned pooling with one and two streams against loops, and what it is at a high temperature."""

import jax
import numpy as np
import pytest

from mm.objectives.contrastive.forms_with_needs import Conditioned
from mm.objectives.contrastive.similarity import conditioned_scores
from mm.objectives.contrastive.views import Views
from mm.papers import table

scores_of = jax.jit(conditioned_scores, static_argnums=2)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def made(streams: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    query = unit(rng.normal(size=(5, 6)))
    there = rng.random((streams, 4, 3)) < 0.7
    there[:, :, 0] = True
    return query, [(unit(rng.normal(size=(4, 3, 6))), t) for t in there]


@pytest.mark.parametrize("streams", [1, 2])
def test_scores_are_those_of_a_loop(streams):
    query, parts = made(streams)
    found = scores_of(query, parts, 0.2)
    for a in range(5):
        for b in range(4):
            whole = np.zeros(6)
            for tokens, there in parts:
                weight = np.exp(tokens[b] @ query[a] / 0.2) * there[b]
                whole += weight / weight.sum() @ tokens[b]
            np.testing.assert_allclose(found[a, b], query[a] @ unit(whole), atol=1e-6)


@pytest.mark.parametrize("streams", [1, 2])
def test_a_high_temperature_is_mean_pooling(streams):
    """Projections that begin as the identity change nothing: the score at the start is that of mean pooling."""
    query, parts = made(streams)
    means = sum((t * there[..., None]).sum(1) / there.sum(1)[:, None] for t, there in parts)
    expected = query @ unit(means).T
    identity = np.eye(6)
    found = scores_of(query @ identity, [(t @ identity, there) for t, there in parts], 1e7)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(scores_of(query, parts, 0.2) - expected).max() > 0.05


def test_the_form_pools_all_but_the_last_modality():
    query, parts = made(2)
    z = np.stack([unit(t.sum(1)) for t, _ in parts] + [query[:4]])
    tokens = (*parts, (query[:4, None], np.ones((4, 1), bool)))
    views = Views(z, np.ones((3, 4), bool), np.arange(4), np.float32(7), {}, tokens)
    total, count = jax.jit(lambda: Conditioned(temperature=0.2)(views, jax.random.key(0)))()
    logits = 7 * np.asarray(scores_of(query[:4], parts, 0.2), np.float64)
    rows = lambda x: np.log(np.exp(x).sum(1)) - np.diag(x)
    np.testing.assert_allclose(total, (rows(logits) + rows(logits.T)).sum() / 2, rtol=1e-5)
    assert count == 4


def test_captions_name_one_frame_and_one_sound():
    """The named frame is nearest to the sum of the patterns that the caption names."""
    module = table.opened("x_pool")
    source = module.Videos(noise=0.1)
    rows = source.made(np.random.default_rng(0), 20, "train")
    slots, values = module.SLOTS, module.VALUES
    patterns = np.random.default_rng([0, 99]).normal(size=(2, slots, values, 8, 8))
    for i, stream in enumerate(module.STREAMS):
        frames = rows[stream].reshape(20, 8, 8, 8).swapaxes(1, 2)
        words = rows["caption"][:, i * slots : (i + 1) * slots] - 1 - i * slots * values
        named = patterns[i, np.arange(slots), words - np.arange(slots) * values].sum(1)
        error = np.abs(frames - named[:, None]).mean((2, 3))
        assert (error.min(1) < 0.15).all() and (np.sort(error, 1)[:, 1] > 0.3).all()
