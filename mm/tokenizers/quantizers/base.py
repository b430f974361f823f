"""What a quantizer is, and the gradients and figures that all share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mm.tasks import Terms

Buffers = dict[str, Any]
"""Arrays by name: those that training moves without gradients, and those that are `learned` by them."""


class Quantized(NamedTuple):
    """What quantization makes of latents.

    Attributes:
      ids: int32[...], one code per latent; int32[..., m] of a quantizer that writes m codes for each. An id of
        `codes`, one too many, is no code: while training a quantizer may leave some out.
      vectors: float32[..., d], what the codes stand for; gradients pass through to the latents.
      latents: float32[..., d], the latents as they were compared with the codes (normalised or bounded);
        float32[..., m, d'] where each of m codes has its own.
    """

    ids: jax.Array
    vectors: jax.Array
    latents: jax.Array


class Quantizer:
    """The bottleneck of an autoencoder: latents float32[..., d] <-> codes. Subclasses are dataclasses, their settings.

    What is said here holds for those that keep no statistics and learn nothing.
    """

    __slots__ = ()

    @property
    def codes(self) -> int:
        """How many there are: the vocabulary's size."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Features of a latent."""
        raise NotImplementedError

    @property
    def per_latent(self) -> int:
        """Codes of a latent, m."""
        return 1

    @property
    def learned(self) -> frozenset[str]:
        """Which of `init`'s arrays are trained by gradients, as the network's weights are."""
        return frozenset()

    def validate(self) -> None:
        """Raises UserError for settings that make no sense."""

    def init(self, key: jax.Array) -> Buffers:
        """Fresh arrays."""
        return {}

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., d].

        Args:
          key: of a training step, in which a quantizer may choose at random.
        """
        raise NotImplementedError

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids -> vectors float32[..., d]."""
        raise NotImplementedError

    def ids_of(self, buffers: Buffers, vectors: jax.Array) -> jax.Array:
        """The inverse of `lookup`: vectors of codes float32[..., d] -> ids."""
        return self.quantize(buffers, vectors).ids

    def update(self, buffers: Buffers, quantized: Quantized, key: jax.Array) -> Buffers:
        """Buffers after a training step on this batch; what is learned stays as it is."""
        return buffers

    def terms(self, buffers: Buffers, quantized: Quantized) -> Terms:
        """Terms of the loss, and the metrics `usage` and `perplexity` of the batch."""
        return code_terms(quantized.ids, self.codes)

    def table(self, buffers: Buffers) -> jax.Array | None:
        """The vector of every code, float32[codes, d], so that a model's like tokens may begin alike.

        None where codes are mere names.
        """
        return self.lookup(buffers, jnp.arange(self.codes))


def normalise(x: jax.Array) -> jax.Array:
    """Rows of unit length; a zero row stays zero and has a finite gradient."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)


def straight_through(z: jax.Array, vectors: jax.Array) -> jax.Array:
    """`vectors` in the forward pass, the gradient of `z` in the backward pass."""
    return z + jax.lax.stop_gradient(vectors - z)


def rotated(z: jax.Array, vectors: jax.Array) -> jax.Array:
    """`vectors` in the forward pass; in the backward pass the gradient turns and grows as `z` must, to become `vectors`.

    vectors = |e| / |z| R z with R the rotation in the plane of both. R and the factor count as constants, so the angle
    between the gradient and a latent is that between the gradient and its code.

    Args:
      z: float32[..., d]. vectors: float32[..., d].

    Source: Fifty et al. 2024, "Restructuring vector quantization with the rotation trick", equations 4 and 5.
    """
    fixed, e = jax.lax.stop_gradient((z, vectors))
    length = lambda x: jnp.sqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)
    z_hat, e_hat = fixed / length(fixed), e / length(e)
    r_hat = normalise(z_hat + e_hat)
    along = lambda of: (z * of).sum(-1, keepdims=True)
    turned = z - 2 * r_hat * along(r_hat) + 2 * e_hat * along(z_hat)
    turned = turned * length(e) / length(fixed)
    return turned + jax.lax.stop_gradient(vectors - turned)


def code_terms(ids: jax.Array, codes: int) -> Terms:
    """How the codes are used: `usage`, the share that occurs at all; `perplexity`, exp of the entropy in nats."""
    uses = jnp.zeros(codes).at[ids.reshape(-1)].add(1.0, mode="drop")
    share = uses / jnp.maximum(uses.sum(), 1.0)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0))
    return {
        "usage": (jnp.sum(uses > 0).astype(jnp.float32), jnp.float32(codes)),
        "perplexity": (jnp.exp(entropy), jnp.float32(1)),
    }
