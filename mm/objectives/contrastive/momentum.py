"""Teachers that follow their students: moving averages, queues, and what a student learns from them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mm.objectives.contrastive.pair import log_sum


def follow(teacher: Any, student: Any, rate: float) -> Any:
    """The teacher's parameters after a step: rate x its own + (1 - rate) x the student's.

    Source: Tarvainen and Valpola 2017; He et al. 2020 (MoCo).
    """
    return optax.incremental_update(jax.lax.stop_gradient(student), teacher, 1 - rate)


def predicted(
    prediction: jax.Array, teacher: jax.Array, there: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """2 - 2 cos(prediction, teacher): no negatives, so gradients of parts of a batch add up to the whole's.

    Args:
      prediction: unit [B, E], of a head on the student. teacher: unit [B, E]; gets no gradient. there: bool[B].

    Source: Grill et al. 2020 (BYOL).
    """
    cosine = (prediction * jax.lax.stop_gradient(teacher)).astype(jnp.float32).sum(1)
    return jnp.where(there, 2 - 2 * cosine, 0).sum(), there.sum().astype(jnp.float32)


def queue(size: int, width: int) -> dict[str, jax.Array]:
    """An empty queue of embeddings, to be kept in buffers."""
    return {
        "rows": jnp.zeros((size, width)),
        "filled": jnp.zeros(size, bool),
        "next": jnp.zeros((), jnp.int32),
    }


def pushed(queue: dict[str, jax.Array], rows: jax.Array) -> dict[str, jax.Array]:
    """The queue with `rows` [B, E] in the place of its oldest. Source: He et al. 2020 (MoCo)."""
    size = len(queue["rows"])
    place = (queue["next"] + jnp.arange(len(rows))) % size
    return {
        "rows": queue["rows"].at[place].set(jax.lax.stop_gradient(rows)),
        "filled": queue["filled"].at[place].set(True),
        "next": (queue["next"] + len(rows)) % size,
    }


def softened(target: jax.Array, teacher_logits: jax.Array, share: float) -> jax.Array:
    """Targets of which `share` is what the teacher believes: [A, C], rows sum to 1; it gets no gradient.

    Source: Li et al. 2021 (ALBEF: momentum distillation).
    """
    hard = target / jnp.maximum(target.sum(1, keepdims=True), 1e-12)
    soft = jax.nn.softmax(jax.lax.stop_gradient(teacher_logits).astype(jnp.float32), axis=1)
    return (1 - share) * hard + share * soft


def off_diagonal(student: jax.Array, teacher: jax.Array) -> tuple[jax.Array, jax.Array]:
    """KL(teacher || student) over the negatives alone: who resembles whom, whoever the positive is.

    Args:
      student, teacher: logits [B, B]; the teacher's get no gradient.

    Source: Ni et al. 2023 (Mod-X).
    """
    others = ~jnp.eye(len(student), dtype=bool)
    log_p = lambda x: x - log_sum(x, others)[:, None]
    teacher = log_p(jax.lax.stop_gradient(teacher).astype(jnp.float32))
    student = log_p(student.astype(jnp.float32))
    row = jnp.where(others, jnp.exp(teacher) * (teacher - student), 0).sum(1)
    return row.sum(), jnp.asarray(float(len(student)))


def boosted(
    student: jax.Array, anchor: jax.Array, margin: float, relative: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Hinge of a branch that must do better than an anchor branch by a margin; the hardest negative of each row and column.

    Relative: its (positive - negative) is to exceed the anchor's. Absolute: its positive is to be above the anchor's, and its
    negative below.

    Args:
      student, anchor: scores [B, B], positives on the diagonal; the anchor's get no gradient.

    Source: Diao et al. 2024 (DBL), with hinges of equal weight.
    """
    own = jnp.eye(len(student), dtype=bool)

    def direction(student: jax.Array, anchor: jax.Array) -> jax.Array:
        better = jnp.diagonal(student - anchor)[:, None]
        nearer = student - anchor
        if relative:
            cost = jax.nn.relu(margin + nearer - better)
        else:
            cost = jax.nn.relu(margin - better) + jax.nn.relu(margin + nearer)
        return jnp.where(own, 0, cost).max(1).sum()

    student, anchor = student.astype(jnp.float32), jax.lax.stop_gradient(anchor.astype(jnp.float32))
    both = direction(student, anchor) + direction(student.T, anchor.T)
    return both / 2, jnp.float32(len(student))
