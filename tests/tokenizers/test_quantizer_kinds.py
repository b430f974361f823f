"""What every quantizer must do, and what each kind adds: against float64, round trips, gradients, settings."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mm.errors import UserError
from mm.tokenizers import quantizers as q

FLOATS = st.floats(-3, 3, width=32)
KINDS = {
    "vector": q.VectorQuantizer(codes=32, width=4, cosine=False),
    "vector-cosine": q.VectorQuantizer(codes=32, width=4),
    "learned": q.LearnedQuantizer(codes=32, width=4),
    "learned-linear": q.LearnedQuantizer(codes=32, width=4, linear=True),
    "fsq": q.FSQ(levels=(8, 5, 3)),
    "sign": q.SignQuantizer(bits=6),
    "sign-spherical": q.SignQuantizer(bits=6, spherical=True, group=4),
    "categorical": q.Categorical(codes=12),
    "gumbel": q.GumbelQuantizer(codes=32, width=4),
    "soft": q.SoftQuantizer(codes=32, width=4),
    "soft-sparse": q.SoftQuantizer(codes=32, width=4, sparse=True),
    "product": q.Product(part=q.VectorQuantizer(codes=8, width=2), parts=3),
    "product-gumbel": q.Product(part=q.GumbelQuantizer(codes=8, width=2), parts=3),
    "residual": q.Residual(
        stage=q.VectorQuantizer(codes=16, width=3, cosine=False), stages=3, beam=256
    ),
    "residual_fsq": q.ResidualFSQ(levels=(8, 5, 3), stages=3),
}


def filled(quantizer, rows=256, steps=6):
    """Its arrays after a few batches of normal latents, and those latents."""
    z = jax.random.normal(jax.random.key(5), (rows, quantizer.width))
    buffers = quantizer.init(jax.random.key(0))
    step = jax.jit(lambda b, k: quantizer.update(b, quantizer.quantize(b, z), k))
    for i in range(steps):
        buffers = step(buffers, jax.random.key(i))
    return buffers, z


def every_id(quantizer, rows=200):
    """int32[rows, ...] of random ids, each at a place where it means something."""
    rng, m = np.random.default_rng(0), quantizer.per_latent
    ids = rng.integers(0, quantizer.codes // m, (rows, m)) + quantizer.codes // m * np.arange(m)
    return ids.astype(np.int32) if m > 1 else ids[:, 0].astype(np.int32)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_come_back_from_their_vectors(kind):
    quantizer = KINDS[kind]
    quantizer.validate()
    buffers = quantizer.init(jax.random.key(0))
    ids = every_id(quantizer)
    vectors = quantizer.lookup(buffers, ids)
    assert vectors.shape == (len(ids), quantizer.width)
    np.testing.assert_array_equal(jax.jit(quantizer.ids_of)(buffers, vectors), ids)


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_on_is_what_the_ids_say(kind):
    quantizer = KINDS[kind]
    buffers, z = filled(quantizer)
    coded = jax.jit(quantizer.quantize)(buffers, z)
    tail = (quantizer.per_latent,) if quantizer.per_latent > 1 else ()
    assert coded.ids.shape == (len(z), *tail) and coded.ids.dtype == np.int32
    assert coded.ids.min() >= 0 and coded.ids.max() < quantizer.codes
    if not kind.startswith("soft"):
        np.testing.assert_allclose(coded.vectors, quantizer.lookup(buffers, coded.ids), atol=1e-5)
    table = quantizer.table(buffers)
    if table is not None and quantizer.per_latent == 1:
        np.testing.assert_allclose(
            table[coded.ids], quantizer.lookup(buffers, coded.ids), atol=1e-6
        )
    elif table is not None:  # the parts of a latent add up
        whole = table[coded.ids].sum(-2)
        np.testing.assert_allclose(whole, quantizer.lookup(buffers, coded.ids), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_come_back_from_json(kind):
    config = json.loads(json.dumps(q.to_json(KINDS[kind])))
    assert q.from_json(config) == KINDS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_latents_and_what_is_learned_get_finite_gradients(kind):
    quantizer = KINDS[kind]
    buffers, z = filled(quantizer)

    def loss(z, buffers):
        coded = quantizer.quantize(buffers, z, jax.random.key(0))
        terms = quantizer.terms(buffers, coded)
        counted = sum(s / c for n, (s, c) in terms.items() if n not in ("usage", "perplexity"))
        return jnp.square(coded.vectors - 1).sum() + counted

    of_z, of_buffers = jax.jit(jax.grad(loss, argnums=(0, 1)))(z.at[0].set(0), buffers)
    assert np.isfinite(of_z).all() and np.abs(of_z).max() > 0
    for name, g in of_buffers.items():
        assert np.isfinite(g).all()
        assert (np.abs(g).max() > 0) == (name in quantizer.learned), name


@settings(max_examples=20, deadline=None)
@given(arrays(np.float32, (6, 4), elements=FLOATS), arrays(np.float32, (6, 4), elements=FLOATS))
def test_the_rotation_turns_a_gradient_as_a_latent_is_turned(z, g):
    e = jax.random.normal(jax.random.key(0), z.shape)
    z, g = z + np.float32([0.1, 0.2, 0.3, 4.0]), g + np.float32(0.01)
    out, back = jax.vjp(lambda z: q.rotated(z, e), z)
    np.testing.assert_allclose(out, e, atol=1e-5)
    (of_z,) = back(jnp.asarray(g))
    length = lambda x: np.linalg.norm(np.asarray(x, np.float64), axis=-1)
    cosine = lambda a, b: (np.float64(a) * np.float64(b)).sum(-1) / length(a) / length(b)
    np.testing.assert_allclose(length(of_z), length(g) * length(e) / length(z), rtol=1e-3)
    np.testing.assert_allclose(cosine(of_z, z), cosine(g, e), atol=2e-3)


def test_rotation_of_a_latent_that_is_its_code_is_none():
    z = jax.random.normal(jax.random.key(0), (5, 4))
    (of_z,) = jax.vjp(lambda z: q.rotated(z, jax.lax.stop_gradient(z)), z)[1](jnp.ones_like(z))
    np.testing.assert_allclose(of_z, 1.0, rtol=1e-4)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("group", [5, 2])
def test_entropy_of_sign_codes_against_all_codes_in_float64(spherical, group):
    quantizer = q.SignQuantizer(bits=5, spherical=spherical, temperature=0.7, diversity=0.5, group=group)  # fmt: skip
    z = jax.random.normal(jax.random.key(1), (40, 5))
    coded = quantizer.quantize({}, z)
    total, count = quantizer.terms({}, coded)["entropy"]
    codes = np.asarray(quantizer.lookup({}, jnp.arange(32)), np.float64)
    latents = np.asarray(coded.latents, np.float64)
    distance = np.square(latents[:, None] - codes).sum(-1)
    law = np.exp(-distance / 0.7)
    law /= law.sum(1, keepdims=True)
    entropy = lambda p: -(p * np.log(p)).sum(-1)
    bits = (np.arange(32)[:, None] >> np.arange(5)) & 1
    joint = 0.0
    for start in range(0, 5, group):
        part = bits[:, start : start + group] @ (1 << np.arange(min(group, 5 - start)))
        joint += entropy(np.bincount(part, weights=law.mean(0)))
    expected = entropy(law).mean() - 0.5 * joint
    assert float(total / count) == pytest.approx(expected, abs=1e-4)


def test_a_learned_codebook_moves_by_its_own_term_alone():
    vq = q.LearnedQuantizer(codes=8, width=3)
    z, book = jax.random.normal(jax.random.key(1), (20, 3)), jax.random.normal(jax.random.key(2), (8, 3))  # fmt: skip

    def term(name):
        def value(z, book):
            total, count = vq.terms({"codebook": book}, vq.quantize({"codebook": book}, z))[name]
            return total / count

        return jax.grad(value, argnums=(0, 1))(z, book)

    of_z, of_book = term("codebook")
    ids = np.asarray(vq.quantize({"codebook": book}, z).ids)
    wanted = np.zeros((8, 3))
    np.add.at(wanted, ids, 2 * (np.asarray(book)[ids] - np.asarray(z)) / z.size)
    np.testing.assert_allclose(of_book, wanted, atol=1e-6)
    assert np.abs(of_z).max() == 0
    of_z, of_book = term("commitment")
    np.testing.assert_allclose(
        of_z, 2 * (np.asarray(z) - np.asarray(book)[ids]) / z.size, atol=1e-6
    )
    assert np.abs(of_book).max() == 0


@pytest.mark.parametrize("sparse", [False, True])
def test_a_soft_choice_is_the_mixture_of_the_table(sparse):
    soft = q.SoftQuantizer(codes=7, width=3, sparse=sparse, temperature=0.5)
    buffers, z = soft.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (9, 3))
    coded, table = soft.quantize(buffers, z), np.asarray(buffers["table"], np.float64)
    scores = np.asarray(z, np.float64) @ table.T / (0.5 * 3**0.5)
    if sparse:  # the nearest point of the simplex, by bisection on the threshold
        low, high = scores.min(1) - 1, scores.max(1)
        for _ in range(60):
            middle = (low + high) / 2
            over = np.maximum(scores - middle[:, None], 0).sum(1) > 1
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        weights = np.maximum(scores - low[:, None], 0)
    else:
        weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(coded.vectors, weights @ table, atol=1e-5)
    np.testing.assert_array_equal(coded.ids, weights.argmax(1))


def test_each_residual_stage_brings_the_sum_nearer():
    for kind in ("residual", "residual_fsq"):
        quantizer = KINDS[kind]
        buffers, z = filled(quantizer, steps=20)
        coded = quantizer.quantize(buffers, z)
        aim = z if kind == "residual" else coded.latents
        gaps = [
            float(jnp.square(aim - quantizer.lookup(buffers, coded.ids[:, :m])).mean())
            for m in (1, 2, 3)
        ]
        assert gaps[0] > 1.5 * gaps[1] > 2 * gaps[2], (kind, gaps)


def test_residual_stages_quantize_what_is_left():
    residual = KINDS["residual"]
    buffers, z = filled(residual)
    coded, left = residual.quantize(buffers, z), np.asarray(z)
    for i in range(3):
        book = np.asarray(buffers["codebook"][i])
        np.testing.assert_allclose(coded.latents[:, i], left, atol=1e-5)
        ids = np.square(left[:, None] - book).sum(-1).argmin(1)
        np.testing.assert_array_equal(coded.ids[:, i], ids + 16 * i)
        left = left - book[ids]


@pytest.mark.parametrize("kind", ["residual", "residual_fsq"])
def test_dropout_keeps_first_codes_and_what_is_left_out_teaches_nothing(kind):
    quantizer = dataclasses.replace(KINDS[kind], dropout=1.0)
    buffers, z = filled(quantizer)
    whole = np.asarray(quantizer.quantize(buffers, z).ids)
    coded = quantizer.quantize(buffers, z, jax.random.key(3))
    none = np.asarray(coded.ids) == quantizer.codes
    kept = (~none).sum(1)
    assert set(kept.tolist()) == {1, 2, 3}
    np.testing.assert_array_equal(none, np.arange(3) >= kept[:, None])
    np.testing.assert_array_equal(np.asarray(coded.ids)[~none], whole[~none])
    np.testing.assert_allclose(coded.vectors, quantizer.lookup(buffers, coded.ids), atol=1e-5)
    if kind == "residual":
        new = quantizer.update(buffers, coded, jax.random.key(0))
        uses = np.array([(~none[:, i]).sum() for i in range(3)])
        moved = np.asarray(new["counts"]).sum(1) - 0.99 * np.asarray(buffers["counts"]).sum(1)
        np.testing.assert_allclose(moved, 0.01 * uses, rtol=1e-3)


BAD = [
    (q.SignQuantizer(bits=0), "bits=0"),
    (q.SoftQuantizer(temperature=0.0), "temperature=0.0"),
    (q.Product(parts=0), "parts=0"),
    (q.Product(part=q.ResidualFSQ()), "writes one code"),
    (q.Residual(stage=q.VectorQuantizer()), "make it False"),
    (q.ResidualFSQ(dropout=2.0), "dropout=2.0"),
]


@pytest.mark.parametrize(("quantizer", "message"), BAD)
def test_settings_that_make_no_sense_are_refused(quantizer, message):
    with pytest.raises(UserError, match=message):
        quantizer.validate()
