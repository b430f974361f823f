"""The pair loss against slow float64 loops, gradients included; and that nothing it is given makes it NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.objectives.contrastive.nway import all_pairs, fused_to_hidden
from mm.objectives.contrastive.pair import (
    debiased,
    decoupled,
    hinge,
    pair_loss,
    reverse_kl,
    sigmoid,
    softmax,
)

REDUCTIONS = {
    "softmax": softmax,
    "reverse_kl": reverse_kl(1e-6),
    "sigmoid": sigmoid,
    "hinge": hinge(0.5),
    "hardest": hinge(0.5, hardest=True),
    "decoupled": decoupled,
    "debiased": debiased(0.1, 0.5, temperature=0.5),
}


jitted = jax.jit(
    pair_loss, static_argnames="reduction"
)  # op by op each would be compiled on its own


def slow_row(name, x, t, w):
    """One row's loss over what is there (float64 arrays), or None where it does not count."""
    if name == "sigmoid":
        return np.sum(w * np.log1p(np.exp(np.where(t > 0, -x, x))))
    if t.sum() == 0:
        return None
    q, negative = t / t.sum(), t == 0
    positive = (q * x).sum()
    if name == "softmax":
        return -(q * (x - np.log((w * np.exp(x)).sum()))).sum()
    if name == "reverse_kl":
        p = np.exp(x) / (w * np.exp(x)).sum()
        return (p * (np.log(p) - np.log(q + 1e-6))).sum()
    if name in ("hinge", "hardest"):
        cost = np.maximum(0.5 - positive + x[negative], 0) * w[negative]
        return cost.max(initial=0) if name == "hardest" else cost.sum()
    if not negative.any():
        return None
    x, w = x[negative], w[negative]
    if name == "decoupled":
        return -positive + np.log((w * np.exp(x)).sum())
    n, prior = len(x), 0.1
    hard = np.exp(0.5 * x) / np.mean(w * np.exp(0.5 * x))
    rest = (-prior * n * np.exp(positive) + (w * hard * np.exp(x)).sum()) / (1 - prior)
    return -np.log(np.exp(positive) / (np.exp(positive) + max(rest, n * np.exp(-2))))


def slow_pair(x_ab, t_ab, mask_a, mask_b, name="softmax", x_ba=None, allowed=None, weight=None, banks=(None, None)):  # fmt: skip
    """Both directions, row by row."""
    x_ab, t_ab = np.asarray(x_ab, np.float64), np.asarray(t_ab, np.float64)
    there = mask_a[:, None] & mask_b & (True if allowed is None else allowed)
    weight = np.ones_like(x_ab) if weight is None else weight
    back = x_ab.T if x_ba is None else x_ba
    total, count = 0.0, 0
    for x, t, e, w, rows, bank in (
        (x_ab, t_ab, there, weight, mask_a, banks[0]),
        (back, t_ab.T, there.T, weight.T, mask_b, banks[1]),
    ):
        for i in np.flatnonzero(rows):
            xs, ts, ws = x[i, e[i]], t[i, e[i]], w[i, e[i]]
            if bank is not None:
                more = len(bank[i])
                xs, ts, ws = np.r_[xs, bank[i]], np.r_[ts, np.zeros(more)], np.r_[ws, np.ones(more)]
            found = slow_row(name, xs, ts, ws) if len(xs) else None
            total, count = total + (found or 0), count + (found is not None)
    return total / 2, count / 2


def draw(seed, rows=7, columns=9, soft=False, absent=0.3):
    """Arguments of a pair loss with everything that it takes."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, rows), rng.integers(0, 4, columns)
    target = (group[0][:, None] == group[1]).astype(float)
    if soft:
        target *= rng.random(target.shape)
    args = rng.normal(size=(rows, columns)) * 3, target, rng.random(rows) >= absent, rng.random(columns) >= absent  # fmt: skip
    more = {
        "x_ba": rng.normal(size=(columns, rows)),
        "allowed": rng.random((rows, columns)) < 0.8,
        "weight": rng.random((rows, columns)) + 0.1,
        "banks": (rng.normal(size=(rows, 4)), rng.normal(size=(columns, 3))),
    }
    return args, more


def call(args, more, reduction):
    named = {
        "logits_ba": more.get("x_ba"), "allowed_ab": more.get("allowed"), "weight_ab": more.get("weight"),
        "bank_a": more.get("banks", (None, None))[0], "bank_b": more.get("banks", (None, None))[1],
    }  # fmt: skip
    as_jax = lambda x: (
        None if x is None else jnp.asarray(x, None if x.dtype == bool else jnp.float32)
    )
    return jitted(*map(as_jax, args), **{k: as_jax(v) for k, v in named.items()}, reduction=reduction)  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("options", [(), ("x_ba",), ("allowed",), ("weight",), ("banks",), ("x_ba", "allowed", "weight", "banks")])  # fmt: skip
def test_equals_the_loop(name, options):
    args, more = draw(len(options), soft=len(options) % 2 == 0)
    more = {k: more[k] for k in options}
    np.testing.assert_allclose(
        call(args, more, REDUCTIONS[name]), slow_pair(*args, name, **more), rtol=2e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradient_equals_finite_differences(name):
    args, more = draw(5)
    grad = jax.grad(lambda x: call((x, *args[1:]), {"allowed": more["allowed"]}, REDUCTIONS[name])[0])(jnp.asarray(args[0], jnp.float32))  # fmt: skip
    for i, j in np.ndindex(3, 4):
        step = np.zeros_like(args[0])
        step[i, j] = 1e-5
        up, down = (
            slow_pair(args[0] + s, *args[1:], name, allowed=more["allowed"])[0]
            for s in (step, -step)
        )
        np.testing.assert_allclose(grad[i, j], (up - down) / 2e-5, atol=2e-4)


def test_identity_positives_are_infonce():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)))
    eye, all_there = jnp.eye(8, dtype=bool), jnp.ones(8, bool)
    total, count = pair_loss(logits, eye, all_there, all_there)
    rows = -jnp.diag(jax.nn.log_softmax(logits)).mean()
    columns = -jnp.diag(jax.nn.log_softmax(logits.T)).mean()
    np.testing.assert_allclose(total / count, (rows + columns) / 2, rtol=1e-5)


def test_reverse_kl_of_the_identity_in_closed_form():
    """-H(p) + 18.4 (1 - p_ii) at eps 1e-8: not InfoNCE up to constants."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6)), jnp.float32)
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    expected = (p * np.log(p)).sum(1) - np.log(1e-8) * (1 - np.diag(p))
    eye = jnp.eye(6)
    row, counted = reverse_kl(1e-8)(logits, eye, jnp.ones((6, 6), bool), jnp.ones((6, 6)))
    np.testing.assert_allclose(row, expected, rtol=1e-4)
    assert counted.all()


def test_one_column_of_k_positives_is_infonce_at_one():
    """1-to-K: B rows against B K columns, K positives each; at K = 1 the same as InfoNCE."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(5, 15)), jnp.float32)
    target = jnp.repeat(jnp.eye(5), 3, axis=1)
    there = jnp.ones(5, bool), jnp.ones(15, bool)
    log_p = np.log(np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum(1, keepdims=True))
    rows = -(log_p * target).sum(1) / 3
    back = np.float64(logits).T
    back = back - np.log(np.exp(back).sum(1, keepdims=True))
    expected = (rows.sum() - back[np.arange(15), np.arange(15) // 3].sum()) / 2
    np.testing.assert_allclose(pair_loss(logits, target, *there)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", REDUCTIONS)
@settings(max_examples=50)
@given(data=st.data())
def test_nothing_makes_it_nan(name, data):
    """Absent modalities, empty rows, huge logits, bfloat16, one row: value and gradient stay finite."""
    rows, columns = data.draw(st.sampled_from([(1, 1), (3, 2), (4, 4)]))
    (x, target, mask_a, mask_b), more = draw(data.draw(st.integers(0, 99)), rows, columns)
    x = x * data.draw(st.sampled_from([0.0, 1.0, 1e4]))
    if data.draw(st.booleans()):
        mask_a[:] = False
    if data.draw(st.booleans()):
        target[0] = 0
    x = jnp.asarray(x, data.draw(st.sampled_from([jnp.float32, jnp.bfloat16])))
    x = jnp.where(jnp.asarray(mask_a)[:, None], x, jnp.nan)  # what is absent may be anything
    named = {"allowed_ab": jnp.asarray(more["allowed"]), "weight_ab": jnp.asarray(more["weight"])}

    def loss(x):
        total, count = jitted(
            x, jnp.asarray(target), jnp.asarray(mask_a), jnp.asarray(mask_b),
            logits_ba=jnp.nan_to_num(x.T), **named, reduction=REDUCTIONS[name],
        )  # fmt: skip
        return total, count

    (total, count), grad = jax.value_and_grad(loss, has_aux=True)(x)
    assert np.isfinite(total) and np.isfinite(np.float32(grad)).all()
    if not mask_a.any():
        assert total == 0 and count == 0


def test_absent_rows_give_no_gradient():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4)), jnp.float32)
    there = jnp.asarray([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0]], bool)

    def loss(z):
        total, count = all_pairs(z, there, jnp.eye(6, dtype=bool), jnp.asarray(30.0))
        return total / count

    grad = jax.grad(loss)(z)
    assert (grad[0, 4:] == 0).all() and (grad[1, 3] == 0).all() and (grad[1, 5] == 0).all()


def test_fused_counts_only_rows_that_saw_nothing_of_the_modality():
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(3, 6, 4)), jnp.float32)
    fused = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    hidden = rng.random((3, 6)) < 0.5
    there = np.ones((3, 6), bool)
    group = np.array([0, 0, 1, 1, 2, 2])
    same = group[:, None] == group
    found = fused_to_hidden(
        fused, z, jnp.asarray(hidden), jnp.asarray(there), jnp.asarray(same), jnp.asarray(2.0)
    )
    each = [slow_pair(2.0 * fused @ z[m].T, same, hidden[m], there[m]) for m in range(3)]
    np.testing.assert_allclose(found, np.sum(each, axis=0), rtol=1e-5)
