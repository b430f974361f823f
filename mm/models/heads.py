"""Networks on top of towers: settings with `build(modalities, width, rngs) -> module`, what `Towers.head` takes."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from mm.models.layers import unit
from mm.models.towers import Dense
from mm.objectives.contrastive.gated import gated_products, gates


@dataclasses.dataclass(kw_only=True, slots=True)
class Gate:
    """Gates of `gated.gated_symile`: which parts of a tuple count for a candidate.

    Attributes:
      hidden: width of the attention. strength: its logit at the start; at -6 nearly all gates are open.
    """

    hidden: int = 32
    strength: float = -6.0

    def build(self, modalities: int, width: int, rngs: nnx.Rngs) -> "GateNetwork":
        return GateNetwork(self, modalities, width, rngs=rngs)


class GateNetwork(nnx.Module):
    """See `Gate`: a `gated.Score`. A closed gate puts a learned neutral vector in a modality's place."""

    def __init__(self, settings: Gate, modalities: int, width: int, *, rngs: nnx.Rngs):
        drawn = lambda *shape: nnx.Param(jax.random.normal(rngs.params(), shape))
        self.query = drawn(modalities, width, settings.hidden)
        self.key = drawn(modalities, width, settings.hidden)
        self.null = drawn(modalities, settings.hidden)
        self.neutral = nnx.Param(jnp.full((modalities, width), width**-0.5))
        self.strength = nnx.Param(jnp.asarray(settings.strength))

    def __call__(self, anchor: int, anchor_ie: jax.Array, others_kje: jax.Array) -> jax.Array:
        others = jnp.array([k for k in range(len(self.key[...])) if k != anchor])
        query = anchor_ie @ self.query[...][anchor]
        key = jnp.einsum("kje,keh->kjh", others_kje, self.key[...][others])
        gate = gates(query, key, self.null[...][anchor], jax.nn.sigmoid(self.strength[...]))
        return gated_products(anchor_ie, others_kje, gate, self.neutral[...][others])


@dataclasses.dataclass(kw_only=True, slots=True)
class Fusion:
    """One vector of any subset of the modalities' embeddings: a perceptron, a learned vector for who is absent."""

    hidden: tuple[int, ...] = (256,)

    def build(self, modalities: int, width: int, rngs: nnx.Rngs) -> "FusionNetwork":
        return FusionNetwork(self, modalities, width, rngs=rngs)


class FusionNetwork(nnx.Module):
    """See `Fusion`: unit [M, B, E] and bool[M], which of them it is given -> unit float32[B, E]."""

    def __init__(self, settings: Fusion, modalities: int, width: int, *, rngs: nnx.Rngs):
        self.absent = nnx.Param(jax.random.normal(rngs.params(), (modalities, width)) / width**0.5)
        dense = Dense(hidden=settings.hidden)
        self.dense = dense.build((modalities, width), width, rngs)

    def __call__(self, z_mbe: jax.Array, given: jax.Array) -> jax.Array:
        x = jnp.where(given[:, None, None], z_mbe, self.absent[...][:, None])
        return unit(self.dense(jnp.moveaxis(x, 0, 1)))
