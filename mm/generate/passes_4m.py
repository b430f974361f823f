"""What the passes of 4M's sampler see: all that is known, and for guidance also less than that.

The passes of a step are rows of one batch, first the one without the guided conditions, then those with them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mm import space as spaces
from mm.generate.plan_4m import Step
from mm.objectives.packing_4m import Buffer, packed
from mm.space import Modality, TokenSpace, View

Tokens = tuple[np.ndarray, np.ndarray]
"""(ids int32[n, size], length int32[n]) of one modality; (values float[n, size, features], length) of a dense one."""
SENTINELS = range(4, 204)
"""Ids of [S_0], [S_1], ... in 4M's vocabulary of texts; [S_1] is the first in use."""
HOLE = -1
"""The id of an image's token that is not known."""


class Passes(NamedTuple):
    """The conditions of one pass, or of several, which are rows of one batch: first without the guided ones, then with.

    Attributes:
      weights: of the passes behind the first; empty = one pass, without guidance.
    """

    conditions: dict[str, Buffer]
    weights: tuple[float, ...]

    def of_each(self, x: Any) -> Any:
        """The same rows for every pass."""
        return jax.tree.map(lambda a: jnp.concatenate([a] * (1 + len(self.weights))), x)

    def combined(self, logits: jax.Array) -> jax.Array:
        """l_u + sum of w_i (l_i - l_u): [P * B, ...] -> [B, ...]."""
        if not self.weights:
            return logits
        without, *others = jnp.split(logits, 1 + len(self.weights))
        pairs = zip(self.weights, others, strict=True)
        return without + sum(w * (other - without) for w, other in pairs)


def passes_of(
    space: TokenSpace, step: Step, known: Mapping[str, tuple[Any, Any]], sentinels: range
) -> Passes:
    """What each pass sees of the conditions."""
    whole = {name: seen(space[name], *given) for name, given in known.items()}
    if step.guidance == 1.0 or not step.guided:
        return Passes(whole, ())
    if isinstance(step.guidance, tuple):
        weights, groups = step.guidance, [(name,) for name in step.guided]
    else:
        weights, groups = (step.guidance,), [step.guided]
    without = whole | {name: emptied(space[name], whole[name], sentinels) for name in step.guided}
    views = [without, *(without | {n: whole[n] for n in group} for group in groups)]
    return Passes(jax.tree.map(lambda *x: jnp.concatenate(x), *views), weights)


def seen(m: Modality, said: jax.Array, length: jax.Array) -> Buffer:
    """All that is known of a modality, to the encoder."""
    there = jnp.arange(m.size) < length[:, None]
    if m.vocabulary is not None:
        there, said = there & (said >= 0), jnp.maximum(said, 0)
    return Buffer(said, there, jnp.zeros_like(there))


def emptied(m: Modality, buffer: Buffer, sentinels: range) -> Buffer:
    """What a pass sees that is not given a condition: nothing of an image, [S_1] of a text, of embeddings one zero."""
    first = jnp.broadcast_to(jnp.arange(m.size) == 0, buffer.seen.shape)
    if isinstance(m.layout, spaces.Sequence):
        return buffer._replace(ids=jnp.full_like(buffer.ids, sentinels[1]), seen=first)
    if isinstance(m.layout, spaces.Dense) and m.layout.grid is None:
        return buffer._replace(ids=jnp.zeros_like(buffer.ids), seen=first)
    return buffer._replace(seen=jnp.zeros_like(buffer.seen))


def views_of(
    space: TokenSpace, passes: Passes, own: Buffer, name: str, slots: int, read: int | None = None
) -> tuple[View, View]:
    """What the encoder reads in each pass, and `slots` queries of the target.

    Args:
      read: tokens of the target that are known at most; None = all of them may be.
    """
    buffers = {**passes.conditions, name: passes.of_each(own)}
    sizes = {n: space[n].size for n in buffers if space[n].seen}
    if name in sizes and read is not None:
        sizes[name] = read
    room = max(sum(sizes.values()), 1)
    return packed(buffers, space, room, slots)
