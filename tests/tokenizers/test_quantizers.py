"""Quantizers against slow NumPy, their gradients, and whether the codebook stays alive."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
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
