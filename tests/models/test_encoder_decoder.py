"""The trunk: padding changes nothing, scanning changes nothing, and nothing leaks through the queries."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm.models.encoder_decoder import EncoderDecoder, Model
from mm.objectives.masking import Masking, generation_views
from mm.space import View
from tests.conftest import random_batch

SMALL = Model(width=16, heads=2, encoder_layers=3, decoder_layers=2, embed_layers=2, embed_dim=8)


@pytest.fixture(scope="module")
def model(space):
    return EncoderDecoder(SMALL, space, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def views(space):
    visible, targets, _ = generation_views(
        jax.random.key(0), Masking(visible=8, targets=6), space, random_batch(space, 12, 0)
    )
    return visible, targets


def forward(model, visible, targets):
    encoded = model.encode(visible)
    return encoded, model.decode(targets, encoded, visible)


@pytest.mark.parametrize(
    "change",
    [{"scan": False}, {"remat": "full"}, {"remat": "dots", "scan": False}, {"attention": "splash"}],
)
def test_scan_remat_and_kernel_change_nothing(space, model, views, change):
    other = EncoderDecoder(dataclasses.replace(SMALL, **change), space, rngs=nnx.Rngs(0))
    for view, a, b in zip(views, forward(model, *views), forward(other, *views), strict=True):
        np.testing.assert_allclose(np.asarray(a)[view.mask], np.asarray(b)[view.mask], atol=1e-5)


def test_padding_is_invisible(model, views):
    visible, targets = views
    encoded, states = forward(model, visible, targets)
    noise = lambda v: View(jnp.where(v.mask, v.ids, 3), jnp.where(v.mask, v.place, 2), v.mask)
    encoded2, states2 = forward(model, noise(visible), noise(targets))
    for mask, a, b in ((visible.mask, encoded, encoded2), (targets.mask, states, states2)):
        np.testing.assert_allclose(np.asarray(a)[mask], np.asarray(b)[mask], atol=1e-5)


def test_queries_do_not_read_ids_nor_other_modalities_nor_later_words(space, model, views):
    visible, _ = views
    encoded = model.encode(visible)
    owner = space.per_place()["modality"]
    everything = jnp.broadcast_to(jnp.arange(space.places), (12, space.places))
    full = View(jnp.zeros_like(everything), everything, jnp.ones_like(everything, bool))
    states = model.decode(full, encoded, visible)
    other_ids = dataclasses.replace(full, ids=full.ids + 1)
    np.testing.assert_array_equal(states, model.decode(other_ids, encoded, visible))
    # Take the other modalities' queries away, and of the words all but the first: the rest stays as it was.
    first_word = space.starts["words"]
    for keep in (owner == 0, owner == 1, np.arange(space.places) == first_word):
        fewer = dataclasses.replace(full, mask=jnp.broadcast_to(keep, full.mask.shape))
        np.testing.assert_allclose(
            states[:, keep], model.decode(fewer, encoded, visible)[:, keep], atol=1e-5
        )


def test_each_modality_has_logits_over_its_own_ids(space, model):
    states = jnp.ones((2, 3, SMALL.width))
    for m in space.modalities:
        logits = model.logits(states, m.name)
        start = space.offset(m.name)
        expected = states @ model.token[...][start : start + m.vocabulary.size].T
        assert logits.shape == (2, 3, m.vocabulary.size)
        np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_embeddings_are_unit_and_order_free(space, model, views):
    visible, _ = views
    turned = jax.tree.map(lambda x: x[:, ::-1], visible)
    for embed in (
        lambda v: model.embed_fused(model.encode(v), v),
        lambda v: model.embed_unimodal(v, jnp.zeros(1, jnp.int32)),
    ):
        z = embed(visible)
        seen = np.asarray(visible.mask).any(1)
        np.testing.assert_allclose(np.linalg.norm(z, axis=1)[seen], 1, atol=1e-4)
        np.testing.assert_allclose(z, embed(turned), atol=1e-5)


@pytest.mark.parametrize(
    "kind", [{"mlp": "swiglu", "bias": False}, {"qk_norm": True}, {"dtype": "bfloat16"}]
)
def test_every_kind_of_trunk_has_finite_gradients(space, views, kind):
    model = EncoderDecoder(dataclasses.replace(SMALL, **kind), space, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)

    def loss(params):
        encoded, states = forward(nnx.merge(graph, params), *views)
        return jnp.square(states.astype(jnp.float32)).mean() + encoded.astype(jnp.float32).mean()

    grads = jax.grad(loss)(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
