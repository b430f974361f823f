"""Refined queries: the gradient against finite differences, and KL that only falls. Boosting hinges against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.evals.rescoring import _consensus, refined
from mm.objectives.contrastive.momentum import boosted
from mm.papers import table


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def divergence(logits, other):
    p = softmax(logits)
    return sum((a + b) / 2 * np.log((a + b) / 2 / a) for a, b in zip(p, other, strict=True))


def test_the_consensus_and_its_gradient():
    rng = np.random.default_rng(0)
    logits, other = 2 * rng.normal(size=7), softmax(2 * rng.normal(size=7))
    value, slope = _consensus(logits, other)
    assert value == pytest.approx(divergence(logits, other), rel=1e-10)
    for i in range(7):
        step = 1e-5 * np.eye(7)[i]
        slow = (divergence(logits + step, other) - divergence(logits - step, other)) / 2e-5
        assert slope[i] == pytest.approx(slow, abs=1e-8)


def test_refinement_lowers_the_divergence_at_every_step_and_full_steps_do_not():
    rng = np.random.default_rng(1)
    gallery, query = 6 * rng.normal(size=(30, 8)), rng.normal(size=8) / 3
    other = softmax(2 * rng.normal(size=30))
    moved, trace = refined(query, gallery, other, steps=30)
    assert len(trace) == 31 and (np.diff(trace) <= 0).all() and trace[-1] < 0.9 * trace[0]
    assert trace[-1] == pytest.approx(divergence(gallery @ moved, other), rel=1e-9)
    assert (np.diff(refined(query, gallery, other, steps=30, search=False)[1]) > 0).any()


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_hinges_are_those_of_loops_and_the_anchor_learns_nothing(relative, margin):
    student, anchor = np.random.default_rng(2).normal(size=(2, 6, 6))
    run = jax.jit(jax.value_and_grad(lambda s, a: boosted(s, a, margin, relative)[0], (0, 1)))
    value, (to_student, to_anchor) = run(student, anchor)
    slow = table.opened("boosting").slow(student, anchor, margin, relative)
    np.testing.assert_allclose(value, slow, rtol=1e-6)
    assert (to_anchor == 0).all() and (to_student != 0).any()


def test_a_student_that_is_better_everywhere_pays_nothing():
    anchor = jnp.asarray(np.random.default_rng(3).normal(size=(5, 5)))
    better = anchor + jnp.where(jnp.eye(5, dtype=bool), 1.0, -1.0)
    for relative in (True, False):
        assert boosted(better, anchor, 0.9, relative)[0] == 0
        assert boosted(anchor, anchor, 0.9, relative)[0] > 0
