"""A teacher in the towers task: it follows, gets no gradient, and what is predicted of it adds up over parts of a batch."""

import jax
import numpy as np
import pytest

from mm.errors import UserError
from mm.models.towers import Dense
from mm.objectives.contrastive.forms_with_needs import Predicted
from mm.papers import table
from mm.tasks.towers import Towers, TowersTask

SHAPES = {"x": (5,), "y": (6,)}


def made():
    settings = Towers(
        encoders={n: Dense() for n in SHAPES}, objectives={"p": (1.0, Predicted())}, width=4,
        learned=False, teacher=0.9, predictor=Dense(),
    )  # fmt: skip
    task = TowersTask(settings, SHAPES)
    params, buffers = task.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = {n: rng.normal(size=(7, *s)).astype(np.float32) for n, s in SHAPES.items()}
    present = {n: np.ones(7, bool) for n in SHAPES}
    present["y"][3] = False
    return task, params, buffers, batch | {"group": np.arange(7), "present": present}


def test_predictions_of_every_teacher_against_a_loop():
    task, params, buffers, batch = made()
    buffers = jax.tree.map(lambda x: x + 0.3, buffers)
    run = jax.jit(lambda p, b: task.loss(p, b, batch, jax.random.key(0)))
    terms, kept = run(params, buffers)

    def dense(weights, x):
        layer = {k: np.asarray(v, np.float64) for k, v in weights["layer0"].items()}
        x = x @ layer["kernel"] + layer["bias"]
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    cost, count = 0.0, 0
    for a in SHAPES:
        asked = dense(params[f"{a}_predictor"], dense(params[a], batch[a]))
        for b in SHAPES:
            known = dense(buffers["teacher"][b], batch[b])
            for i in np.flatnonzero(batch["present"][a] & batch["present"][b]):
                cost, count = cost + 2 - 2 * asked[i] @ known[i], count + 1
    total, number = terms["contrast/p"]
    np.testing.assert_allclose(total, cost, rtol=1e-5)
    assert number == count == 25
    for n in SHAPES:
        follows = lambda t, s: 0.9 * t + 0.1 * s
        expected = jax.tree.map(follows, buffers["teacher"][n], params[n])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), kept["teacher"][n], expected)  # fmt: skip


def test_the_teacher_gets_no_gradient_and_begins_as_the_student():
    task, params, buffers, batch = made()
    jax.tree.map(np.testing.assert_array_equal, buffers["teacher"], {n: params[n] for n in SHAPES})
    loss = lambda p, b: task.loss(p, b, batch, jax.random.key(0))[0]["contrast/p"][0]
    to_student, to_teacher = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, buffers)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(to_teacher))
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(to_student))


def test_eight_parts_of_a_batch_have_the_wholes_gradient_and_infonces_do_not():
    off = table.opened("slap").accumulated(3)["gradient"]
    assert off["slap"] <= 1e-6 and off["infonce"] > 0.01


def test_a_teacher_keeps_less_than_all_of_itself():
    with pytest.raises(UserError, match=r"teacher=1\.0"):
        Towers(encoders={"a": Dense(), "b": Dense()}, objectives={}, teacher=1.0).validate()
