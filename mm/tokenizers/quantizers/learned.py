"""Codebooks that are trained by gradients: the first form of vector quantization, and that of a linear layer over a
fixed table."""

import dataclasses

import jax
import jax.numpy as jnp

from mm.tasks import Terms
from mm.tokenizers.quantizers.base import (
    Buffers,
    Quantized,
    Quantizer,
    code_terms,
    rotated,
    straight_through,
)
from mm.tokenizers.quantizers.vector import quantize


@dataclasses.dataclass(kw_only=True, slots=True)
class LearnedQuantizer(Quantizer):
    """The nearest code; codes are pulled to their latents by the gradient of the term `codebook`.

    Codes that no latent chooses never move: this form loses most of a large codebook (docs/papers.md).
    `VectorQuantizer` does not.

    Attributes:
      codes: size K of the codebook. width: features of a latent and of a code.
      linear: the codebook is a fixed normal table times a learned matrix, so that what one code learns moves all (SimVQ).
      rotate: see `VectorQuantizer`.

    Source: van den Oord et al. 2017, equation 3; Zhu et al. 2024 (SimVQ).
    """

    codes: int = 512
    width: int = 16
    linear: bool = False
    rotate: bool = False

    @property
    def learned(self) -> frozenset[str]:
        return frozenset({"matrix"} if self.linear else {"codebook"})

    def init(self, key: jax.Array) -> Buffers:
        """A codebook within +-1 / K, as the first form had it; with `linear` a normal one and the unit matrix."""
        shape = (self.codes, self.width)
        if self.linear:
            table = jax.random.normal(key, shape) * self.width**-0.5
            return {"fixed": table, "matrix": jnp.eye(self.width)}
        bound = 1 / self.codes
        return {"codebook": jax.random.uniform(key, shape, minval=-bound, maxval=bound)}

    def _codebook(self, buffers: Buffers) -> jax.Array:
        if self.linear:
            return jax.lax.stop_gradient(buffers["fixed"]) @ buffers["matrix"]
        return buffers["codebook"]

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., d]."""
        ids, vectors = quantize(z, self._codebook(buffers))
        return Quantized(ids, (rotated if self.rotate else straight_through)(z, vectors), z)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[...] -> vectors float32[..., d]."""
        return self._codebook(buffers)[ids]

    def terms(self, buffers: Buffers, quantized: Quantized) -> Terms:
        """`codebook` and `commitment`: squared distance of a latent to its code, mean over features, which moves the
        code or the latent; `usage` and `perplexity`."""
        vectors, z = self.lookup(buffers, quantized.ids), quantized.latents
        moves_code = jnp.square(vectors - jax.lax.stop_gradient(z))
        moves_latent = jnp.square(jax.lax.stop_gradient(vectors) - z)
        return {
            "codebook": (moves_code.sum(), jnp.float32(z.size)),
            "commitment": (moves_latent.sum(), jnp.float32(z.size)),
        } | code_terms(quantized.ids, self.codes)
