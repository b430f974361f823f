"""The pair loss: who is a positive of whom, against which negatives, measured how. One function for both directions."""

import jax
import jax.numpy as jnp


def pair_loss(
    logits_ab: jax.Array, positive_ab: jax.Array, mask_a: jax.Array, mask_b: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Symmetric softmax cross-entropy with any number of positives per row.

    A row's target is spread evenly over its positives among the columns that are there (label groups give
    the supervised contrastive loss; the identity gives InfoNCE). Rows without a positive, and rows and
    columns that are absent, add nothing. Negatives are global: under jit the arrays are whole batches.

    Args:
      logits_ab: [A, B], already scaled by the temperature; computed in float32.
      positive_ab: bool[A, B]. mask_a: bool[A], mask_b: bool[B], who is there.

    Returns:
      (sum over both directions' rows / 2, rows counted / 2).

    Source: van den Oord et al. 2018 (InfoNCE); Khosla et al. 2020, eq. 2 (several positives, outside the log).
    """
    logits_ab = logits_ab.astype(jnp.float32)
    sum_ab, count_ab = _direction(logits_ab, positive_ab & mask_a[:, None] & mask_b, mask_b)
    sum_ba, count_ba = _direction(logits_ab.T, (positive_ab & mask_a[:, None] & mask_b).T, mask_a)
    return (sum_ab + sum_ba) / 2, (count_ab + count_ba) / 2


def _direction(
    logits: jax.Array, positive: jax.Array, columns: jax.Array
) -> tuple[jax.Array, jax.Array]:
    log_p = jax.nn.log_softmax(jnp.where(columns, logits, jnp.finfo(jnp.float32).min), axis=1)
    number = positive.sum(1)
    row = -jnp.where(positive, log_p, 0).sum(1) / jnp.maximum(number, 1)
    counted = number > 0
    return jnp.where(counted, row, 0).sum(), counted.sum().astype(jnp.float32)
