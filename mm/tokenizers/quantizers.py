"""Quantizers: from continuous latents to discrete codes and back, differentiable by the straight-through trick.

A quantizer is a settings object; what it learns without gradients (the codebook and its running statistics)
is a plain dict of arrays, `buffers`. Statistics are sums over the whole batch array, so under a jit whose batch is
sharded they are global sums and every device keeps the same codebook.
"""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mm.errors import UserError
from mm.tasks import Terms

Buffers = dict[str, jax.Array]


class Quantized(NamedTuple):
    """What quantization makes of latents.

    Attributes:
      ids: int32[...], one code per latent.
      vectors: float32[..., d], the codes' vectors; gradients pass straight through to the latents.
      latents: float32[..., d], the latents as they were compared with the codes (normalised or bounded).
    """

    ids: jax.Array
    vectors: jax.Array
    latents: jax.Array


class Quantizer(Protocol):
    """What an autoencoder needs of its bottleneck.

    `quantize` takes a `key` while training: a quantizer may choose codes at random then.

    Attributes:
      codes: how many codes there are (the vocabulary's size).
      width: features of a latent.
    """

    @property
    def codes(self) -> int: ...

    @property
    def width(self) -> int: ...

    def init(self, key: jax.Array) -> Buffers: ...

    def quantize(
        self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None
    ) -> Quantized: ...

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array: ...

    def update(self, buffers: Buffers, quantized: Quantized, key: jax.Array) -> Buffers: ...

    def terms(self, buffers: Buffers, quantized: Quantized) -> Terms: ...


def normalise(x: jax.Array) -> jax.Array:
    """Rows of unit length; a zero row stays zero and has a finite gradient."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)


def straight_through(z: jax.Array, vectors: jax.Array) -> jax.Array:
    """`vectors` in the forward pass, the gradient of `z` in the backward pass."""
    return z + jax.lax.stop_gradient(vectors - z)


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
      z: float32[..., d] latents of the whole batch. ids: int32[...] their codes.
      dead, cosine, drift, smoothing, threshold: see `VectorQuantizer`.

    Returns:
      New buffers of the same form.

    Source: van den Oord et al. 2017, appendix A.1; restarts as in Jukebox (Dhariwal et al. 2020); drift and smoothing
    as in 4M (Mizrahi et al. 2023).
    """
    z, ids = jax.lax.stop_gradient(z.reshape(-1, z.shape[-1])), ids.reshape(-1)
    size = buffers["codebook"].shape[0]
    mean_use = ids.shape[0] / size
    # a product and not a scatter: sums in a fixed order, so that a run repeats bit for bit on every device kind
    hits = jax.nn.one_hot(ids, size, dtype=z.dtype)
    uses, totals = hits.sum(0), jnp.matmul(hits.T, z, precision=jax.lax.Precision.HIGHEST)
    counts = decay * buffers["counts"] + (1 - decay) * uses
    restart = counts <= dead * mean_use if threshold is None else counts < threshold
    if not (drift or smoothing):
        restart |= counts <= 0  # nothing to divide by
    restart_kd = restart[:, None]
    fresh = sample_far(z, buffers["codebook"][ids], key, size)
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
class VectorQuantizer:
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

    def init(self, key: jax.Array) -> Buffers:
        """Fresh buffers. Nothing has a use yet, so the first update takes every code from its batch.

        Raises:
          UserError: codes that drift are compared by direction.
        """
        if self.drift and not self.cosine:
            raise UserError("config.task.quantizer.drift: needs cosine=True; change one")
        book = normalise(jax.random.normal(key, (self.codes, self.width)))
        buffers = {"codebook": book, "counts": jnp.zeros(self.codes)}
        return buffers if self.drift else buffers | {"sums": jnp.zeros_like(book)}

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., d]."""
        z, book = normalise(z) if self.cosine and self.unit else z, buffers["codebook"]
        ids, vectors = quantize(z, normalise(book) if self.drift else book)
        vectors = self.lookup(buffers, ids) if self.drift else vectors
        return Quantized(ids, straight_through(z, vectors), z)

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
        gap = jnp.square(quantized.latents - self.lookup(buffers, quantized.ids))
        return {"commitment": (gap.sum(), jnp.float32(gap.size))} | code_terms(
            quantized.ids, self.codes
        )


@dataclasses.dataclass(kw_only=True, slots=True)
class FSQ:
    """Finite scalar quantization: each feature rounded to a few levels; nothing to learn, nothing to collapse.

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

    def init(self, key: jax.Array) -> Buffers:
        """No buffers: the codes are a fixed lattice."""
        return {}

    def _bound(self, z: jax.Array) -> jax.Array:
        """z -> values whose rounding has `levels` outcomes; an even number of levels needs half a step of shift."""
        levels = jnp.array(self.levels, z.dtype)
        half = (
            (levels - 1) * (1 + 1e-3) / 2
        )  # a little more, so that the outermost levels are reached
        offset = jnp.where(levels % 2 == 0, 0.5, 0.0)
        return jnp.tanh(z + jnp.arctanh(offset / half)) * half - offset

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., len(levels)]; vectors lie in [-1, 1]."""
        bounded, half = self._bound(z), jnp.array([n // 2 for n in self.levels], z.dtype)
        rounded = jnp.round(jax.lax.stop_gradient(bounded))
        bases = jnp.array([math.prod(self.levels[:i]) for i in range(self.width)], z.dtype)
        ids = ((rounded + half) * bases).sum(-1).astype(jnp.int32)
        return Quantized(ids, straight_through(bounded / half, rounded / half), bounded / half)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[...] -> vectors float32[..., len(levels)]."""
        bases = jnp.array([math.prod(self.levels[:i]) for i in range(self.width)], jnp.int32)
        half = jnp.array([n // 2 for n in self.levels], jnp.int32)
        return ((ids[..., None] // bases) % jnp.array(self.levels, jnp.int32) - half) / half.astype(
            jnp.float32
        )

    def update(self, buffers: Buffers, quantized: Quantized, key: jax.Array) -> Buffers:
        """Nothing to do: there is nothing that is learned."""
        return buffers

    def terms(self, buffers: Buffers, quantized: Quantized) -> Terms:
        """`usage` and `perplexity` of the batch."""
        return code_terms(quantized.ids, self.codes)


@dataclasses.dataclass(kw_only=True, slots=True)
class Categorical:
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

    def init(self, key: jax.Array) -> Buffers:
        """No buffers."""
        return {}

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of logits z float32[..., codes]: drawn from their softmax with a key, else the likeliest."""
        noisy = z if key is None else z + jax.random.gumbel(key, z.shape, z.dtype)
        ids = jnp.argmax(noisy, axis=-1).astype(jnp.int32)
        soft = jax.nn.softmax(noisy / self.temperature)
        return Quantized(ids, straight_through(soft, self.lookup(buffers, ids)), z)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[...] -> one-hot float32[..., codes]."""
        return jax.nn.one_hot(ids, self.codes)

    def update(self, buffers: Buffers, quantized: Quantized, key: jax.Array) -> Buffers:
        """Nothing to do: the network learns the codes."""
        return buffers

    def terms(self, buffers: Buffers, quantized: Quantized) -> Terms:
        """`usage` and `perplexity` of the batch."""
        return code_terms(quantized.ids, self.codes)


def code_terms(ids: jax.Array, codes: int) -> Terms:
    """How the codes are used: `usage`, the share that occurs at all; `perplexity`, exp of the entropy in nats."""
    uses = jnp.zeros(codes).at[ids.reshape(-1)].add(1.0)
    share = uses / jnp.maximum(uses.sum(), 1.0)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0))
    return {
        "usage": (jnp.sum(uses > 0).astype(jnp.float32), jnp.float32(codes)),
        "perplexity": (jnp.exp(entropy), jnp.float32(1)),
    }


KINDS: dict[str, Any] = {"vector": VectorQuantizer, "fsq": FSQ, "categorical": Categorical}
"""Quantizers by the name that an artefact's config carries."""
