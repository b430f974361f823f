"""Quantizers against slow NumPy, their gradients, and whether the codebook stays alive."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

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
quantize = jax.jit(q.quantize)
ema_update = jax.jit(q.ema_update, static_argnames=("decay", "dead", "cosine"))


@given(arrays(np.float32, (9, 3), elements=FLOATS), arrays(np.float32, (5, 3), elements=FLOATS))
def test_quantize_takes_a_nearest_code(z, book):
    ids, vectors = quantize(z, book)
    distance = np.square(z[:, None].astype(np.float64) - book).sum(-1)
    taken = distance[np.arange(len(z)), np.asarray(ids)]
    np.testing.assert_allclose(taken, distance.min(1), atol=1e-4)  # ties may fall either way
    np.testing.assert_array_equal(vectors, book[np.asarray(ids)])


def test_quantize_keeps_leading_axes():
    z = jax.random.normal(jax.random.key(0), (2, 3, 4))
    ids, vectors = quantize(z, jax.random.normal(jax.random.key(1), (6, 4)))
    assert ids.shape == (2, 3) and ids.dtype == jnp.int32 and vectors.shape == (2, 3, 4)


def slow_ema(buffers, z, ids, decay):
    """One code and one latent at a time."""
    counts, sums = (
        np.asarray(buffers["counts"], np.float64).copy(),
        np.asarray(buffers["sums"], np.float64).copy(),
    )
    for k in range(len(counts)):
        mine = [z[i] for i in range(len(z)) if ids[i] == k]
        counts[k] = decay * counts[k] + (1 - decay) * len(mine)
        sums[k] = decay * sums[k] + (1 - decay) * (np.sum(mine, 0) if mine else 0)
    return counts, sums


@pytest.mark.parametrize("cosine", [False, True])
def test_ema_update_is_running_k_means(cosine):
    rng = np.random.default_rng(0)
    z, ids = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 4, 40)
    buffers = {
        "codebook": np.ones((4, 3)),
        "counts": rng.uniform(5, 9, 4),
        "sums": rng.normal(size=(4, 3)),
    }
    buffers = {k: jnp.asarray(v, jnp.float32) for k, v in buffers.items()}
    new = ema_update(
        buffers,
        jnp.asarray(z),
        jnp.asarray(ids),
        jax.random.key(0),
        decay=0.9,
        dead=0.0,
        cosine=cosine,
    )
    counts, sums = slow_ema(buffers, z, ids, 0.9)
    book = sums / counts[:, None]
    book = book / np.linalg.norm(book, axis=1, keepdims=True) if cosine else book
    np.testing.assert_allclose(new["counts"], counts, rtol=1e-5)
    np.testing.assert_allclose(new["sums"], sums, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new["codebook"], book, rtol=1e-4, atol=1e-5)


def drifting(**changed) -> q.VectorQuantizer:
    """4M's: rows drift inside the unit ball, latents stay as they are."""
    return q.VectorQuantizer(
        **{"codes": 6, "width": 3, "unit": False, "drift": True, "threshold": 0.0} | changed
    )


def trained(vq, buffers, z):
    """(quantized, buffers after one step, terms)."""

    @jax.jit
    def step(buffers, z):
        coded = vq.quantize(buffers, z)
        return coded, vq.update(buffers, coded, jax.random.key(0)), vq.terms(buffers, coded)

    return step(buffers, z)


def test_codes_that_drift_follow_directions_one_at_a_time():
    rng = np.random.default_rng(0)
    book, z = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32)
    book[5] = -3 * z.mean(0)  # nobody's
    counts = rng.uniform(1, 2, 6).astype(np.float32)
    coded, new, terms = trained(drifting(), {"codebook": book, "counts": counts}, z)
    length = lambda x: np.linalg.norm(np.float64(x), axis=-1, keepdims=True)
    ids = ((z / length(z)) @ (book / length(book)).T).argmax(1)
    np.testing.assert_array_equal(coded.ids, ids)
    np.testing.assert_allclose(coded.vectors, book[ids], atol=1e-6)  # the row as it is
    np.testing.assert_array_equal(coded.latents, z)
    total, count = terms["commitment"]
    assert float(total / count) == pytest.approx(np.square(book[ids] - z).mean(), rel=1e-5)
    assert "sums" not in new and 5 not in ids
    for k in range(6):
        mine = (z / length(z))[ids == k]
        aim = np.mean(mine, 0) if len(mine) else book[k]
        np.testing.assert_allclose(
            new["codebook"][k], 0.99 * book[k] + 0.01 * aim / length(aim), atol=1e-6
        )
        assert float(new["counts"][k]) == pytest.approx(
            0.99 * counts[k] + 0.01 * len(mine), rel=1e-5
        )


def test_latents_of_codes_that_drift_may_be_unit():
    z = np.float32([[3, 4, 0], [0, 0, 2]])
    book = np.float32(np.eye(3) * 0.5)
    coded, _, terms = trained(
        drifting(codes=3, unit=True), {"codebook": book, "counts": np.ones(3, np.float32)}, z
    )
    unit = np.array([[0.6, 0.8, 0], [0, 0, 1]])
    np.testing.assert_allclose(coded.latents, unit, atol=1e-6)
    np.testing.assert_array_equal(coded.ids, [1, 2])
    gap = np.square(unit - book[[1, 2]]).mean()
    assert float(terms["commitment"][0] / 6) == pytest.approx(gap, rel=1e-5)


def test_smoothing_is_laplace_s():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20, 3)).astype(np.float32)
    book = rng.normal(size=(6, 3)).astype(np.float32)
    buffers = {"codebook": book, "counts": np.float32([4, 4, 4, 4, 4, 0]), "sums": book}
    buffers["codebook"][5] = 99
    vq = q.VectorQuantizer(codes=6, width=3, cosine=False, smoothing=0.5, threshold=0.0)
    coded, new, _ = trained(vq, buffers, z)
    ids = np.asarray(coded.ids)
    counts, sums = slow_ema(buffers, z, ids, 0.99)
    total = counts.sum()
    size = (counts + 0.5) / (total + 6 * 0.5) * total
    np.testing.assert_allclose(new["codebook"], sums / size[:, None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new["counts"], counts, rtol=1e-5)  # these are not smoothed
    assert (ids != 5).all()


@pytest.mark.parametrize("drift", [True, False])
def test_codes_below_the_threshold_restart_at_latents_of_the_batch(drift):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 3)).astype(np.float32)
    vq = drifting(drift=drift, cosine=drift, threshold=2.0)
    book = rng.normal(size=(6, 3)).astype(np.float32)
    counts = np.float32([9, 9, 1.5, 9, 0, 9])
    buffers = {"codebook": book, "counts": counts} | (
        {} if drift else {"sums": book * counts[:, None]}
    )
    _, new, _ = trained(vq, buffers, z)
    seen = z / np.linalg.norm(z, axis=1, keepdims=True) if drift else z
    gap = np.abs(np.asarray(new["codebook"])[:, None] - seen).max(-1).min(1)
    np.testing.assert_array_equal(gap < 1e-5, [False, False, True, False, True, False])
    _, kept, _ = trained(dataclasses.replace(vq, threshold=0.0), buffers, z)
    moved = np.abs(np.asarray(kept["codebook"]) - book).max(1)
    assert np.isfinite(moved).all() and (moved[:4] < 0.5).all()
    assert not drift or moved[4] < 0.02  # 0 = never, also what was not used yet


def test_codes_that_drift_need_directions():
    with pytest.raises(UserError, match="needs cosine=True"):
        drifting(cosine=False).validate()


def test_only_dead_codes_restart_and_they_restart_at_latents_of_the_batch():
    z = jax.random.normal(jax.random.key(0), (32, 2))
    book = jnp.concatenate([z[:3], jnp.full((2, 2), 50.0)])
    buffers = {"codebook": book, "counts": jnp.array([9.0, 9, 9, 0, 0]), "sums": book * 9}
    ids, _ = quantize(z, book)
    new = ema_update(buffers, z, ids, jax.random.key(1), decay=0.99, dead=0.1, cosine=False)
    gap = np.abs(np.asarray(new["codebook"])[:, None] - np.asarray(z)).sum(-1).min(1)
    assert (gap[3:] < 1e-5).all()
    assert np.abs(np.asarray(new["codebook"] - book)[:3]).max() < 0.2
    assert (np.asarray(new["counts"])[3:] > 0.1 * 32 / 5).all()  # not dead again at once


def test_sample_far_prefers_what_is_badly_coded():
    z = jnp.concatenate([jnp.zeros((90, 2)), jnp.ones((10, 2))])
    drawn = q.sample_far(z, jnp.zeros((100, 2)), jax.random.key(0), 50)
    assert np.asarray(drawn).min() == 1.0


@pytest.mark.parametrize("seed", range(2))
def test_a_collapsed_codebook_recovers(seed):
    """All codes begin in one place, so one of them takes everything: only restarts can find the other clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 4)) * 10
    vq = q.VectorQuantizer(codes=64, width=4, cosine=False, decay=0.9)
    book = jnp.asarray(centres[:1] + 0.01 * rng.normal(size=(64, 4)), jnp.float32)
    buffers = {"codebook": book, "counts": jnp.full(64, 4.0), "sums": 4 * book}
    update = jax.jit(lambda b, z, key: vq.update(b, vq.quantize(b, z), key))
    for step in range(60):
        z = jnp.asarray(
            centres[rng.integers(0, 6, 256)] + 0.05 * rng.normal(size=(256, 4)), jnp.float32
        )
        buffers = update(buffers, z, jax.random.key(step))
    distance = np.linalg.norm(centres[:, None] - np.asarray(buffers["codebook"]), axis=-1).min(1)
    assert distance.max() < 0.5
    assert float(vq.terms(buffers, vq.quantize(buffers, z))["usage"][0]) > 24


def test_gradient_goes_straight_through_and_none_to_the_codebook():
    vq = q.VectorQuantizer(codes=8, width=4, cosine=False)
    buffers, z = vq.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (5, 4))
    weights = jax.random.normal(jax.random.key(2), (5, 4))
    loss = lambda z, b: (vq.quantize(b, z).vectors * weights).sum()
    of_z, of_buffers = jax.jit(jax.grad(loss, argnums=(0, 1)))(z, buffers)
    np.testing.assert_allclose(of_z, weights, rtol=1e-6)
    assert all(np.abs(g).max() == 0 for g in jax.tree.leaves(of_buffers))
    coded = vq.quantize(buffers, z)
    np.testing.assert_allclose(coded.vectors, vq.lookup(buffers, coded.ids), atol=1e-6)


def test_commitment_pulls_latents_towards_their_codes():
    vq = q.VectorQuantizer(codes=8, width=4)
    buffers, z = vq.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (64, 4))

    @jax.jit
    def commitment(z):
        total, count = vq.terms(buffers, vq.quantize(buffers, z))["commitment"]
        return total / count

    before = commitment(z)
    assert commitment(z - 2.0 * jax.grad(commitment)(z)) < before


def test_a_zero_latent_has_finite_gradients():
    grad = jax.grad(lambda z: q.normalise(z).sum())(jnp.zeros((2, 3)))
    assert np.isfinite(grad).all()


def test_usage_and_perplexity_of_known_codes():
    terms = q.code_terms(jnp.array([[0, 0], [3, 3]]), 8)
    assert float(terms["usage"][0] / terms["usage"][1]) == 2 / 8
    assert float(terms["perplexity"][0]) == pytest.approx(2.0, rel=1e-5)
    assert float(q.code_terms(jnp.arange(8), 8)["perplexity"][0]) == pytest.approx(8.0, rel=1e-5)


@pytest.mark.parametrize("levels", [(2,), (3, 2), (8, 5), (4, 3, 3)])
def test_fsq_codes_and_vectors_are_one_to_one(levels):
    fsq = q.FSQ(levels=levels)
    assert fsq.codes == np.prod(levels) and fsq.width == len(levels)
    vectors = jax.jit(lambda ids: fsq.lookup({}, ids))(np.arange(fsq.codes))
    assert len(np.unique(np.asarray(vectors), axis=0)) == fsq.codes
    # an axis of latents wide enough to meet every level of every feature
    axis = np.linspace(-6, 6, 49, dtype=np.float32)
    z = np.stack(np.meshgrid(*[axis] * len(levels)), -1).reshape(-1, len(levels))
    coded = jax.jit(lambda z: fsq.quantize({}, z))(z)
    np.testing.assert_array_equal(np.unique(coded.ids), np.arange(fsq.codes))
    np.testing.assert_allclose(coded.vectors, np.asarray(vectors)[coded.ids], atol=1e-5)


def test_fsq_lets_gradients_through():
    fsq = q.FSQ(levels=(5, 4))
    grad = jax.jit(jax.grad(lambda z: fsq.quantize({}, z).vectors.sum()))(jnp.array([[0.3, -0.2]]))
    assert (np.asarray(grad) > 0).all()


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


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from mm.tokenizers.quantizers import VectorQuantizer

vq = VectorQuantizer(codes=16, width=4)
buffers, z = vq.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (64, 3, 4))
step = jax.jit(lambda b, z: vq.update(b, vq.quantize(b, z), jax.random.key(2)))
mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
assert mesh.size == 4
spread = jax.device_put(z, NamedSharding(mesh, PartitionSpec("data")))
one, many = buffers, buffers
for _ in range(3):
    one, many = step(one, z), step(many, spread)
for name in one:
    np.testing.assert_allclose(many[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)
"""


def test_statistics_are_of_the_whole_batch_on_several_devices():
    """Devices that each kept a codebook of their own share of the batch would decode each other's ids wrongly."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env=os.environ | flags | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
