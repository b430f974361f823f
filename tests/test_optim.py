"""Which parameters each optimizer changes, and how."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mm import config
from mm.errors import UserError
from mm.optim import decays, make_optimizer, schedule

PARAMS = {
    "token": np.ones((5, 8), np.float32),
    "norm": {"scale": np.ones(8, np.float32)},
    "blocks": {"up": {"kernel": np.ones((2, 8, 12), np.float32), "bias": np.ones((2, 12))}},
    "fused": {"kernel": np.ones((8, 4), np.float32)},
}


def updates_of(kind: str, decay: float = 0.0, scale: float = 1.0):
    settings = config.Optim(kind=kind, lr=0.1, warmup=0, weight_decay=decay, clip_norm=1e9)
    tx = make_optimizer(settings, 10)
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.asarray(scale * rng.normal(size=p.shape), "float32"), PARAMS)
    params = jax.tree.map(lambda p: jnp.asarray(p, "float32"), PARAMS)
    return jax.jit(tx.update)(grads, tx.init(params), params)[0]


def test_only_kernels_decay():
    flags = decays(PARAMS)
    assert flags["fused"]["kernel"] and flags["blocks"]["up"]["kernel"]
    assert not (flags["token"] or flags["norm"]["scale"] or flags["blocks"]["up"]["bias"])
    plain, decayed = updates_of("muon"), updates_of("muon", decay=0.5)
    gap = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), plain, decayed)
    assert gap["token"] == 0 and gap["blocks"]["up"]["bias"] == 0
    np.testing.assert_allclose(gap["fused"]["kernel"], 0.1 * 0.5, rtol=1e-4)


def test_muon_makes_each_block_orthogonal_and_as_large_as_adamw():
    made, other = updates_of("muon"), updates_of("adamw")
    for block in (*made["blocks"]["up"]["kernel"], made["fused"]["kernel"]):
        values = np.linalg.svd(block, compute_uv=False)
        assert values.max() / values.min() < 2, (
            "five iterations bring singular values to 0.7 .. 1.2"
        )
        # Liu et al. 2025: 0.2 is what AdamW's updates come to over a training.
        assert 0.01 < float(jnp.sqrt(jnp.mean(jnp.square(block)))) < 0.03
    assert np.array_equal(np.sign(made["token"]), np.sign(other["token"]))  # Adam, with Nesterov


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_scale_of_the_loss_does_not_matter(kind):
    small, large = updates_of(kind), updates_of(kind, scale=100.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), small, large)


def test_schedule():
    rate = schedule(config.Optim(lr=0.5, warmup=10, final=0.1), 110)
    np.testing.assert_allclose(
        [rate(0), rate(5), rate(10), rate(60), rate(110)],
        [0, 0.25, 0.5, 0.5 * (0.1 + 0.9 / 2), 0.05],
        rtol=1e-5,
    )


def test_unknown_kind():
    with pytest.raises(UserError, match=r"config.optim.kind='sgd': use adamw or muon"):
        make_optimizer(config.Optim(kind="sgd"), 10)


def test_clipping_comes_first():
    settings = config.Optim(kind="adamw", clip_norm=1.0)
    tx = make_optimizer(settings, 10)
    params = {"x": jnp.ones(4)}
    state = tx.init(params)
    _, state = tx.update({"x": jnp.full(4, 100.0)}, state, params)
    moment = optax.tree.get(state, "mu")["x"]
    np.testing.assert_allclose(jnp.linalg.norm(moment), (1 - settings.b1) * 1.0, rtol=1e-5)
