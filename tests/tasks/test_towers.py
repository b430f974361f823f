"""Small towers: what they take, what they refuse, and that absent rows reach nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.errors import UserError
from mm.models.towers import Dense, Table, Tied
from mm.objectives.contrastive.forms import AllPairs
from mm.tasks import weighted
from mm.tasks.towers import Towers, TowersTask

ENCODERS = {"a": Dense(hidden=(6,)), "b": Tied(to="a"), "c": Table(size=9)}
SHAPES = {"a": (2, 3), "b": (2, 3), "c": ()}


def task(form, **settings) -> TowersTask:
    return TowersTask(Towers(encoders=ENCODERS, objectives={"main": (2.0, form)}, width=4, **settings), SHAPES)  # fmt: skip


def batch_of(rows: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    made = {n: rng.normal(size=(rows, *SHAPES[n])).astype(np.float32) for n in "ab"}
    made["c"] = rng.integers(0, 9, rows)
    present = {n: np.ones(rows, bool) for n in made}
    return made | {"group": np.arange(rows, dtype=np.int32), "present": present}


def test_embeddings_are_unit_rows_of_any_number_and_tied_towers_share():
    towers, batch = task(AllPairs()), batch_of(5)
    params, _ = jax.jit(towers.init)(jax.random.key(0))
    for name in ENCODERS:
        z = towers.embed(params, name, batch[name])
        np.testing.assert_allclose(np.square(z).sum(1), 1, atol=1e-5)
        assert towers.embed(params, name, batch[name][:0]).shape == (0, 4)
        many = np.concatenate([batch[name]] * 240)
        np.testing.assert_allclose(towers.embed(params, name, many)[-5:], z, atol=1e-6)
    same = towers.embed(params, "b", batch["a"])
    np.testing.assert_array_equal(towers.embed(params, "a", batch["a"]), same)
    params["b"]["vector"] += 1.0
    assert not np.allclose(towers.embed(params, "b", batch["a"]), same)


def test_what_is_absent_changes_neither_loss_nor_gradient():
    towers, batch = task(AllPairs()), batch_of(6)
    params, _ = jax.jit(towers.init)(jax.random.key(1))
    batch["present"]["a"][2:4] = False
    run = jax.jit(jax.value_and_grad(lambda p, b: weighted(towers.loss(p, {}, b, jax.random.key(0))[0], towers.weights)))  # fmt: skip
    value, grads = run(params, batch)
    other = batch | {"a": np.where(np.arange(6)[:, None, None] % 6 // 2 == 1, 50.0, batch["a"]).astype(np.float32)}  # fmt: skip
    again, moved = run(params, other)
    np.testing.assert_allclose(value, again, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_the_scale_is_fixed_or_learned_up_to_a_limit():
    fixed = task(AllPairs(), scale=50.0, learned=False)
    assert "logit_scale" not in fixed.init(jax.random.key(0))[0]
    assert fixed.scale({}) == 50
    learned = task(AllPairs(), scale=50.0, most=60.0)
    params, _ = jax.jit(learned.init)(jax.random.key(0))
    np.testing.assert_allclose(learned.scale(params), 50, rtol=1e-5)
    assert learned.scale({"logit_scale": jnp.asarray(9.0)}) == 60


def test_embeddings_may_begin_in_a_cone():
    rows = batch_of(200)["a"]
    wide, narrow = (
        TowersTask(Towers(encoders={"a": Dense(cone=c), "b": Dense(cone=c)}, objectives={}, width=8), SHAPES)
        for c in (0.0, 20.0)
    )  # fmt: skip
    means = [np.linalg.norm(t.embed(jax.jit(t.init)(jax.random.key(0))[0], "a", rows).mean(0)) for t in (wide, narrow)]  # fmt: skip
    assert means[0] < 0.3 and means[1] > 0.9


@pytest.mark.parametrize(("wrong", "said"), [({"scale": 0.0}, "scale=0.0"), ({"encoders": {"a": Dense()}}, "two modalities")])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong, said):
    settings = {"encoders": ENCODERS, "objectives": {}} | wrong
    with pytest.raises(UserError, match=said):
        Towers(**settings).validate()
