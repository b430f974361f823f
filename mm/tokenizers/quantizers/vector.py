"""A learned codebook: the nearest code of each latent, and codes that follow the latents that chose them.

Statistics are sums over the whole batch array, so under a jit whose batch is sharded they are global sums and every
device keeps the same codebook.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mm.errors import UserError
from mm.tasks import Terms
from mm.tokenizers.quantizers.base import (
    Buffers,
    Quantized,
    Quantizer,
    code_terms,
    normalise,
    rotated,
    straight_through,
)


def quantize(z: jax.Array, codebook: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest code of each latent by Euclidean distance.

    Args:
      z: float32[..., d]. codebook: float32[K, d].

    Returns:
      ids int32[...] and vectors float32[..., d], without a gradient.
    """
    flat, book = jax.lax.stop_gradient((z.reshape(-1, z.shape[-1]), codebook))
    # |z - e|^2 without its |z|^2, which no argmin depends on. TPUs would multiply in bfloat16 by default.
    dot = jnp.matmul(flat, book.T, precision=jax.lax.Precision.HIGHEST)
    ids = jnp.argmin(jnp.square(book).sum(-1) - 2 * dot, axis=-1).astype(jnp.int32)
    return ids.reshape(z.shape[:-1]), book[ids].reshape(z.shape)


def sample_far(z: jax.Array, vectors: jax.Array, key: jax.Array, count: int) -> jax.Array:
    """`count` latents drawn with a probability that grows with the squared distance to their code.

    Where codes are restarted matters: most latents of real data sit in a few dense places, which uniform draws
    would give still more codes.

    Args:
      z, vectors: float32[N, d].

    Returns:
      float32[count, d].

    Source: the seeding of k-means++ (Arthur and Vassilvitskii 2007), all at once instead of one by one.
    """
    cumulative = jnp.cumsum(jnp.square(z - vectors).sum(-1) + 1e-9)
    draws = jax.random.uniform(key, (count,)) * cumulative[-1]
    return z[jnp.clip(jnp.searchsorted(cumulative, draws), 0, z.shape[0] - 1)]


def ema_update(
    buffers: Buffers,
    z: jax.Array,
    ids: jax.Array,
    key: jax.Array,
    *,
    decay: float,
    dead: float,
    cosine: bool,
    drift: bool = False,
    smoothing: float = 0.0,
    threshold: float | None = None,
) -> Buffers:
    """One step of the codebook: running k-means, and unused codes restarted from the batch.

    Args:
      buffers: codebook [K, d], counts [K] (running uses per step), sums [K, d] (running sums of latents;
        none where codes drift).
      z: float32[..., d] latents of the whole batch. ids: int32[...] their codes; K is none.
      dead, cosine, drift, smoothing, threshold: see `VectorQuantizer`.

    Returns:
      New buffers of the same form.

    Source: van den Oord et al. 2017, appendix A.1; restarts as in Jukebox (Dhariwal et al. 2020); drift and smoothing
    as in 4M (Mizrahi et al. 2023).
    """
    z, ids = jax.lax.stop_gradient(z.reshape(-1, z.shape[-1])), ids.reshape(-1)
    size = buffers["codebook"].shape[0]
    # a product and not a scatter: sums in a fixed order, so that a run repeats bit for bit on every device kind
    hits = jax.nn.one_hot(ids, size, dtype=z.dtype)
    uses, totals = hits.sum(0), jnp.matmul(hits.T, z, precision=jax.lax.Precision.HIGHEST)
    mean_use = uses.sum() / size
    counts = decay * buffers["counts"] + (1 - decay) * uses
    restart = counts <= dead * mean_use if threshold is None else counts < threshold
    if not (drift or smoothing):
        restart |= counts <= 0  # nothing to divide by
    restart_kd = restart[:, None]
    chosen = jnp.where((ids < size)[:, None], buffers["codebook"][ids], z)
    fresh = sample_far(z, chosen, key, size)
    counts = jnp.where(restart, mean_use, counts)
    if drift:
        aim = normalise(jnp.where(uses[:, None] > 0, totals, buffers["codebook"]))
        moved = decay * buffers["codebook"] + (1 - decay) * aim
        return {"codebook": jnp.where(restart_kd, fresh, moved), "counts": counts}
    sums = decay * buffers["sums"] + (1 - decay) * totals
    sums = jnp.where(restart_kd, fresh * mean_use, sums)
    codebook = sums / smoothed(counts, smoothing)[:, None]
    return {"codebook": normalise(codebook) if cosine else codebook, "counts": counts, "sums": sums}


def smoothed(counts: jax.Array, amount: float) -> jax.Array:
    """float32[K] pulled a little towards their mean, their sum kept; 0 = as they are (Laplace smoothing)."""
    if not amount:
        return counts
    total = counts.sum()
    return (counts + amount) / (total + amount * counts.shape[0]) * total


@dataclasses.dataclass(kw_only=True, slots=True)
class VectorQuantizer(Quantizer):
    """A learned codebook, kept by running averages of the latents that chose each code.

    Attributes:
      codes: size K of the codebook.
      width: d, features of a latent and of a code.
      decay: of the running averages, per step.
      cosine: compare directions: latents and codes at unit length (Yu et al. 2022); keeps more codes in use.
      dead: share of the mean use at which, or at no use, a code restarts at a latent of the batch.
      threshold: running use per step below which it does, instead of `dead`; 0 = never one that was used.
      unit: with `cosine`: latents leave at unit length too, and commitment is measured there; else they stay as they are.
      drift: with `cosine`: a code is the running average of the directions that its latents have on average (its own where
        it has none), and shorter than 1 where these turn; compared is its direction. 4M's rule.
      smoothing: without `cosine`: added to each use before sums are divided by them (1e-5 in 4M).
      rotate: the gradient that reaches a latent is turned as the latent is towards its code, not passed straight through.
    """

    codes: int = 512
    width: int = 16
    decay: float = 0.99
    cosine: bool = True
    dead: float = 0.1
    threshold: float | None = None
    unit: bool = True
    drift: bool = False
    smoothing: float = 0.0
    rotate: bool = False

    def validate(self) -> None:
        """Raises UserError: codes that drift are compared by direction."""
        if self.drift and not self.cosine:
            raise UserError("config.task.quantizer.drift: needs cosine=True; change one")

    def init(self, key: jax.Array) -> Buffers:
        """Fresh buffers. Nothing has a use yet, so the first update takes every code from its batch."""
        book = normalise(jax.random.normal(key, (self.codes, self.width)))
        buffers = {"codebook": book, "counts": jnp.zeros(self.codes)}
        return buffers if self.drift else buffers | {"sums": jnp.zeros_like(book)}

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., d]."""
        z, book = normalise(z) if self.cosine and self.unit else z, buffers["codebook"]
        ids, vectors = quantize(z, normalise(book) if self.drift else book)
        vectors = self.lookup(buffers, ids) if self.drift else vectors
        back = rotated if self.rotate else straight_through
        return Quantized(ids, back(z, vectors), z)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[...] -> vectors float32[..., d]."""
        return jax.lax.stop_gradient(buffers["codebook"])[ids]

    def update(self, buffers: Buffers, quantized: Quantized, key: jax.Array) -> Buffers:
        """Buffers after a training step on this batch."""
        z = quantized.latents
        return ema_update(
            buffers,
            normalise(z) if self.cosine and not self.unit else z,
            quantized.ids,
            key,
            decay=self.decay,
            dead=self.dead,
            cosine=self.cosine,
            drift=self.drift,
            smoothing=self.smoothing,
            threshold=self.threshold,
        )

    def terms(self, buffers: Buffers, quantized: Quantized) -> Terms:
        """`commitment` (squared distance of a latent to its code, mean over features), `usage`, `perplexity`.

        Usage and perplexity are of the batch.
        """
        there = (quantized.ids < self.codes)[..., None]
        gap = jnp.square(quantized.latents - self.lookup(buffers, quantized.ids)) * there
        count = jnp.float32(there.sum() * self.width)
        return {"commitment": (gap.sum(), count)} | code_terms(quantized.ids, self.codes)
