"""Codes as choices: a latent is compared with a table that is learned by gradients, through the softmax of its scores."""

import dataclasses

import jax
import jax.numpy as jnp

from mm.errors import UserError
from mm.objectives.contrastive.similarity import sparsemax
from mm.tokenizers.quantizers.base import Buffers, Quantized, Quantizer, straight_through
from mm.tokenizers.quantizers.vector import quantize


@dataclasses.dataclass(kw_only=True, slots=True)
class Categorical(Quantizer):
    """A latent is the logits of its code, and the code's vector one-hot: what codes mean, the network learns.

    Attributes:
      codes: how many there are; the width of a latent.
      temperature: of the softmax whose gradient stands for the choice's.

    Source: hard Gumbel-softmax (Jang et al. 2017); with a memory of codes in the network, lucidrains' Memcodes.
    """

    codes: int = 1024
    temperature: float = 1.0

    @property
    def width(self) -> int:
        return self.codes

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of logits z float32[..., codes]: drawn from their softmax with a key, else the likeliest."""
        ids, soft = choose(z, self.temperature, key)
        return Quantized(ids, straight_through(soft, self.lookup(buffers, ids)), z)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[...] -> one-hot float32[..., codes]."""
        return jax.nn.one_hot(ids, self.codes)

    def table(self, buffers: Buffers) -> None:
        """One-hot vectors say nothing of their codes."""
        return None


@dataclasses.dataclass(kw_only=True, slots=True)
class GumbelQuantizer(Quantizer):
    """A learned table of keys and values: a latent's products with the keys are the logits of its code.

    Several beside each other (`Product`) are the memcodes of a vector.

    Attributes:
      codes: how many there are. width: features of a latent, a key and a value.
      temperature: see `Categorical`.

    Source: Jang et al. 2017; keys and values as lucidrains' Memcodes.
    """

    codes: int = 256
    width: int = 16
    temperature: float = 1.0

    @property
    def learned(self) -> frozenset[str]:
        return frozenset({"keys", "values"})

    def init(self, key: jax.Array) -> Buffers:
        """Keys and values, normal."""
        of_keys, of_values = jax.random.split(key)
        draw = lambda k: jax.random.normal(k, (self.codes, self.width))
        return {"keys": draw(of_keys), "values": draw(of_values)}

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., d]: drawn with a key, else the likeliest."""
        logits = z @ buffers["keys"].T * self.width**-0.5
        ids, soft = choose(logits, self.temperature, key)
        one_hot = straight_through(soft, jax.nn.one_hot(ids, self.codes))
        return Quantized(ids, one_hot @ buffers["values"], z)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[...] -> values float32[..., d]."""
        return buffers["values"][ids]

    def ids_of(self, buffers: Buffers, vectors: jax.Array) -> jax.Array:
        """The value that is nearest."""
        return quantize(vectors, buffers["values"])[0]


@dataclasses.dataclass(kw_only=True, slots=True)
class SoftQuantizer(Quantizer):
    """The soft form: what goes on is a mixture of the table's vectors, and the id is that of the heaviest.

    Attributes:
      codes: rows of the table. width: features of a latent and of a row.
      sparse: sparsemax, so that most rows have no share; else softmax.
      temperature: scores are divided by it and by the root of `width`.

    Source: a visual token as an expected embedding: Lu et al. 2024 (Ovis), equation 2; sparsemax over a shared table: Chen et al.
    2023 (FDT).
    """

    codes: int = 256
    width: int = 16
    sparse: bool = False
    temperature: float = 1.0

    @property
    def learned(self) -> frozenset[str]:
        return frozenset({"table"})

    def validate(self) -> None:
        """Raises UserError for a temperature that is none."""
        if not self.temperature > 0:
            raise UserError(
                f"config.task.quantizer.temperature={self.temperature}: above 0; change it"
            )

    def init(self, key: jax.Array) -> Buffers:
        """A normal table."""
        return {"table": jax.random.normal(key, (self.codes, self.width))}

    def weights(self, buffers: Buffers, z: jax.Array) -> jax.Array:
        """How much of each row a latent is: float32[..., codes], which sum to 1."""
        scores = z @ buffers["table"].T / (self.temperature * self.width**0.5)
        return sparsemax(scores) if self.sparse else jax.nn.softmax(scores, axis=-1)

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Mixtures for latents z float32[..., d]; whole gradients, nothing is passed straight through."""
        weights = self.weights(buffers, z)
        ids = jnp.argmax(weights, -1).astype(jnp.int32)
        return Quantized(ids, weights @ buffers["table"], z)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[...] -> rows float32[..., d]: what is heaviest stands for the whole mixture."""
        return buffers["table"][ids]

    def ids_of(self, buffers: Buffers, vectors: jax.Array) -> jax.Array:
        """The row that is nearest."""
        return quantize(vectors, buffers["table"])[0]


def choose(
    logits: jax.Array, temperature: float, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """ids int32[...] and the softmax that stands for the choice, float32[..., codes]; with a key both are of noisy logits."""
    noisy = logits if key is None else logits + jax.random.gumbel(key, logits.shape, logits.dtype)
    return jnp.argmax(noisy, axis=-1).astype(jnp.int32), jax.nn.softmax(noisy / temperature)
