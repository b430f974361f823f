"""Teachers: who moves, who learns from whom, and what adds up over parts of a batch."""

import jax
import jax.numpy as jnp
import numpy as np

from mm.objectives.contrastive import momentum
from mm.objectives.contrastive.pair import pair_loss


def unit(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)


def test_a_teacher_follows_geometrically():
    teacher, student = {"w": jnp.zeros(3)}, {"w": jnp.ones(3)}
    for _ in range(10):
        teacher = momentum.follow(teacher, student, 0.9)
    np.testing.assert_allclose(teacher["w"], 1 - 0.9**10, rtol=1e-5)


def test_prediction_accumulates_exactly_and_infonce_does_not():
    """Sums over 8 parts of a batch have the whole's gradient; the pair loss of parts misses negatives."""
    w, x, teacher = unit(6, 6), unit(16, 6, seed=1), unit(16, 6, seed=2)
    there = jnp.ones(16, bool)

    def predict(w, part):
        z = x[part] @ w
        z /= jnp.linalg.norm(z, axis=1, keepdims=True)
        return momentum.predicted(z, teacher[part], there[part])[0]

    def contrast(w, part):
        z = x[part] @ w
        return pair_loss(5 * z @ teacher[part].T, jnp.eye(len(z)), there[part], there[part])[0]

    parts = [slice(i, i + 2) for i in range(0, 16, 2)]
    for loss, equal in ((predict, True), (contrast, False)):
        whole = jax.grad(loss)(w, slice(0, 16))
        summed = sum(jax.grad(loss)(w, part) for part in parts)
        assert (np.abs(whole - summed).max() < 1e-5) == equal


def test_teachers_get_no_gradient():
    x, y = unit(5, 4), unit(5, 4, seed=1)
    losses = (
        lambda t: momentum.predicted(x, t, jnp.ones(5, bool))[0],
        lambda t: momentum.off_diagonal(x @ y.T, x @ t.T)[0],
        lambda t: (momentum.softened(jnp.eye(5), x @ t.T, 0.5) ** 2).sum(),
    )
    for loss in losses:
        assert (jax.grad(loss)(y) == 0).all()


def test_a_queue_forgets_the_oldest():
    queue = momentum.queue(5, 2)
    for start in (0, 3, 6):
        queue = momentum.pushed(queue, jnp.arange(start, start + 3.0)[:, None] * jnp.ones((1, 2)))
        assert int(queue["filled"].sum()) == min(start + 3, 5)
    assert sorted(np.asarray(queue["rows"])[:, 0]) == [4, 5, 6, 7, 8]


def test_off_diagonal_ignores_the_positives():
    student, teacher = unit(6, 6), unit(6, 6, seed=1)
    total, count = momentum.off_diagonal(student, teacher)
    expected = 0.0
    for i in range(6):
        others = [j for j in range(6) if j != i]
        p, q = (np.exp(np.float64(x[i, jnp.array(others)])) for x in (teacher, student))
        p, q = p / p.sum(), q / q.sum()
        expected += (p * np.log(p / q)).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    moved = momentum.off_diagonal(student + 3 * jnp.eye(6), teacher - jnp.eye(6))
    np.testing.assert_allclose(moved[0], total, rtol=1e-5)
    assert count == 6


def test_softened_targets_are_distributions():
    target = momentum.softened(jnp.asarray([[1.0, 1, 0], [0, 0, 1]]), jnp.zeros((2, 3)), 0.3)
    np.testing.assert_allclose(target, [[0.45, 0.45, 0.1], [0.1, 0.1, 0.8]], rtol=1e-5)
