"""Contrast among n modalities against slow float64 loops, n = 2 .. 5, with absent modalities and gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.objectives.contrastive import nway as module

SCALE = 3.0


STATIC = {
    "gram": ("anchor", "smoothing"),
    "symile": ("every",),
    "all_pairs": (),
    "triangle": ("anchor",),
}


class Jitted:
    """The module's functions, compiled as a whole: op by op each would be compiled on its own."""

    def __getattr__(self, name):
        return jax.jit(getattr(module, name), static_argnames=STATIC.get(name, ()))


nway = Jitted()


def draw(modalities, rows=6, width=8, seed=0, absent=0.3, dtype=jnp.float32):
    """Unit embeddings as the loss gets them, the same in float64, and who is there."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(modalities, rows, width))
    z = jnp.asarray(z / np.linalg.norm(z, axis=-1, keepdims=True), dtype)
    return z, np.asarray(z, np.float64), rng.random((modalities, rows)) >= absent


def slow_volume(vectors):
    """By the determinant of all that exist."""
    return np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0) + 1e-6)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_volumes_are_roots_of_determinants(n):
    z, slow, there = draw(n, width=16, seed=n)
    found = nway.volume(z[0], z[1:], jnp.asarray(there[1:]))
    for a, b in np.ndindex(found.shape):
        expected = slow_volume(np.stack([slow[0, a], *slow[1:, b][there[1:, b]]]))
        np.testing.assert_allclose(found[a, b], expected, rtol=2e-5)


def test_volume_of_two_is_the_sine_of_their_angle():
    z, slow, _ = draw(2)
    angle = np.arccos(slow[0] @ slow[1].T)
    np.testing.assert_allclose(
        nway.volume(z[0], z[1:], jnp.ones((1, 6), bool)), np.sin(angle), rtol=1e-4
    )


@pytest.mark.parametrize("n", [2, 4, 6])
def test_collapsed_volumes_have_finite_gradients(n):
    one = jnp.ones((n, 4, 8)) / 8**0.5
    there = jnp.ones((n, 4), bool)
    loss = lambda z: nway.gram(z, there, jnp.eye(4), jnp.asarray(20.0))[0]
    for noise in (0.0, 1e-4):
        z = one + noise * jax.random.normal(jax.random.key(0), one.shape)
        value, grad = jax.jit(jax.value_and_grad(loss))(z)
        assert np.isfinite(value) and np.isfinite(grad).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gram(smoothing):
    z, slow, there = draw(4, width=16)
    found = nway.gram(z, jnp.asarray(there), jnp.eye(6), jnp.asarray(SCALE), smoothing=smoothing)
    columns = there[1:].any(0)
    logits = np.array([
        [-SCALE * slow_volume(np.stack([slow[0, a], *slow[1:, b][there[1:, b]]])) for b in range(6)]
        for a in range(6)
    ])  # fmt: skip
    total = 0.0
    assert not there[0].all(), "some anchors are absent"
    for x, mine, them in ((logits, there[0], columns), (logits.T, columns, there[0])):
        for i in np.flatnonzero(mine & them):
            log_p = x[i] - np.log(np.exp(x[i, them]).sum())
            total -= (1 - smoothing) * log_p[i] + smoothing * log_p[them].mean()
    np.testing.assert_allclose(found[0], total / 2, rtol=1e-5)
    assert found[1] == (there[0] & columns).sum()


def test_areas_are_those_of_triangles():
    z, slow, _ = draw(3)
    found = nway.area(z[0], z[1], z[2])
    for a, b in np.ndindex(found.shape):
        u, v = slow[0, a] - slow[1, b], slow[0, a] - slow[2, b]
        expected = np.sqrt((u @ u) * (v @ v) - (u @ v) ** 2) / 2
        np.testing.assert_allclose(found[a, b], expected, atol=1e-6)
    assert np.isfinite(jax.grad(lambda z: nway.area(z[0], z[0], z[0]).sum())(z)).all()


@pytest.mark.parametrize("anchor", [0, 2])
def test_triangle(anchor):
    z, slow, there = draw(3, seed=anchor)
    found = nway.triangle(z, jnp.asarray(there), jnp.eye(6), jnp.asarray(SCALE), anchor=anchor)
    m, n = (k for k in range(3) if k != anchor)
    sides = [slow[anchor][:, None] - slow[k] for k in (m, n)]
    squares = np.prod([np.square(s).sum(-1) for s in sides], axis=0)
    logits = -SCALE * np.sqrt(squares - np.square((sides[0] * sides[1]).sum(-1))) / 2
    rows, columns = there[anchor], there[m] & there[n]
    both = np.flatnonzero(rows & columns)
    forward = [np.log(np.exp(logits[i, columns]).sum()) - logits[i, i] for i in both]
    backward = [np.log(np.exp(logits[rows, i]).sum()) - logits[i, i] for i in both]
    assert len(both)
    np.testing.assert_allclose(found[0], (sum(forward) + sum(backward)) / 2, rtol=1e-5)
    assert found[1] == len(both)


def test_tuples_in_which_two_coincide_have_neither_volume_nor_area():
    """The documented shortcut: whatever the anchor, two others that agree are enough."""
    z, _, _ = draw(2)
    pair = jnp.stack([z[1], z[1]])
    assert nway.volume(z[0], pair, jnp.ones((2, 6), bool)).max() < 2e-3
    assert nway.area(z[0], z[1], z[1]).max() < 2e-3


def slow_symile(slow, there, group, tuples_of):
    """tuples_of(m) -> the negatives' rows of the other modalities, [T, n - 1]."""
    n, size, width = slow.shape
    total, count = 0.0, 0
    for m in range(n):
        others = [k for k in range(n) if k != m]

        def logit(i, rows, m=m, others=others):
            parts = [slow[k, r] for k, r in zip(others, rows, strict=True) if there[k, r]]
            product = np.prod([slow[m, i], *parts], axis=0).sum()
            return SCALE * width ** ((len(parts) - 1) / 2) * product if parts else None

        for i in np.flatnonzero(there[m]):
            own = logit(i, [i] * (n - 1))
            if own is None:
                continue
            negatives = [
                x
                for rows in tuples_of(m)
                if not all(group[r] == group[i] for r in rows) and (x := logit(i, rows)) is not None
            ]
            total += np.log(np.exp([own, *negatives]).sum()) - own
            count += 1
    return total, count


@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_symile_with_permuted_negatives(n, absent):
    z, slow, there = draw(n, absent=absent, seed=n)
    group, key = np.array([0, 1, 2, 3, 3, 4]), jax.random.key(n)
    found = nway.symile(z, jnp.asarray(there), jnp.asarray(group), jnp.asarray(SCALE), key)

    def tuples_of(m):
        keys = jax.random.split(jax.random.fold_in(key, m), n - 1)
        return np.stack([jax.random.permutation(k, 6) for k in keys], 1)

    np.testing.assert_allclose(found, slow_symile(slow, there, group, tuples_of), rtol=1e-5)


@pytest.mark.parametrize("n", [2, 3])
def test_symile_with_every_tuple(n):
    z, slow, there = draw(n, absent=0.2)
    group = np.arange(6)
    found = nway.symile(
        z, jnp.asarray(there), jnp.asarray(group), jnp.asarray(SCALE), jax.random.key(0), every=True
    )
    every = list(itertools.product(range(6), repeat=n - 1))
    np.testing.assert_allclose(found, slow_symile(slow, there, group, lambda _: every), rtol=1e-5)


def test_symile_of_two_with_every_tuple_is_the_pair_loss():
    z, _, _ = draw(2)
    there, eye = jnp.ones((2, 6), bool), jnp.eye(6, dtype=bool)
    pair = nway.all_pairs(z, there, eye, jnp.asarray(SCALE))
    found = nway.symile(z, there, jnp.arange(6), jnp.asarray(SCALE), jax.random.key(0), every=True)
    np.testing.assert_allclose(found[0] / found[1], pair[0] / pair[1], rtol=1e-5)


def slow_views(slow, there, form):
    n, size, _ = slow.shape
    s = lambda a, i, b, j: SCALE * slow[a, i] @ slow[b, j]
    total, count = 0.0, 0
    for i in range(size):
        mine = [m for m in range(n) if there[m, i]]
        pairs = [(a, b) for a in mine for b in mine if a != b]
        if not pairs:
            continue
        if form == "infonce":
            top = sum(np.exp(s(a, i, b, i)) for a, b in pairs)
            rest = sum(
                np.exp(s(a, i, b, j))
                for a in mine for b in range(n) for j in range(size) if j != i and there[b, j]
            )  # fmt: skip
            total += np.log(top + rest) - np.log(top)
        else:
            top = np.log(sum(np.exp(s(a, i, b, i)) for a, b in pairs if a < b))
            rest = [
                np.log(sum(np.exp(s(m, i, m, j)) for j in range(size) if j != i and there[m, j]))
                for m in mine
            ]
            total += sum(rest) - top
        count += 1
    return total, count


@pytest.mark.parametrize("form", ["infonce", "dhel"])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_views(n, form):
    z, slow, there = draw(n, seed=n)
    loss = nway.mv_infonce if form == "infonce" else nway.mv_dhel
    found = loss(z, jnp.asarray(there), jnp.asarray(SCALE))
    np.testing.assert_allclose(found, slow_views(slow, there, form), rtol=1e-5)


FORMS = {
    "all_pairs": lambda z, there: nway.all_pairs(z, there, jnp.eye(z.shape[1]), jnp.asarray(50.0)),
    "symile": lambda z, there: nway.symile(
        z, there, jnp.arange(z.shape[1]), jnp.asarray(50.0), jax.random.key(0)
    ),
    "gram": lambda z, there: nway.gram(z, there, jnp.eye(z.shape[1]), jnp.asarray(50.0)),
    "mv_infonce": lambda z, there: nway.mv_infonce(z, there, jnp.asarray(50.0)),
    "mv_dhel": lambda z, there: nway.mv_dhel(z, there, jnp.asarray(50.0)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["one modality wholly absent", "nobody", "one row", "collapsed", "bfloat16"])  # fmt: skip
def test_value_and_gradient_are_finite(form, case):
    z, _, there = draw(4, rows=1 if case == "one row" else 6, dtype=jnp.bfloat16 if case == "bfloat16" else jnp.float32)  # fmt: skip
    there = jnp.asarray(there)
    if case == "one modality wholly absent":
        there = there.at[1].set(False)
    if case == "nobody":
        there = jnp.zeros_like(there)
    if case == "collapsed":
        z = jnp.broadcast_to(z[:1, :1], z.shape)
    (total, count), grad = jax.jit(
        jax.value_and_grad(lambda z: FORMS[form](z, there), has_aux=True)
    )(z)
    assert np.isfinite(total) and np.isfinite(np.float32(grad)).all()
    assert (np.float32(grad)[~np.asarray(there)] == 0).all(), "what is absent gets no gradient"
    if case == "nobody":
        assert total == 0 and count == 0


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_near_float32(form):
    z, _, there = draw(3, absent=0.0, dtype=jnp.bfloat16)
    low, _ = FORMS[form](z, jnp.asarray(there))
    high, _ = FORMS[form](z.astype(jnp.float32), jnp.asarray(there))
    np.testing.assert_allclose(low, high, rtol=0.02)


def test_one_to_k_against_a_loop_and_with_one_other_it_is_infonce():
    for n, absent in ((2, 0.0), (4, 0.4)):
        z, slow, there = draw(n, rows=5, seed=n, absent=absent)
        found = nway.one_to_k(z, jnp.asarray(there), jnp.float32(SCALE))
        texts = [(k, b) for k in range(1, n) for b in range(5) if there[k, b]]
        to_text, to_image = [], []
        score = lambda i, k, b, slow=slow: np.exp(SCALE * slow[0, i] @ slow[k, b])
        for i in range(5):
            own = [(k, b) for k, b in texts if b == i]
            if there[0, i] and own:
                total = sum(score(i, *t) for t in texts)
                to_text.append(-np.mean([np.log(score(i, *t) / total) for t in own]))
        for k, b in texts:
            if there[0, b]:
                total = sum(score(i, k, b) for i in range(5) if there[0, i])
                to_image.append(-np.log(score(b, k, b) / total))
        expected = (np.mean(to_text) + np.mean(to_image)) / 2
        np.testing.assert_allclose(found[0], expected, rtol=1e-5)
        assert found[1] == 1
    z, _, _ = draw(2, rows=5, seed=2)
    everyone = jnp.ones((2, 5), bool)
    total, count = nway.all_pairs(z, everyone, jnp.eye(5), jnp.float32(SCALE))
    found = nway.one_to_k(z, everyone, jnp.float32(SCALE))
    np.testing.assert_allclose(found[0], total / count, rtol=1e-6)
    nobody = nway.one_to_k(z, jnp.zeros((2, 5), bool), jnp.float32(SCALE))
    assert (float(nobody[0]), float(nobody[1])) == (0, 0)
