"""Symile with gates: of each tuple only those modalities are multiplied that fit the candidate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mm.objectives.contrastive.nway import Sum
from mm.objectives.contrastive.pair import softmax

Score = Callable[[int, jax.Array, jax.Array], jax.Array]
"""(number of the anchor's modality, anchors [I, E], tuples of all others in order [K, J, E]) -> [I, J]."""


def gates(
    query_ih: jax.Array, key_kjh: jax.Array, null_h: jax.Array, strength: jax.Array
) -> jax.Array:
    """How much of each modality of tuple j counts for anchor i: float32[K, I, J].

    An anchor's attention over a tuple's K parts and a null slot, which takes what fits none of them.

    Args:
      strength: 0 = every gate is open, 1 = a gate is its share of attention.

    Source: Gated Symile (attention with a null slot, interpolated by a learned strength).
    """
    fit = jnp.einsum("ih,kjh->kij", query_ih, key_kjh)
    none = jnp.broadcast_to((query_ih @ null_h)[None, :, None], (1, *fit.shape[1:]))
    logits = jnp.concatenate([fit, none]) / query_ih.shape[-1] ** 0.5
    return 1 - strength + strength * jax.nn.softmax(logits.astype(jnp.float32), axis=0)[:-1]


def gated_products(
    anchor_ie: jax.Array, others_kje: jax.Array, gate_kij: jax.Array, neutral_ke: jax.Array
) -> jax.Array:
    """Multilinear products of anchors i and tuples j whose parts are z g + neutral (1 - g): float32[I, J].

    Multiplied out, so that no [I, J, E] array exists: 2^K matrix products.
    """
    terms = [(jnp.ones_like(others_kje[0]), jnp.ones_like(gate_kij[0]))]
    for other, gate, neutral in zip(others_kje, gate_kij, neutral_ke, strict=True):
        terms = [
            part for x, w in terms for part in ((x * other, w * gate), (x * neutral, w * (1 - gate)))
        ]  # fmt: skip
    return sum((w * (anchor_ie @ x.T) for x, w in terms), jnp.zeros(gate_kij.shape[1:]))


def gated_symile(
    z_mbe: jax.Array, there: jax.Array, group: jax.Array, scale: jax.Array, key: jax.Array, score: Score
) -> Sum:  # fmt: skip
    """`nway.symile` (n form) with the tuples scored by `score`. Only whole tuples count.

    Args:
      z_mbe, there, group, scale: see `nway.symile`.
    """
    number, size, width = z_mbe.shape
    scale = scale * width ** ((number - 2) / 2)
    total, count = jnp.zeros(()), jnp.zeros(())
    for m in range(number):
        others = jnp.array([k for k in range(number) if k != m])
        keys = jax.random.split(jax.random.fold_in(key, m), number - 1)
        rows = jnp.stack([jax.random.permutation(k, size) for k in keys])
        hit = (group[rows][:, None] == group[:, None]).all(0)
        whole = jnp.take_along_axis(there[others], rows, 1).all(0)
        positive = jnp.diagonal(score(m, z_mbe[m], z_mbe[others]))
        negative = score(m, z_mbe[m], jnp.take_along_axis(z_mbe[others], rows[..., None], 1))
        logits = scale * jnp.concatenate([positive[:, None], negative], 1).astype(jnp.float32)
        usable = jnp.concatenate([jnp.ones((size, 1), bool), whole & ~hit], 1)
        target = jnp.zeros_like(logits).at[:, 0].set(1.0)
        loss, counted = softmax(jnp.where(usable, logits, 0), target, usable, jnp.ones_like(logits))
        counted &= there.all(0)
        total, count = total + jnp.where(counted, loss, 0).sum(), count + counted.sum()
    return total, count.astype(jnp.float32)
