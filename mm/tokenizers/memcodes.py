"""Several codes for one place, from a memory of codes or of one codebook; and vectors as a few codes, by an MLP: 4M's
tokenizer of global features and poses.

With a memory each part of a place's features asks its own part of it: the logits of its codes are a latent of
`quantizers.Categorical`, and a code's vector is the row of values that it picks. Codes, keys and values are learned by
gradients, so they are parameters of the network.

Source: 4M-21 (Bachmann et al. 2024); Memcodes is lucidrains' (vector-quantize-pytorch); the MLP is Bachmann et al. 2023,
"Scaling MLPs".
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from mm.errors import UserError
from mm.models.layers import Linear, run_stack, stack
from mm.space import Vector
from mm.tasks import Terms
from mm.tokenizers import measures


@dataclasses.dataclass(kw_only=True, slots=True)
class Bottleneck:
    """The MLP of one side: residual blocks of `width` features, `depth` of them, `expansion` times as wide inside; `outer`
    features towards the codes.
    """

    width: int = 1024
    depth: int = 6
    outer: int = 1024
    expansion: int = 4


@dataclasses.dataclass(kw_only=True, slots=True)
class VectorAutoencoder:
    """Settings of the network for rows float32[features].

    Attributes:
      features: of a row.
      code_width, codebooks, memory: see `Projection`; a row is one place.
    """

    features: int = 768
    code_width: int = 1024
    codebooks: int = 8
    memory: int = 1024
    encoder: Bottleneck = dataclasses.field(default_factory=Bottleneck)
    decoder: Bottleneck = dataclasses.field(default_factory=Bottleneck)

    def validate(self) -> None:
        """Raises UserError: see `check_codes`."""
        check_codes(self.code_width, self.codebooks, self.memory)

    @property
    def latent(self) -> int:
        """Features of a latent: with a memory, the logits of its codes."""
        return self.memory or self.code_width

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a raw row."""
        return jax.ShapeDtypeStruct((self.features,), np.float32)

    @property
    def grid(self) -> Vector:
        """Codes without geometry."""
        return Vector(n=self.codebooks)

    def build(self, rngs: nnx.Rngs) -> "VectorNetwork":
        return VectorNetwork(self, rngs=rngs)

    def measures(self, raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
        """`cosine`, and what is kept of retrieval among the rows: see `measures.of_vectors`."""
        return measures.of_vectors(raw, decoded)


class Residual(nnx.Module):
    """x + W2 gelu(W1 norm x), `expansion` times as wide inside; the norm's eps is 1e-5."""

    def __init__(self, width: int, expansion: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.up = Linear(width, expansion * width, rngs=rngs)
        self.down = Linear(expansion * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        spread = x.var(-1, keepdims=True)
        y = jax.nn.standardize(x, variance=spread, epsilon=1e-5) * self.scale[...] + self.bias[...]
        return x + self.down(jax.nn.gelu(self.up(y), approximate=False))


class BottleneckMlp(nnx.Module):
    """Linear, residual blocks, linear: float32[B, d_in] -> [B, d_out]."""

    def __init__(self, side: Bottleneck, d_in: int, d_out: int, *, rngs: nnx.Rngs):
        self.into = Linear(d_in, side.width, rngs=rngs)
        self.blocks = stack(
            lambda r: Residual(side.width, side.expansion, rngs=r), side.depth, rngs
        )
        self.out = Linear(side.width, d_out, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(run_stack(self.blocks, self.into(x)))


def check_codes(code_width: int, codebooks: int, memory: int) -> None:
    """Raises UserError for parts of a memory that do not divide what asks it."""
    if memory and code_width % codebooks:
        raise UserError(
            f"config.task.network.code_width={code_width}: not a multiple of codebooks={codebooks}; change one"
        )


class Memory(nnx.Module):
    """V codes of d features for each of k parts, seen as keys and as values through a matrix each."""

    def __init__(self, parts: int, codes: int, width: int, *, rngs: nnx.Rngs):
        bound = width**-0.5
        matrices = lambda: jax.random.uniform(
            rngs.params(), (parts, width, width), minval=-bound, maxval=bound
        )
        self.codes = nnx.Param(jax.random.normal(rngs.params(), (parts, codes, width)))
        self.to_key, self.to_value = nnx.Param(matrices()), nnx.Param(matrices())

    def logits(self, q_bkd: jax.Array) -> jax.Array:
        """What asks, float32[B, k, d] -> float32[B, k, V]."""
        keys_kvd = self.codes[...] @ self.to_key[...]
        return jnp.einsum("bkd,kvd->bkv", q_bkd * q_bkd.shape[-1] ** -0.5, keys_kvd)

    def values(self, picked_bkv: jax.Array) -> jax.Array:
        """Weights of codes float32[B, k, V] -> float32[B, k, d]."""
        return jnp.einsum("bkv,kvd->bkd", picked_bkv, self.codes[...] @ self.to_value[...])


class Projection(nnx.Module):
    """Between the features of n places, float32[B, n, code_width], and the quantizer's latents, [B, k n, latent].

    Args:
      code_width: features of a place.
      codebooks: k, codes per place.
      memory: V, codes of each of the k parts of a memory, which a k-th of a place's features asks each; latents are logits
        of `Categorical(codes=V)`. 0 = none: latents have `code_width` features, of one codebook for all k.
    """

    def __init__(self, code_width: int, codebooks: int, memory: int, *, rngs: nnx.Rngs):
        k, self.codebooks = codebooks, codebooks
        several = k > 1 and not memory
        self.memory = Memory(k, memory, code_width // k, rngs=rngs) if memory else None
        self.into = Linear(code_width, k * code_width, rngs=rngs) if several else None
        self.out = Linear(k * code_width, code_width, rngs=rngs) if several else None

    def apart(self, z_bnd: jax.Array) -> jax.Array:
        """Features of places -> latents, the first of all places' codes before their second."""
        k, n = self.codebooks, z_bnd.shape[1]
        if self.memory is not None:
            asking = rearrange(z_bnd, "b n (k d) -> (b n) k d", k=k)
            return rearrange(self.memory.logits(asking), "(b n) k v -> b (k n) v", n=n)
        if self.into is None:
            return z_bnd
        return rearrange(self.into(z_bnd), "b n (k d) -> b (k n) d", k=k)

    def joined(self, vectors_bnd: jax.Array) -> jax.Array:
        """Vectors of codes -> features of places."""
        k, n = self.codebooks, vectors_bnd.shape[1] // self.codebooks
        if self.memory is not None:
            picked = rearrange(vectors_bnd, "b (k n) v -> (b n) k v", k=k)
            return rearrange(self.memory.values(picked), "(b n) k d -> b n (k d)", n=n)
        if self.out is None:
            return vectors_bnd
        return self.out(rearrange(vectors_bnd, "b (k n) d -> b n (k d)", k=k))


class VectorNetwork(nnx.Module):
    """See `mm.tokenizers.autoencoder.Network`. Rows are float32[B, features], seen as they are."""

    def __init__(self, settings: VectorAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.encoder = BottleneckMlp(s.encoder, s.features, s.encoder.outer, rngs=rngs)
        self.latent_out = Linear(s.encoder.outer, s.code_width, rngs=rngs)
        self.projection = Projection(s.code_width, s.codebooks, s.memory, rngs=rngs)
        self.latent_in = Linear(s.code_width, s.decoder.outer, rngs=rngs)
        self.decoder = BottleneckMlp(s.decoder, s.decoder.outer, s.features, rngs=rngs)

    def prepare(self, raw: jax.Array) -> jax.Array:
        """As they are."""
        return raw

    def features(self, x: jax.Array) -> jax.Array:
        """float32[B, features] -> the features that are coded, float32[B, 1, code_width]."""
        return self.latent_out(self.encoder(x))[:, None]

    def encode(self, x: jax.Array) -> jax.Array:
        """float32[B, features] -> latents float32[B, codebooks, latent]."""
        return self.projection.apart(self.features(x))

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, codebooks, latent] -> float32[B, features]."""
        return self.decoder(self.latent_in(self.projection.joined(vectors_bnd)[:, 0]))

    def terms(self, out: jax.Array, x: jax.Array) -> Terms:
        """`reconstruction`: squared error; in its place, or beside it, may be weighed `smooth_l1` and `cosine_distance`, 1 -
        the cosine between a row and what comes back. `cosine`: that cosine, a metric.
        """
        cosine = (out * x).sum(-1) / (jnp.linalg.norm(out, axis=-1) * jnp.linalg.norm(x, axis=-1) + 1e-9)  # fmt: skip
        return {
            "reconstruction": (jnp.square(out - x).sum(), jnp.float32(x.size)),
            "smooth_l1": (measures.smooth_l1(out - x).sum(), jnp.float32(x.size)),
            "cosine_distance": measures.summed(1 - measures.cosine(out, x)),
            "cosine": (cosine.sum(), jnp.float32(cosine.size)),
        }

    def render(self, out: jax.Array) -> jax.Array:
        """As they are."""
        return out
