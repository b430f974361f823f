"""Rescoring: formulas by loops, and what papers say it does, on spaces with hubs (five seeds each)."""

import numpy as np
import pytest

from mm.evals import rescoring as r
from mm.objectives.contrastive.geometry import chosen, ranks, skewness


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def hubby(seed, d=32, noise=0.8, shift=1.0, queries=1000, bank=2000):
    """Queries and gallery of one latent, each with noise and a mean of its own; a bank of other pairs."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(queries + bank, d))
    tower = lambda: unit(z + noise * rng.normal(size=z.shape) + shift * unit(rng.normal(size=(1, d))) * d**0.5)  # fmt: skip
    q, g = tower(), tower()
    return q[:queries], g[:queries], q[queries:], g[queries:]


def recall(scores):
    return (ranks(scores) == 0).mean()


def test_formulas_equal_loops():
    rng = np.random.default_rng(0)
    s, bank, other = rng.normal(size=(4, 6)), rng.normal(size=(5, 6)), rng.normal(size=(3, 6))
    soft = lambda x, b, beta: np.array([[np.exp(beta * x[i, j]) / sum(np.exp(beta * b[k, j]) for k in range(len(b))) for j in range(6)] for i in range(4)])  # fmt: skip
    np.testing.assert_allclose(np.exp(r.inverted_softmax(s, bank, 2.0)), soft(s, bank, 2.0))
    both = soft(s, bank, 1 / 1.99) * soft(s, other, 3.0)
    before = s.copy(), bank.copy(), other.copy()
    np.testing.assert_allclose(np.exp(r.dual_bank(s, bank, other)), both)
    for a, b in zip((s, bank, other), before, strict=True):
        np.testing.assert_array_equal(a, b)
    hubs = {int(row.argmax()) for row in bank}
    found = r.dynamic(s, bank, 2.0)
    for i in range(4):
        expected = np.log(soft(s, bank, 2.0)[i]) if s[i].argmax() in hubs else 2.0 * s[i]
        np.testing.assert_allclose(found[i], expected)
    near = lambda x: np.sort(x)[-2:].mean()
    expected = [[2 * s[i, j] - near(s[i]) - near(bank[:, j]) for j in range(6)] for i in range(4)]
    np.testing.assert_allclose(r.csls(s, bank, k=2), expected)


def test_inverse_graph_convolution_equals_the_loop():
    rng = np.random.default_rng(0)
    gallery, a, b = (unit(rng.normal(size=(n, 5))) for n in (4, 6, 7))
    expected = []
    for x in gallery:
        moved = x
        for bank in (a, b):
            nearest = sorted(bank, key=lambda y, x=x: -(x @ y))[:3]
            moved = moved - 0.7 / 3 * sum((x @ y) * y for y in nearest)
        expected.append(moved / np.linalg.norm(moved))
    found = r.inverse_graph_convolution(gallery, (a, b), rate=0.7, k=3)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("seed", range(5))
def test_banks_take_hubs_away(seed):
    q, g, q_bank, g_bank = hubby(seed)
    raw, bank = q @ g.T, q_bank @ g.T
    ways = {
        "querybank": r.inverted_softmax(raw, bank),
        "dynamic": r.dynamic(raw, bank),
        "dual": r.dual_bank(raw, bank, g_bank @ g.T, 20.0, 3.0),
        "csls": r.csls(raw, bank),
        "centred": r.centred(q, q_bank.mean(0)) @ r.centred(g, g_bank.mean(0)).T,
        "invgc": q @ r.inverse_graph_convolution(g, (g_bank, q_bank), rate=1.2, k=200).T,
    }
    for name, scores in ways.items():
        assert recall(scores) > recall(raw), name
        assert skewness(chosen(scores)) < skewness(chosen(raw)), name
    assert recall(ways["querybank"]) > recall(raw) + 0.15
    assert recall(ways["dynamic"]) >= recall(ways["querybank"]) - 0.03


def test_exact_scores_of_few_anchors_find_the_best():
    """Low-rank scores under noise: 50 anchors and 100 exact scores of 5,000 find most of the ten best."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(700, 10)), rng.normal(size=(5000, 10))
    scores = np.tanh(left @ right.T / 10**0.5) + 0.05 * rng.normal(size=(700, 5000))
    train, test = scores[:500], scores[500:]
    anchors = rng.choice(5000, 50, replace=False)
    best = np.argsort(-test, axis=1)[:, :10]
    share = lambda picked: np.mean([np.isin(b, p[:10]).mean() for b, p in zip(best, picked, strict=True)])  # fmt: skip
    found = share(r.rescored(r.by_anchors(test[:, anchors], train, anchors), test, 100))
    blind = share(r.rescored(rng.normal(size=test.shape), test, 150))
    assert found > 0.5 > 0.1 > blind
