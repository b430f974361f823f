"""Graded targets against loops, bags against loops, and classes whose sentences are true."""

import jax
import numpy as np

from data_pipelines.sprites import ATTRIBUTES, VALUES, WORDS
from mm.objectives.contrastive.forms import AllPairs
from mm.objectives.contrastive.views import Views
from mm.papers import table

module = table.opened("graded_targets")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cross_entropy(logits, target):
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -(target / target.sum(1, keepdims=True) * log_p).sum()


def test_targets_are_the_softmax_of_shared_attributes():
    rng = np.random.default_rng(0)
    z = unit(rng.normal(size=(2, 9, 5)))
    has = np.stack([rng.integers(0, n, 9) for n in module.SIZES], 1)
    views = Views(
        z, np.ones((2, 9), bool), np.arange(9), np.float32(6), {"attributes": has[:, None]}
    )
    total, count = jax.jit(lambda: AllPairs(target=module.graded)(views, jax.random.key(0)))()
    shared = np.array([[sum(a == b) for b in has] for a in has])
    target = np.exp(shared / (len(ATTRIBUTES) * module.TEMPERATURE))
    logits = 6 * z[0] @ z[1].T
    expected = cross_entropy(logits, target) + cross_entropy(logits.T, target.T)
    np.testing.assert_allclose(total, expected / 2, rtol=1e-5)
    assert count == 9


def test_each_picture_is_with_a_sentence_of_its_bag_and_all_of_its_class_are_positives():
    rng = np.random.default_rng(1)
    label, bags = np.array([0, 1, 0, 2, 1]), np.arange(12).reshape(3, 4, 1)
    vectors = unit(rng.normal(size=(12, 6)))
    x = unit(rng.normal(size=(5, 6)))
    drawn = []

    def embed(name, rows):
        assert name == "sentence"
        jax.debug.callback(lambda r: drawn.append(np.asarray(r)[:, 0]), rows, ordered=True)
        return jax.numpy.asarray(vectors)[rows[:, 0]]

    views = Views(
        np.stack([x, x]),
        np.ones((2, 5), bool),
        label,
        np.float32(4),
        {"bag": jax.numpy.asarray(bags[label])},
        embed=embed,
    )
    total, _ = jax.jit(lambda key: module.Bag()(views, key))(jax.random.key(3))
    jax.effects_barrier()
    assert (drawn[0] // 4 == label).all() and len({*(drawn[0] % 4)}) > 1
    logits, target = 4 * x @ vectors[drawn[0]].T, (label[:, None] == label) * 1.0
    expected = cross_entropy(logits, target) + cross_entropy(logits.T, target)
    np.testing.assert_allclose(total, expected / 2, rtol=1e-5)


def test_sentences_are_true_and_test_classes_new():
    source = module.Bags(sentences=6, negated=4, rows=(200, 20, 200), seed=5)
    has, bags = source.classes()
    of = {w: (a, v) for a, name in enumerate(ATTRIBUTES) for v, w in enumerate(VALUES[name])}
    assert len({tuple(x) for x in has}) == 16
    assert all({*has[:8, a]} == {*has[:, a]} for a in range(5))
    for c, bag in enumerate(bags):
        for k, ids in enumerate(bag):
            negated = ids[0] == module.NOT
            assert negated == (k >= 6)
            said = [of[WORDS[i]] for i in ids if i not in (0, module.NOT)]
            assert len(said) == (1 if negated else 2)
            assert all((has[c, a] == v) != negated for a, v in said)
    train, test = (source.made(np.random.default_rng(0), 200, s) for s in ("train", "test"))
    assert {*train["label"]} == {*range(8)} and {*test["label"]} == {*range(8, 16)}
    assert (train["sentence"][:, None] == train["bag"]).all(2).any(1).all()
    assert abs(train["image"]).max() <= 1
