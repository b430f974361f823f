"""What similarity distribution matching is with one positive: closed forms of its value and gradient, which are not InfoNCE's."""

import jax
import numpy as np
import pytest

from mm.objectives.contrastive.pair import pair_loss, reverse_kl
from mm.papers import table

EPS = 1e-8
there = np.ones(8, bool)
sdm = jax.jit(jax.value_and_grad(lambda x: pair_loss(x, np.eye(8), there, there, reduction=reverse_kl(EPS))[0]))  # fmt: skip
infonce = jax.jit(jax.grad(lambda x: pair_loss(x, np.eye(8), there, there)[0]))


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def closed(x):
    """One direction's value and gradient: rows -H(p) - (1 - p_ii) log eps, and p_j (log p_j / (q_j + eps) - that)."""
    p = softmax(x)
    own = np.diag(p)
    value = (p * np.log(p)).sum(1) - np.log(EPS) * (1 - own) - np.log1p(EPS) * own
    return value.sum(), p * (np.log(p) - np.log(np.eye(len(x)) + EPS) - value[:, None])


@pytest.mark.parametrize("sd", [0.5, 3.0, 10.0])
def test_value_and_gradient_have_closed_forms(sd):
    x = sd * np.random.default_rng(0).normal(size=(8, 8))
    value, grad = sdm(x)
    ab, ba = closed(x), closed(x.T)
    np.testing.assert_allclose(value, (ab[0] + ba[0]) / 2, rtol=1e-5)
    np.testing.assert_allclose(grad, (ab[1] + ba[1].T) / 2, atol=2e-5)


def test_the_positives_gradient_dies_where_it_is_improbable_and_infonces_does_not():
    """Of the positive's logit, in both directions alike: about -18.4 p (1 - p), against p - 1."""
    for distance, p in ((2.0, 1 / (1 + 7 * np.exp(2))), (12.0, 1 / (1 + 7 * np.exp(12)))):
        x = -distance * np.eye(8)
        rest = (1 - p) / 7
        slope = p * (1 - p) * (np.log(p / rest) + np.log(EPS))
        np.testing.assert_allclose(np.diag(sdm(x)[1]), slope, rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(np.diag(infonce(x)), p - 1, rtol=1e-4)
    assert abs(slope) < 1e-4 < 0.99 < abs(p - 1)


def test_gradients_of_the_two_part_as_logits_spread():
    cosine = []
    for sd in (0.5, 3.0, 10.0):
        x = sd * np.random.default_rng(1).normal(size=(8, 8))
        a, b = np.ravel(sdm(x)[1]), np.ravel(infonce(x))
        cosine.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert cosine[0] > 0.8 > 0.7 > cosine[1] > 0.45 > cosine[2], cosine


def test_persons_have_five_views_each_that_are_near_each_other():
    source = table.opened("irra").Persons(noise=0.05)
    rows = source.made(np.random.default_rng(0), 20, "train")
    assert np.bincount(rows["group"]).tolist() == [5] * 4
    near = np.square(rows["image"][:, None] - rows["image"]).sum(-1)
    same = rows["group"][:, None] == rows["group"]
    assert near[same].max() < near[~same].min()


def test_the_loss_of_masked_words_is_that_of_a_loop_over_what_is_masked():
    module = table.opened("irra")
    rng = np.random.default_rng(0)
    caption = rng.integers(1, len(module.WORDS), (4, 6)).astype(np.int32)
    masked = np.where(rng.random((4, 6)) < 0.4, module.MASK, caption)
    logits = rng.normal(size=(4, 6, len(module.WORDS))).astype(np.float32)
    tokens = ((np.ones((4, 2, 3), np.float32), np.ones((4, 2), bool)),) * 2
    seen = []
    head = lambda image, caption: seen.append(float(abs(image[0]).sum())) or logits
    views = module.Views(None, None, None, None, {"caption": caption, "masked": masked}, tokens, head=head)  # fmt: skip
    slow = sum(
        np.log(np.exp(np.float64(logits[i, j])).sum()) - logits[i, j, caption[i, j]]
        for i, j in zip(*np.nonzero(masked == module.MASK), strict=True)
    )
    for blind in (False, True):
        total, count = module.Read(blind=blind)(views, None)
        np.testing.assert_allclose(total, slow, rtol=1e-5)
        assert count == (masked == module.MASK).sum()
    assert seen == [24, 0], "the blind one is given zeros"
