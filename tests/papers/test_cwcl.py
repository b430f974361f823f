"""CWCL against a loop, one direction soft and one plain; and frozen features as an encoder."""

import jax
import numpy as np
import pytest

from mm.errors import UserError
from mm.models.towers import Dense, Given
from mm.objectives.contrastive.forms import Weighted
from mm.objectives.contrastive.views import Views
from mm.tasks.towers import Towers, TowersTask


def test_soft_targets_forward_plain_ones_backward():
    rng = np.random.default_rng(0)
    u, z = rng.normal(size=(2, 6, 5))
    u, z = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, z))
    there = np.ones((2, 6), bool)
    there[1, 2] = False  # a recording that is missing
    views = Views(np.stack([u, z]), there, np.arange(6), np.float32(4), {})
    total, count = jax.jit(lambda: Weighted()(views, jax.random.key(0)))()
    logits, cost = 4 * u @ z.T, 0.0
    columns = [j for j in range(6) if j != 2]
    for i in range(6):
        weight = np.array([(1 + u[i] @ u[j]) / 2 for j in columns])
        log_p = logits[i, columns] - np.log(np.exp(logits[i, columns]).sum())
        cost -= (weight / weight.sum() * log_p).sum()
    for j in columns:
        cost -= logits[j, j] - np.log(np.exp(logits[:, j]).sum())
    np.testing.assert_allclose(total, cost / 2, rtol=1e-5)
    assert count == 5.5


def test_given_rows_are_embeddings_and_have_no_parameters():
    settings = Towers(encoders={"u": Given(), "x": Dense()}, objectives={"w": (1.0, Weighted())}, width=4)  # fmt: skip
    task = TowersTask(settings, {"u": (4,), "x": (7,)})
    params, _ = task.init(jax.random.key(0))
    assert "u" not in params
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(task.embed(params, "u", rows), unit, atol=1e-6)
    with pytest.raises(UserError, match="given embeddings have 5"):
        TowersTask(settings, {"u": (5,), "x": (7,)})
