"""Finite scalar quantization: each feature rounded to a few levels; nothing to learn, nothing to collapse."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from mm.tokenizers.quantizers.base import Buffers, Quantized, Quantizer, straight_through


@dataclasses.dataclass(kw_only=True, slots=True)
class FSQ(Quantizer):
    """The lattice of a few levels per feature.

    Attributes:
      levels: per feature, how many values it may take; their product is the number of codes.

    Source: Mentzer et al. 2023, section 3 and its appendix A.1.
    """

    levels: tuple[int, ...] = (8, 8, 8)

    @property
    def codes(self) -> int:
        return math.prod(self.levels)

    @property
    def width(self) -> int:
        return len(self.levels)

    @property
    def half(self) -> np.ndarray:
        """float32[d], what a vector's features are multiplied with to count levels from the middle one."""
        return np.array([n // 2 for n in self.levels], np.float32)

    def bound(self, z: jax.Array) -> jax.Array:
        """z -> vectors whose rounding has `levels` outcomes; an even number of levels needs half a step of shift."""
        levels = jnp.array(self.levels, z.dtype)
        # a little more, so that the outermost levels are reached
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = jnp.where(levels % 2 == 0, 0.5, 0.0)
        return (jnp.tanh(z + jnp.arctanh(offset / half)) * half - offset) / self.half

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., len(levels)]; vectors lie in [-1, 1]."""
        bounded = self.bound(z)
        ids = self.ids_of(buffers, jax.lax.stop_gradient(bounded))
        return Quantized(ids, straight_through(bounded, self.lookup(buffers, ids)), bounded)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[...] -> vectors float32[..., len(levels)]."""
        return (digits(ids, self.levels) - self.half) / self.half

    def ids_of(self, buffers: Buffers, vectors: jax.Array) -> jax.Array:
        """The nearest of the lattice: float32[..., len(levels)] -> int32[...]."""
        return number(jnp.round(vectors * self.half) + self.half, self.levels)


def digits(ids: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """ids int32[...] -> int32[..., d], their digits in the mixed base `levels`, the first the lowest."""
    bases = np.array([math.prod(levels[:i]) for i in range(len(levels))], np.int32)
    return (ids[..., None] // bases) % np.array(levels, np.int32)


def number(found: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """The inverse of `digits`, of whole numbers; what is beyond the ends counts as the ends."""
    bases = np.array([math.prod(levels[:i]) for i in range(len(levels))], np.int32)
    whole = jnp.clip(found, 0, np.array(levels) - 1).astype(jnp.int32)
    return (whole * bases).sum(-1, dtype=jnp.int32)
