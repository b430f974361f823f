"""Turning a masked model into a sampler: reveal tokens step by step, each step re-reading all that is known.

Grids are revealed in parallel, few at first (cosine schedule); sequences one token at a time, left to right.
With as many steps as tokens and a random order this samples the model's own law exactly; choosing places by
confidence is sharper and less diverse.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mm.generate import grammar as g


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """How to sample one modality.

    Attributes:
      steps: reveals for a parallel modality (a sequence always takes one per token).
      temperature: of the tokens' softmax; 0 = the likeliest token.
      guidance: w in logits = unconditional + w (conditional - unconditional); 1 = none (and half the work).
      choice: places with the largest value are revealed first: confidence * log p(token) + Gumbel noise *
        (1 - progress); 0 = a random order.
    """

    steps: int = 16
    temperature: float = 1.0
    guidance: float = 1.0
    choice: float = 0.0


def cosine_counts(steps: int, size: int) -> jax.Array:
    """How many of `size` places are known after each step, int32[steps]; at least one more each step, all at last.

    Source: MaskGIT (Chang et al. 2022), the cosine schedule of the masked share.
    """
    steps = min(steps, size)
    t = jnp.arange(1, steps + 1) / steps
    known = jnp.floor(size * (1 - jnp.cos(jnp.pi / 2 * t)) + 1e-4).astype(jnp.int32)
    known = jnp.maximum(known, jnp.arange(1, steps + 1))
    return jnp.minimum(known, size - (steps - jnp.arange(1, steps + 1)))


def sample_tokens(
    key: jax.Array, logits: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """One token per place, and its log-probability under the logits. Gumbel-max in float32.

    Args:
      logits: float32[B, S, V].

    Returns:
      ids int32[B, S], log p float32[B, S].
    """
    noise = jax.random.gumbel(key, logits.shape) * temperature
    ids = (logits + noise).argmax(-1).astype(jnp.int32)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1)[..., 0]
    return ids, log_p


def sample_parallel(
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    ids: jax.Array,
    known: jax.Array,
    key: jax.Array,
    sampler: Sampler,
) -> jax.Array:
    """Fills the unknown places of a parallel modality.

    Args:
      predict: (ids int32[B, S], known bool[B, S]) -> logits float32[B, S, V] for all places.
      ids, known: what is given (a prompt).

    Returns:
      int32[B, S], the given places unchanged.
    """
    size = ids.shape[1]
    schedule = cosine_counts(sampler.steps, size)
    steps = len(schedule)

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        ids, known = carry
        k1, k2 = jax.random.split(jax.random.fold_in(key, i))
        drawn, log_p = sample_tokens(k1, predict(ids, known), sampler.temperature)
        noise = jax.random.gumbel(k2, log_p.shape)
        score = (
            noise if sampler.choice == 0 else sampler.choice * log_p + noise * (1 - (i + 1) / steps)
        )
        score = jnp.where(known, jnp.inf, score)
        # Rows that were given some places are ahead of the schedule and wait for it.
        rank = (score[:, None, :] > score[:, :, None]).sum(-1)
        now = known | (rank < jnp.maximum(schedule[i], known.sum(-1, keepdims=True)))
        return jnp.where(known, ids, jnp.where(now, drawn, ids)), now

    return jax.lax.fori_loop(0, steps, step, (ids, known))[0]


def sample_sequence(
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    ids: jax.Array,
    known: jax.Array,
    key: jax.Array,
    sampler: Sampler,
    grammar: g.Tables | None = None,
) -> jax.Array:
    """Fills the unknown places of a sequence from left to right; arguments as for `sample_parallel`.

    Args:
      grammar: what may come next; what is sampled then parses, unless what is given rules that out.
    """
    size = ids.shape[1]

    def step(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        ids, known, state = carry
        logits = predict(ids, known)
        if grammar is not None:
            logits = jnp.where(g.allowed(grammar, state, size - i)[:, None], logits, g.NEVER)
        drawn, _ = sample_tokens(jax.random.fold_in(key, i), logits, sampler.temperature)
        here = jnp.arange(size) == i
        ids = jnp.where(here & ~known, drawn, ids)
        if grammar is not None:
            state = g.step(grammar, state, ids[:, i])
        return ids, known | here, state

    first = jnp.zeros((len(ids), 0), jnp.int32) if grammar is None else g.start(grammar, len(ids))
    return jax.lax.fori_loop(0, size, step, (ids, known, first))[0]


def guided(conditional: jax.Array, unconditional: jax.Array, weight: float) -> jax.Array:
    """Classifier-free guidance on logits (Ho and Salimans 2022, in the form w = 1 is none)."""
    return unconditional + weight * (conditional - unconditional)
