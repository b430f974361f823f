"""m3-mix and curves of several modalities against float64 loops; rows that are absent."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mm.objectives.contrastive import mixing
from mm.objectives.contrastive.forms import Geodesic
from mm.objectives.contrastive.views import Views


def unit(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def arc(a, b, s):
    angle = np.arctan2(np.linalg.norm(b - (a @ b) * a), a @ b)
    return (
        a if angle < 1e-9 else (np.sin((1 - s) * angle) * a + np.sin(s * angle) * b) / np.sin(angle)
    )


def test_curves_are_arcs_of_arcs():
    z, share = unit(4, 5, 7), np.random.default_rng(1).random(5)
    found = jax.jit(mixing.bezier)(jnp.asarray(z), jnp.asarray(share))
    for i, s in enumerate(share):
        points = [*z[:, i]]
        while len(points) > 1:
            points = [arc(a, b, s) for a, b in itertools.pairwise(points)]
        np.testing.assert_allclose(found[i], points[0], atol=1e-6)


def slow_rows(logits, target):
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -(target / target.sum(1, keepdims=True) * log_p).sum()


def test_mixtures_within_a_modality_have_two_positives():
    x, y = unit(6, 8), unit(6, 8, seed=1)
    other, share = np.array([2, 0, 1, 5, 4, 3]), np.linspace(0.1, 0.9, 6)
    total, count = jax.jit(mixing.within)(jnp.asarray(x), jnp.asarray(y), 5.0, other, jnp.asarray(share), jnp.ones(6, bool))  # fmt: skip
    mixed = np.stack([arc(x[other[i]], x[i], share[i]) for i in range(6)])
    target = np.zeros((6, 6))
    for i in range(6):
        target[i, i] += share[i]
        target[i, other[i]] += 1 - share[i]
    logits = 5 * mixed @ y.T
    np.testing.assert_allclose(
        total, (slow_rows(logits, target) + slow_rows(logits.T, target.T)) / 2, rtol=1e-5
    )
    assert count == 6


def test_the_form_adds_its_parts_and_leaves_out_what_is_absent():
    z = jnp.asarray(unit(2, 6, 8), jnp.float32)
    key, there = jax.random.key(2), np.ones((2, 6), bool)
    ask = jax.jit(lambda z, there, form=None: form(Views(z, there, jnp.arange(6), jnp.float32(1), {}), key), static_argnames="form")  # fmt: skip

    class Fixed:  # hashable: what jit wants of a static argument
        def __init__(self, **settings):
            self.form = Geodesic(scale=5.0, **settings)

        def __call__(self, *args):
            return self.form(*args)

    share = jax.random.beta(jax.random.split(key, 3)[0], 0.5, 0.5, (6,))
    total, count = mixing.geodesic_negatives(*z, jnp.float32(5), share)
    few = Fixed()
    np.testing.assert_allclose(ask(z, there, form=few)[0], total / count, rtol=1e-5)
    all_of_them = ask(z, there, form=Fixed(inside=True))
    assert all_of_them[0] > total / count and all_of_them[1] == 1
    there[1, 4] = False
    for form in (few, Fixed(inside=True)):
        np.testing.assert_allclose(ask(z, there, form=form)[0], ask(z.at[1, 4].set(z[0, 0]), there, form=form)[0], rtol=1e-5)  # fmt: skip
    assert ask(z, np.zeros((2, 6), bool), form=few) == (0, 0)
