"""Sign codes: a bit per feature, so a vocabulary of any size without a table. LFQ, and on the sphere BSQ."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mm.errors import UserError
from mm.tasks import Terms
from mm.tokenizers.quantizers.base import (
    Buffers,
    Quantized,
    Quantizer,
    code_terms,
    normalise,
    straight_through,
)


@dataclasses.dataclass(kw_only=True, slots=True)
class SignQuantizer(Quantizer):
    """A code is the signs of a latent's features; its vector has +1 and -1 there, or is the nearest corner of a cube
    within the unit sphere.

    Attributes:
      bits: features of a latent; 2^bits codes.
      spherical: latents at unit length and vectors too (BSQ); else as they are (LFQ).
      temperature: of the soft choice whose entropy is a term: p(code) falls with exp(-distance^2 / temperature).
      diversity: what the entropy of the batch's codes counts against that of each latent's choice.
      group: bits whose joint use is measured exactly; groups of them count as independent, since
        a table of all codes would not fit. At `bits`, nothing is left out.

    Source: LFQ: Yu et al. 2023 (MAGVIT-v2), equations 4 and 5; BSQ: Zhao et al. 2024, equations 5 to 9.
    """

    bits: int = 12
    spherical: bool = False
    temperature: float = 0.02
    diversity: float = 1.0
    group: int = 8

    @property
    def codes(self) -> int:
        return 2**self.bits

    @property
    def width(self) -> int:
        return self.bits

    @property
    def corner(self) -> float:
        """What a vector has in each feature, but for its sign."""
        return self.bits**-0.5 if self.spherical else 1.0

    def validate(self) -> None:
        """Raises UserError: no bits, ids beyond int32, or a temperature that is none."""
        if not 1 <= self.bits <= 30 or self.group < 1 or not self.temperature > 0:
            found = f"bits={self.bits}, group={self.group}, temperature={self.temperature}"
            raise UserError(
                f"config.task.quantizer: {found}: 1 <= bits <= 30, group >= 1 and temperature > 0; change it"
            )

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., bits]."""
        z = normalise(z) if self.spherical else z
        ids = self.ids_of(buffers, z)
        return Quantized(ids, straight_through(z, self.lookup(buffers, ids)), z)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[...] -> vectors float32[..., bits]."""
        signs = ((ids[..., None] >> np.arange(self.bits)) & 1) * 2 - 1
        return signs.astype(jnp.float32) * self.corner

    def ids_of(self, buffers: Buffers, vectors: jax.Array) -> jax.Array:
        """float32[..., bits] -> int32[...]; a zero counts as negative."""
        return ((vectors > 0) * (1 << np.arange(self.bits))).sum(-1, dtype=jnp.int32)

    def terms(self, buffers: Buffers, quantized: Quantized) -> Terms:
        """`entropy`, of a latent's soft choice less `diversity` times that of the batch's, in nats; `commitment`
        (squared distance of a latent to its code, mean over features); `usage`, `perplexity`."""
        latents = quantized.latents.reshape(-1, self.bits)
        gap = jnp.square(latents - self.lookup(buffers, quantized.ids.reshape(-1)))
        share = jax.nn.sigmoid(4 * self.corner * latents / self.temperature)
        each = binary_entropy(4 * self.corner * latents / self.temperature).sum(-1).mean()
        entropy = each - self.diversity * batch_entropy(share, self.group)
        return {
            "entropy": (entropy, jnp.float32(1)),
            "commitment": (gap.sum(), jnp.float32(gap.size)),
        } | code_terms(quantized.ids, self.codes)


def binary_entropy(logit: jax.Array) -> jax.Array:
    """Of a bit whose log odds are `logit`, nats."""
    return jax.nn.softplus(logit) - logit * jax.nn.sigmoid(logit)


def batch_entropy(share_nb: jax.Array, group: int) -> jax.Array:
    """Entropy of the mean over N of the law of b independent bits, in nats, as a sum over groups of bits.

    Args:
      share_nb: float32[N, b], probability that a bit is 1. group: bits whose joint law is made.
    """
    total = jnp.float32(0)
    for start in range(0, share_nb.shape[1], group):
        part = share_nb[:, start : start + group]
        law = jnp.ones((len(part), 1))
        for i in range(part.shape[1]):
            p = part[:, i : i + 1]
            law = jnp.concatenate([law * (1 - p), law * p], 1)
        mean = law.mean(0)
        total -= (mean * jnp.log(mean + 1e-12)).sum()
    return total
