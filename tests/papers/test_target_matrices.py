"""Target matrices made of labels, entry by entry, and the reduction that keeps positives apart."""

import jax
import numpy as np
import pytest

from mm.objectives.contrastive import targets
from mm.objectives.contrastive.pair import apart, pair_loss
from mm.papers import table

loss = jax.jit(pair_loss, static_argnames="reduction")


def test_targets_are_what_the_labels_say_pair_by_pair():
    module = table.opened("target_matrices")
    known = module.labels(np.random.default_rng(7))
    made = {
        "MeVTR": targets.of_events, "M3CoL": targets.of_mixture, "Dialog2Flow": targets.of_label_vectors,
        "SPACE-2": targets.of_tree,
    }  # fmt: skip
    for name, labels in known.items():
        target, allowed = (np.asarray(x, np.float64) for x in made[name](*labels))
        for i, row in enumerate(target):
            likes = [module.likeness(name, labels, i, j) for j in range(len(row))]
            np.testing.assert_array_equal(allowed[i], [x is not None for x in likes])
            slow = np.array([x or 0.0 for x in likes])
            if slow.sum():
                fast = row * allowed[i] / (row * allowed[i]).sum()
                np.testing.assert_allclose(fast, slow / slow.sum(), atol=1e-6)


def test_the_tree_by_hand():
    path = np.array([[0, 1, 2], [0, 1, 0], [0, 2, 2], [1, 1, 2], [0, 1, -1]])
    like, _ = targets.of_tree(path, np.ones(5, bool))
    np.testing.assert_allclose(like[0], [1, 2 / 4, 1 / 5, 0, 2 / 3], rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_positives_that_are_apart_do_not_see_each_other(weighted):
    rng = np.random.default_rng(3)
    x, target = 3 * rng.normal(size=(5, 8)), rng.random((5, 8)) < 0.4
    target[0], target[1] = False, True  # no positive; no negative
    weight = rng.uniform(0.5, 2, (5, 8)) if weighted else np.ones((5, 8))
    rows, columns = np.ones(5, bool), np.ones(8, bool)
    total, count = loss(x, target, rows, columns, weight_ab=weight, reduction=apart)
    cost, counted = 0.0, 0
    for s, t, w in ((x, target, weight), (x.T, target.T, weight.T)):
        for i in range(len(s)):
            own = np.flatnonzero(t[i])
            rest = (w[i] * np.exp(s[i]))[~t[i]].sum()
            counted += len(own) > 0
            cost += sum(-np.log(np.exp(s[i, j]) / (np.exp(s[i, j]) + rest)) for j in own) / max(len(own), 1)  # fmt: skip
    np.testing.assert_allclose(total, cost / 2, rtol=1e-6)
    assert count == counted / 2
    grad = jax.jit(jax.grad(lambda s: pair_loss(s, target, rows, columns, reduction=apart)[0]))(x)
    assert np.isfinite(grad).all() and (np.asarray(grad)[target] <= 0).all()
