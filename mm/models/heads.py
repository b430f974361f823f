"""Networks on top of towers: settings with `build(modalities, width, rngs) -> module`, what `Towers.head` takes."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from mm.models.layers import unit
from mm.models.towers import Dense
from mm.objectives.contrastive.gated import gated_products, gates
from mm.objectives.contrastive.similarity import code_weights


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
    """See `Fusion`: unit [M, B, E] and bool[M] or bool[M, B], which of them it is given -> unit float32[B, E]."""

    def __init__(self, settings: Fusion, modalities: int, width: int, *, rngs: nnx.Rngs):
        self.absent = nnx.Param(jax.random.normal(rngs.params(), (modalities, width)) / width**0.5)
        dense = Dense(hidden=settings.hidden)
        self.dense = dense.build((modalities, width), width, rngs)

    def __call__(self, z_mbe: jax.Array, given: jax.Array) -> jax.Array:
        given = given.reshape(*given.shape, *[1] * (3 - given.ndim))
        x = jnp.where(given, z_mbe, self.absent[...][:, None])
        return unit(self.dense(jnp.moveaxis(x, 0, 1)))

    def states(self, z_mbe: jax.Array, given: jax.Array) -> list[jax.Array]:
        """The one vector."""
        return [self(z_mbe, given)]


@dataclasses.dataclass(kw_only=True, slots=True)
class Chain:
    """A state that one modality after the other changes by a perceptron of its own, and absent ones do not.

    Source: Swamy et al. 2023 (MultiModN).
    """

    hidden: tuple[int, ...] = (64,)

    def build(self, modalities: int, width: int, rngs: nnx.Rngs) -> "ChainNetwork":
        return ChainNetwork(self, modalities, width, rngs=rngs)


class ChainNetwork(nnx.Module):
    """See `Chain`: unit [M, B, E] and bool[M] or bool[M, B], which of them it is given -> unit float32[B, E]."""

    def __init__(self, settings: Chain, modalities: int, width: int, *, rngs: nnx.Rngs):
        self.start = nnx.Param(jax.random.normal(rngs.params(), (width,)))
        dense = Dense(hidden=settings.hidden)
        for m in range(modalities):
            setattr(self, f"step{m}", dense.build((2, width), width, rngs))

    def states(self, z_mbe: jax.Array, given: jax.Array) -> list[jax.Array]:
        """The state behind each modality, unit [B, E] each."""
        state, out = jnp.broadcast_to(self.start[...], z_mbe.shape[1:]), []
        for m, z in enumerate(z_mbe):
            change = getattr(self, f"step{m}")(jnp.concatenate([state, z], -1))
            state = state + jnp.where(given[m].reshape(-1, 1), change, 0)
            out.append(unit(state))
        return out

    def __call__(self, z_mbe: jax.Array, given: jax.Array) -> jax.Array:
        return self.states(z_mbe, given)[-1]


@dataclasses.dataclass(kw_only=True, slots=True)
class Codes:
    """A table of codes by which sets of tokens are described: `similarity.code_weights`.

    Attributes:
      number: of codes. sparse: sparsemax over codes, else softmax. shared: by all modalities, else each has its own table.
      start: standard deviation of codes at first. Sparsemax of large products is one code, and the rest never learn.
    """

    number: int = 64
    start: float = 1.0
    sparse: bool = True
    shared: bool = True

    def build(self, modalities: int, width: int, rngs: nnx.Rngs) -> "CodesNetwork":
        return CodesNetwork(self, modalities, width, rngs=rngs)


class CodesNetwork(nnx.Module):
    """See `Codes`: (modality, tokens [B, N, width], bool[B, N]) -> weights float32[B, K], and unit [B, width], the codes' sum."""

    def __init__(self, settings: Codes, modalities: int, width: int, *, rngs: nnx.Rngs):
        self.settings = settings
        shape = (1 if settings.shared else modalities, settings.number, width)
        self.tables = nnx.Param(settings.start * jax.random.normal(rngs.params(), shape))

    def table(self, modality: int) -> jax.Array:
        """[K, width]."""
        return self.tables[...][0 if self.settings.shared else modality]

    def __call__(
        self, modality: int, tokens: jax.Array, there: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        codes = self.table(modality)
        weights = code_weights(tokens, there, codes, self.settings.sparse)
        return weights, unit(weights @ codes)
