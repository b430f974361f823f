"""The joint task as 4M trains: its masking, its model, its two averages of the loss."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mm.errors import UserError
from mm.models.encoder_decoder import Model
from mm.objectives import masking_4m
from mm.objectives.masking import Masking, generation_views
from mm.space import TokenSpace
from mm.tasks import weighted
from mm.tasks.joint import Contrast, Joint
from tests.conftest import random_batch
from tests.objectives.test_masking_4m import SENTINELS, SPACE, batch_of

MODEL = Model(
    width=32, heads=2, encoder_layers=1, decoder_layers=1, embed_dim=0, scan=False, mlp="swiglu", bias=False,
    tables="two", positions="by_layout", token_scale=1.0, token_std=0.02, padding_speaks=True,
)  # fmt: skip
SOME = TokenSpace(tuple(SPACE[n] for n in ("pixels", "codes", "vector", "caption", "features")))
FOUR = masking_4m.all_to_all(SOME, 1.0, visible=14, targets=12, sentinels=SENTINELS)
SETTINGS = Joint(model=MODEL, masking=FOUR, contrast=Contrast(weight=0.0))
WHOLE = dataclasses.replace(SETTINGS, average="vocabulary", masked=2.0)
PREDICTED = ("codes", "vector", "caption")


@pytest.fixture(scope="module")
def run():
    """80 steps on one batch that lacks a modality: the losses, lengths of the gradients, the first step's terms."""
    task, weights = WHOLE.build_for(SOME), SETTINGS.build_for(SOME).weights
    batch, tx = batch_of(4, 0), optax.adam(1e-2)
    batch.present["vector"][:] = False

    @jax.jit
    def run(key):
        def step(carry, key):
            def loss(params):
                terms, _ = task.loss(params, {}, batch, key)
                return weighted(terms, weights), terms

            params, opt = carry
            (value, terms), grads = jax.value_and_grad(loss, has_aux=True)(params)
            updates, opt = tx.update(grads, opt)
            return (optax.apply_updates(params, updates), opt), (value, optax.tree.norm(grads), terms)  # fmt: skip

        params, _ = task.init(key)
        return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, 80))[1]

    return jax.device_get(run(jax.random.key(0)))


def test_it_learns_one_batch_by_heart(run):
    """Pixels, tokens, a text and embeddings as inputs; every loss is finite and falls far below chance."""
    SETTINGS.validate()
    values, norms, _ = run
    assert np.isfinite(values).all() and np.isfinite(norms).all() and (norms > 0).all()
    assert values[-10:].mean() < 0.7 * values[:5].mean(), values


def test_equal_shares_are_4ms_average_over_modalities(run):
    """Those that nothing is asked of count 0 in it; what can be no target is not among them."""
    values, _, terms = run
    means = {n: terms[f"masked/{n}"][0] / np.maximum(terms[f"masked/{n}"][1], 1) for n in PREDICTED}
    assert not means["vector"].any() and means["codes"].all()
    np.testing.assert_allclose(values, sum(means.values()) / 3, rtol=1e-5)
    with_shares = dataclasses.replace(SETTINGS, shares={"codes": 3.0}).build_for(SOME).weights
    assert {*with_shares} == {f"masked/{n}" for n in PREDICTED}
    assert with_shares["masked/codes"] == pytest.approx(3 / 5)
    assert sum(with_shares.values()) == pytest.approx(1)


def test_the_average_over_tokens_counts_each_by_its_vocabulary(run):
    """4M's `token` loss; the terms of modalities are metrics then."""
    terms, task = run[2], WHOLE.build_for(SOME)
    assert task.weights == {"masked/all": 2.0}
    top = bottom = np.zeros(80)
    for name in PREDICTED:
        total, count = (np.float64(x) for x in terms[f"masked/{name}"])
        logits = count * SOME.vocabulary(name).size
        top, bottom = top + total / np.maximum(count, 1) * logits, bottom + logits
    assert bottom.all()
    last = {k: (s[-1], n[-1]) for k, (s, n) in terms.items()}
    np.testing.assert_allclose(weighted(last, task.weights), 2 * top[-1] / bottom[-1], rtol=1e-5)
    np.testing.assert_allclose(terms["masked/all"], (top, bottom), rtol=1e-5)


def test_both_kinds_of_masking_are_asked_alike(space):
    """The task's own masks are unchanged; those of 4M are checked against the data before a run."""
    key, batch = jax.random.key(3), random_batch(space, 5, 0)
    own = Masking(visible=7, targets=6)
    a, b = jax.jit(
        lambda: (own.views(key, space, batch), generation_views(key, own, space, batch))
    )()
    assert jax.tree.all(jax.tree.map(lambda x, y: jnp.array_equal(x, y), a, b))
    shapes = jax.eval_shape(lambda batch: FOUR.views(key, SOME, batch), batch_of(5, 0))
    assert (shapes[0].ids.shape, shapes[1].ids.shape, shapes[2].shape) == ((5, 14), (5, 12), (5, 5))
    data = SimpleNamespace(space=TokenSpace(SOME.modalities[1:]), tokenizers={})
    with pytest.raises(UserError, match="no modality 'pixels'"):
        SETTINGS.build(data)
    for changed, message in (
        ({"masking": Masking(visible=0)}, "visible and targets must be at least 1"),
        ({"masking": masking_4m.Masking4M()}, "nothing to draw"),
        ({"average": "token"}, "config.task.average='token': use modality, vocabulary"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(SETTINGS, **changed).validate()
