"""Bounds from random masks against the sum over all orders, and the laws of the masks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.objectives import likelihood

LENGTH, VALUES = 4, 3


def predictor(seed=0):
    """A random table of conditionals: (its log p float64 by (sequence with holes, place), the same as a function)."""
    logits = np.random.default_rng(seed).normal(size=((VALUES + 1,) * LENGTH + (LENGTH, VALUES)))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    low = jnp.asarray(log_p, jnp.float32)

    def log_p_of(ids, hidden):
        shown = jnp.where(hidden, VALUES, ids)
        return low[tuple(shown[:, i] for i in range(LENGTH))]

    return log_p, log_p_of


def slow(log_p, x):
    """Mean over orders of -log p, one token at a time."""
    costs = []
    for order in itertools.permutations(range(LENGTH)):
        seen, cost = [VALUES] * LENGTH, 0.0
        for place in order:
            cost -= log_p[(*seen, place, x[place])]
            seen[place] = x[place]
        costs.append(cost)
    return np.mean(costs)


def test_weights_and_probabilities_of_all_masks_together_give_the_sum_over_orders():
    log_p, log_p_of = predictor()
    ids = np.array([2, 0, 1, 1])
    masks = np.array(list(itertools.product([False, True], repeat=LENGTH)))[1:]
    k = masks.sum(1)
    number = np.array([(k == n).sum() for n in range(LENGTH + 1)])
    found = likelihood.nats(
        log_p_of, jnp.tile(ids, (len(masks), 1)), (jnp.asarray(masks), jnp.asarray(LENGTH / k))
    )
    np.testing.assert_allclose((found / (LENGTH * number[k])).sum(), slow(log_p, ids), rtol=1e-6)


@pytest.mark.parametrize("draw", [likelihood.uniform_count, likelihood.uniform_rate])
def test_the_mean_of_estimates_is_the_bound(draw):
    log_p, log_p_of = predictor(1)
    ids, rows = np.array([0, 1, 2, 2]), 40_000
    ask = lambda key: likelihood.nats(log_p_of, jnp.tile(ids, (rows, 1)), draw(key, rows, LENGTH))
    found = np.asarray(jax.jit(ask)(jax.random.key(0)))
    assert abs(found.mean() - slow(log_p, ids)) < 4 * found.std() / rows**0.5


def test_numbers_of_hidden_tokens_are_uniform_and_so_are_their_places():
    hidden, weight = jax.jit(likelihood.uniform_count, static_argnums=(1, 2))(jax.random.key(0), 20_000, 5)  # fmt: skip
    count = np.asarray(hidden).sum(1)
    np.testing.assert_allclose(np.bincount(count, minlength=6)[1:] / 20_000, 0.2, atol=0.015)
    np.testing.assert_allclose(weight, 5 / count, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(hidden).mean(0), 0.6, atol=0.02)


def test_rates_are_evenly_spread_and_never_below_the_least():
    hidden, weight = jax.jit(likelihood.uniform_rate, static_argnums=(1, 2, 3))(jax.random.key(1), 1000, 64, 0.01)  # fmt: skip
    rate = np.sort(1 / np.asarray(weight))
    assert rate[0] >= 0.01 - 1e-6 and np.diff(rate[20:]).max() < 1.5e-3
    share = np.asarray(hidden).mean(1)
    assert np.abs(share - 1 / np.asarray(weight)).max() < 0.35


def test_what_is_visible_costs_nothing():
    _, log_p_of = predictor()
    ids = jnp.zeros((2, LENGTH), jnp.int32)
    hidden = jnp.array([[False] * LENGTH, [True] * LENGTH])
    found = likelihood.nats(log_p_of, ids, (hidden, jnp.ones(2)))
    assert found[0] == 0 and found[1] > 0
