"""Samplers against known laws: the network is replaced by true conditionals, so every error is the sampler's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.generate.sampling import Sampler, cosine_counts, guided, sample_parallel, sample_sequence

SITES, ROWS = 5, 60_000


@pytest.fixture(scope="module")
def law():
    """A random joint law of five binary sites, float64[2] * 5, far from independent."""
    p = np.exp(1.5 * np.random.default_rng(0).normal(size=(2,) * SITES))
    return p / p.sum()


@pytest.fixture(scope="module")
def predict(law):
    """True conditionals: (ids [B, S], known [B, S]) -> logits [B, S, 2] given the known sites."""
    states = jnp.asarray(np.indices((2,) * SITES).reshape(SITES, -1).T)  # [32, S]
    p = jnp.asarray(law.reshape(-1), jnp.float32)

    def conditionals(ids, known):
        fits = ((states[None] == ids[:, None]) | ~known[:, None]).all(-1)  # [B, 32]
        weight = fits * p
        one = jnp.einsum("bk,ks->bs", weight, states.astype(jnp.float32))
        return jnp.log(jnp.stack([weight.sum(1, keepdims=True) - one, one], -1) + 1e-20)

    return conditionals


def total_variation(ids, law):
    index = np.asarray(ids) @ (2 ** np.arange(SITES)[::-1])
    return np.abs(np.bincount(index, minlength=2**SITES) / len(index) - law.reshape(-1)).sum() / 2


def draw(run, predict, sampler, seed=0):
    blank = jnp.zeros((ROWS, SITES), jnp.int32), jnp.zeros((ROWS, SITES), bool)
    return jax.jit(lambda k: run(predict, *blank, k, sampler))(jax.random.key(seed))


def test_random_order_with_a_step_per_token_is_the_law(law, predict):
    assert total_variation(draw(sample_parallel, predict, Sampler(steps=SITES)), law) < 0.02


def test_left_to_right_is_the_law(law, predict):
    assert total_variation(draw(sample_sequence, predict, Sampler()), law) < 0.02


def test_one_step_and_confidence_are_not(law, predict):
    """The same measure sees the error of sampling all at once, and of always taking the surest place."""
    assert total_variation(draw(sample_parallel, predict, Sampler(steps=1)), law) > 0.1
    assert (
        total_variation(draw(sample_parallel, predict, Sampler(steps=SITES, choice=50.0)), law)
        > 0.03
    )


@pytest.mark.parametrize("run", [sample_parallel, sample_sequence])
def test_given_places_stay_and_condition_the_rest(law, predict, run):
    ids, known = (
        jnp.ones((ROWS, SITES), jnp.int32),
        jnp.zeros((ROWS, SITES), bool).at[:, 2].set(True),
    )
    out = np.asarray(run(predict, ids, known, jax.random.key(0), Sampler(steps=SITES)))
    assert (out[:, 2] == 1).all()
    given_two = law[:, :, 1] / law[:, :, 1].sum()
    index = out[:, [0, 1, 3, 4]] @ (2 ** np.arange(4)[::-1])
    assert np.abs(np.bincount(index, minlength=16) / ROWS - given_two.reshape(-1)).sum() / 2 < 0.02


def test_zero_temperature_is_greedy(law, predict):
    out = np.asarray(draw(sample_sequence, predict, Sampler(temperature=0.0)))
    assert (out == out[0]).all()


@given(steps=st.integers(1, 40), size=st.integers(1, 64))
def test_schedule_reveals_something_each_step_and_all_at_last(steps, size):
    counts = np.asarray(cosine_counts(steps, size))
    assert counts[-1] == size and (np.diff(np.r_[0, counts]) >= 1).all()


def test_guidance_one_is_the_conditional():
    a, b = jnp.asarray([1.0, 2.0]), jnp.asarray([0.5, 0.0])
    assert np.array_equal(guided(a, b, 1.0), a)
    assert np.array_equal(guided(a, b, 2.0), 2 * a - b)
