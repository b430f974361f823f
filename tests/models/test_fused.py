"""Fused subsets against loops: who is absent has no say, and who is hidden is not told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm.models.heads import Chain, Fusion
from mm.objectives.contrastive.forms_with_needs import Fused
from mm.objectives.contrastive.views import Views


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def made(seed=0):
    rng = np.random.default_rng(seed)
    z = jnp.asarray(unit(rng.normal(size=(4, 6, 5))), jnp.float32)
    there = rng.random((4, 6)) < 0.6
    there[0], there[3] = True, True
    there[:3, 1] = False
    return z, there, np.array([0, 1, 0, 2, 1, 2])


@pytest.mark.parametrize("settings", [Fusion(hidden=(8,)), Chain(hidden=(8,))])
def test_subsets_may_differ_by_row_and_the_absent_has_no_say(settings):
    z, there, _ = made()
    head = jax.jit(settings.build(4, 5, nnx.Rngs(0)))
    found = head(z, jnp.asarray(there))
    for i in range(6):
        np.testing.assert_allclose(found[i], head(z, jnp.asarray(there[:, i]))[i], atol=1e-6)
    noise = jax.random.normal(jax.random.key(0), z.shape)
    other = jnp.where(there[..., None], z, noise)
    np.testing.assert_allclose(head(other, jnp.asarray(there)), found, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("settings", [Fusion(hidden=(8,)), Chain(hidden=(8,))])
def test_the_loss_is_that_of_a_loop_over_the_states(settings):
    z, there, label = made()
    head = settings.build(4, 5, nnx.Rngs(0))
    views = Views(z, there, label, jnp.float32(4), {}, head=head)
    total, count = jax.jit(lambda: Fused()(views, jax.random.key(0)))()
    given = there.copy()
    given[3] = False
    rows = [i for i in range(6) if given[:, i].any()]
    assert len(rows) == 5  # the second row has nothing
    expected, number = 0.0, 0.0
    for state in jax.jit(head.states)(z, jnp.asarray(given))[:3]:
        logits = np.asarray(4 * state @ z[3].T, np.float64)
        own = (label[:, None] == label) * 1.0
        for x, t, asked, among in ((logits, own, rows, range(6)), (logits.T, own, range(6), rows)):
            for i in asked:
                positive = [j for j in among if t[i, j]]
                if positive:
                    expected += np.log(sum(np.exp(x[i, j]) for j in among)) - np.mean(
                        x[i, positive]
                    )
                    number += 1
    np.testing.assert_allclose(total, expected / 2, rtol=1e-5)
    assert count == number / 2


def test_a_chain_takes_its_modalities_one_by_one():
    z, _, _ = made()
    head = Chain(hidden=(8,)).build(4, 5, nnx.Rngs(0))
    first, second, third, last = jax.jit(head.states)(z, jnp.array([False, True, False, True]))
    np.testing.assert_allclose(
        first, np.broadcast_to(unit(np.asarray(head.start[...])), first.shape), atol=1e-6
    )
    np.testing.assert_array_equal(second, third)
    assert np.abs(second - first).max() > 0.01 and np.abs(last - third).max() > 0.01


def test_who_is_not_told_hears_of_no_absence():
    z, there, label = made()
    head = Fusion(hidden=(8,)).build(4, 5, nnx.Rngs(0))
    ask = jax.jit(lambda there, told: Fused(told=told)(Views(z, there, label, jnp.float32(4), {}, head=head), jax.random.key(0))[0], static_argnums=1)  # fmt: skip
    fewer = there.copy()
    fewer[0] = False
    fewer[1] = True
    whole = fewer.copy()
    whole[0] = True
    np.testing.assert_allclose(ask(fewer, False), ask(whole, False), rtol=1e-6)
    assert abs(ask(fewer, True) - ask(whole, True)) > 1e-3
