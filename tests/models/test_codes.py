"""Codes against loops over tokens and codes, with shared tables and without."""

import jax
import numpy as np
import pytest
from flax import nnx

from mm.models.heads import Codes
from mm.objectives.contrastive.forms_with_needs import Coded
from mm.objectives.contrastive.views import Views


def made(seed=0):
    rng = np.random.default_rng(seed)
    tokens = [rng.normal(size=(5, n, 6)).astype(np.float32) for n in (4, 3)]
    there = [rng.random(t.shape[:2]) < 0.6 for t in tokens]
    for t in there:
        t[:, 0] = True
    return tokens, there


def slow_weights(tokens, there, codes, sparse):
    best = [max(float(t @ c) for t, real in zip(tokens, there, strict=True) if real) for c in codes]
    best = np.array(best) / codes.shape[1] ** 0.5
    if not sparse:
        return np.exp(best) / np.exp(best).sum()
    low, high = best.min() - 1, best.max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(best - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(best - low, 0)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_the_loss_of_codes_is_that_of_a_loop(sparse, shared):
    tokens, there = made()
    head = Codes(number=7, sparse=sparse, shared=shared).build(2, 6, nnx.Rngs(0))
    views = Views(
        np.zeros((2, 5, 6)), np.ones((2, 5), bool), np.arange(5), np.float32(3), {},
        tuple(zip(tokens, there, strict=True)), head=head,
    )  # fmt: skip
    total, count = jax.jit(lambda: Coded()(views, jax.random.key(0)))()
    z = []
    for m in (0, 1):
        codes = np.asarray(head.table(m), np.float64)
        rows = [
            slow_weights(*of, codes, sparse) @ codes for of in zip(tokens[m], there[m], strict=True)
        ]
        z.append(np.stack([r / np.linalg.norm(r) for r in rows]))
    logits = 3 * z[0] @ z[1].T
    rows = lambda x: (np.log(np.exp(x).sum(1)) - np.diag(x)).sum()
    np.testing.assert_allclose(total, (rows(logits) + rows(logits.T)) / 2, rtol=1e-5)
    assert count == 5


def test_tables_are_one_or_one_each():
    one, two = (Codes(shared=s).build(2, 6, nnx.Rngs(0)) for s in (True, False))
    np.testing.assert_array_equal(one.table(0), one.table(1))
    assert not np.allclose(two.table(0), two.table(1))
