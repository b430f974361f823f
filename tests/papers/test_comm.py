"""CoMM's loss against a float64 loop, and what its toy's modalities tell alone and together."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm.models.heads import Fusion
from mm.models.towers import Dense
from mm.objectives.contrastive import nway
from mm.objectives.contrastive.forms_with_needs import Comm
from mm.papers import table
from mm.tasks.towers import Towers, TowersTask

SCALE = 4.0


def slow_infonce(x, y):
    logits = SCALE * x @ y.T
    rows = lambda s: sum(np.log(np.exp(s[i]).sum()) - s[i, i] for i in range(len(s)))
    return (rows(logits) + rows(logits.T)) / 2


def test_the_loss():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5, 6, 8))
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    first, second, *alone = z
    expected = slow_infonce(first, second)
    expected += sum(slow_infonce(x, first) + slow_infonce(x, second) for x in alone) / 2
    low = jnp.asarray(z, jnp.float32)
    found = jax.jit(nway.comm)(low[0], low[1], low[2:], jnp.asarray(SCALE))
    np.testing.assert_allclose(found, (expected, 6), rtol=1e-5)


def test_fusion_does_not_look_at_who_is_not_given():
    head = Fusion(hidden=(16,)).build(2, 4, nnx.Rngs(0))
    z = jax.random.normal(jax.random.key(0), (2, 5, 4))
    ask = jax.jit(lambda z, given: head(z, given))
    only = jnp.array([True, False])
    np.testing.assert_array_equal(ask(z, only), ask(z.at[1].set(7.0), only))
    assert not np.allclose(ask(z, only), ask(z, jnp.array([True, True])))
    np.testing.assert_allclose(np.square(ask(z, only)).sum(1), 1, atol=1e-5)


def test_the_form_in_towers_augments_and_reaches_encoders_and_head():
    augment = lambda key, rows: rows + jax.random.normal(key, rows.shape)
    settings = Towers(
        encoders={m: Dense() for m in "xy"}, width=4, objectives={"c": (1.0, Comm(augment=augment))},
        head=Fusion(hidden=(8,)), scale=SCALE, learned=False,
    )  # fmt: skip
    task = TowersTask(settings, {"x": (3,), "y": (3,)})
    params, _ = task.init(jax.random.key(0))
    rows = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    there = {m: np.ones(6, bool) for m in "xy"}
    batch = {"x": rows[0], "y": rows[1], "group": np.arange(6, dtype=np.int32), "present": there}
    ask = jax.jit(jax.value_and_grad(lambda p, k: task.loss(p, {}, batch, k)[0]["contrast/c"][0]))
    value, grads = ask(params, jax.random.key(1))
    assert value != ask(params, jax.random.key(2))[0]
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(grads))


def test_no_modality_alone_tells_the_synergy():
    made = table.opened("comm").Trifeature().made(np.random.default_rng(0), 4000, "train")
    for own in ("shared", "own_x", "own_y"):
        for value in range(4):
            assert abs(made["synergy"][made[own] == value].mean() - 0.5) < 0.06
    assert abs(np.corrcoef(made["own_x"], made["own_y"])[0, 1]) < 0.06
