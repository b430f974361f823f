"""The pair loss of large batches: no array of all products exists, on one device or many.

Each device holds its own rows and passes its columns on around a ring; of what it gets it looks at one block of columns
at a time, and forgets the products until the gradient needs them. Sums over columns are kept per row.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mm import sharding
from mm.objectives.contrastive.pair import LOWEST, nonzero

Form = Literal["softmax", "sigmoid"]


class Side(NamedTuple):
    """One modality of a batch, row by row: unit z [B, E], group int32[B], there bool[B]."""

    z: jax.Array
    group: jax.Array
    there: jax.Array


class Sums(NamedTuple):
    """Of each row float32[R] over the columns so far: the largest logit, the sum of exp(logit - that), of softplus terms,
    of the positives' logits, and how many positives there are."""

    most: jax.Array
    total: jax.Array
    cost: jax.Array
    positive: jax.Array
    number: jax.Array


def ring_pair_loss(
    a: Side, b: Side, scale: jax.Array, bias: jax.Array | float = 0.0, form: Form = "softmax", block: int = 1024
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """`pair_loss` of scale x products + bias, positives are rows of one group; in a training step over the whole mesh.

    Args:
      form: `softmax` or `sigmoid`, the reductions of these names. block: columns looked at at a time.
    """
    function = partial(_both, form=form, block=block)
    bias = jnp.asarray(bias, jnp.float32)
    return sharding.over_batch(function, (a, b), (scale.astype(jnp.float32), bias))


def _both(
    a: Side, b: Side, scale: jax.Array, bias: jax.Array, axes: sharding.Ring, *, form: Form, block: int
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    ab = _direction(a, b, scale, bias, axes, form, block)
    ba = _direction(b, a, scale, bias, axes, form, block)
    return axes.sum((ab[0] + ba[0]) / 2), axes.sum((ab[1] + ba[1]) / 2)


def _direction(
    rows: Side, columns: Side, scale: jax.Array, bias: jax.Array, axes: sharding.Ring, form: Form, block: int
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    size = math.gcd(len(columns.z), block)
    zero = jnp.zeros(len(rows.z))
    start = Sums(jnp.full_like(zero, LOWEST), zero, zero, zero, zero)
    look = jax.checkpoint(partial(_look, form=form))

    def turn(carry: tuple[Sums, Side], _: None) -> tuple[tuple[Sums, Side], None]:
        sums, held = carry
        blocks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), held)
        step: Callable[[Sums, Any], Any] = lambda s, c: (look(s, rows, c, scale, bias), None)
        return (jax.lax.scan(step, sums, blocks)[0], axes.passed_on(held)), None

    (sums, _), _ = jax.lax.scan(jax.checkpoint(turn), (start, columns), length=axes.size)
    if form == "sigmoid":
        counted = rows.there
        loss = sums.cost
    else:
        counted = rows.there & (sums.number > 0)
        log_z = sums.most + jnp.log(nonzero(sums.total))
        loss = log_z - sums.positive / nonzero(sums.number)
    return jnp.where(counted, loss, 0).sum(), counted.sum().astype(jnp.float32)


def _look(
    sums: Sums, rows: Side, columns: Side, scale: jax.Array, bias: jax.Array, *, form: Form
) -> Sums:
    """One block of columns."""
    logits = scale * (rows.z @ columns.z.T).astype(jnp.float32) + bias
    there = rows.there[:, None] & columns.there
    same = there & (rows.group[:, None] == columns.group)
    positive = sums.positive + jnp.where(same, logits, 0).sum(1)
    number = sums.number + same.sum(1)
    if form == "sigmoid":
        cost = jax.nn.softplus(jnp.where(same, -logits, logits))
        return sums._replace(cost=sums.cost + jnp.where(there, cost, 0).sum(1))
    exponents = jnp.where(there, logits, LOWEST)
    most = jax.lax.stop_gradient(jnp.maximum(sums.most, exponents.max(1)))
    new = jnp.where(there, jnp.exp(exponents - most[:, None]), 0).sum(1)
    total = sums.total * jnp.exp(jax.lax.stop_gradient(sums.most) - most) + new
    return Sums(most, total, sums.cost, positive, number)


def in_chunks(encode: Callable[[Any], jax.Array], inputs: Any, chunk: int) -> jax.Array:
    """encode(inputs) [B, ...], of which only one chunk's intermediate values exist at a time, in the gradient too.

    So a contrast of the whole batch costs the memory of `chunk` examples; its gradient is the whole batch's.

    Source: Gao et al. 2021 (GradCache).
    """
    split = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), inputs)
    out = jax.lax.map(jax.checkpoint(encode), split)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)
