"""The trunk: 4M's encoder-decoder over the shared token space, with embeddings for contrast.

The encoder reads the visible tokens of all modalities together, the decoder predicts hidden ones
(queries carry no ids). The first layers of the encoder, called a second time on single modalities,
give one unimodal embedding each; the encoder's output pools into a fused embedding of all that is visible.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm.errors import UserError
from mm.models.attention import PADDING, Mask
from mm.models.layers import (
    Block,
    DecoderBlock,
    LayerNorm,
    Linear,
    run_stack,
    sincos_1d,
    sincos_2d,
    stack,
    unit,
)
from mm.space import Grid, Rows, Sequence, TokenSpace, View


@dataclasses.dataclass(kw_only=True, slots=True)
class Model:
    """Size and kind of the trunk.

    Attributes:
      width: features per token; heads of width // heads features each.
      token_scale: input embeddings are multiplied by this and their table begins at 1 / token_scale, so that tokens are not
        drowned by positions; 0 = sqrt(width). (4M's weights want 1, and a table that begins at 0.02: `token_std`.)
      positions: `sincos` (fixed), or `learned`, one free vector per place that begins random and as large as sin-cos: in
        small grids the waves hardly differ between places.
      codebook_init: share of the variance of token embeddings that begins as a random projection of what the codes stand
        for in their tokenizer (its codebook), so that like codes begin alike; 0 = none, all random.
      mlp: `gelu`, `gelu_tanh` or `swiglu`. bias: of linear layers and norms.
      embed_layers: encoder layers that the unimodal embeddings run through (K). embed_dim: their size.
      scan: loop over stacked layers (small program) instead of unrolling them (some per cent faster on CPU).
      attention: `xla`, `cudnn` (NVIDIA GPUs) or `splash` (TPUs): the same numbers within rounding; see docs/speed.md.
      remat: `none`, `dots` or `full`. dtype: of matrix products; `auto` = bfloat16, but float32 on CPU.
    """

    width: int = 192
    heads: int = 6
    encoder_layers: int = 3
    decoder_layers: int = 3
    embed_layers: int = 1
    embed_dim: int = 64
    token_scale: float = 0.0
    token_std: float = 0.0
    positions: str = "sincos"
    codebook_init: float = 0.0
    mlp: str = "gelu"
    bias: bool = True
    qk_norm: bool = False
    attention: str = "xla"
    scan: bool = True
    remat: str = "none"
    dtype: str = "auto"


POSITIONS = ("sincos", "learned")


def compute_dtype(name: str) -> Any:
    """`auto` -> bfloat16 on accelerators, float32 on CPU (where XLA has no bfloat16 product)."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def position_table(space: TokenSpace, width: int) -> jax.Array:
    """Fixed position embeddings float32[places, width]: 2-D for grids, 1-D for everything else."""
    tables = []
    for m in space.modalities:
        layout = m.layout
        if isinstance(layout, Grid) and layout.t == 1 and layout.h > 1:
            tables.append(sincos_2d(layout.h, layout.w, width))
        else:
            tables.append(sincos_1d(m.size, width))
    return jnp.concatenate(tables)


class EncoderDecoder(nnx.Module):
    """See the module. All methods are pure; B examples, N visible tokens, Q queries, D features."""

    def __init__(self, settings: Model, space: TokenSpace, *, rngs: nnx.Rngs):
        width, dtype = settings.width, compute_dtype(settings.dtype)
        kind: dict[str, Any] = {"mlp": settings.mlp, "bias": settings.bias, "dtype": dtype}
        kind |= {"qk_norm": settings.qk_norm, "impl": settings.attention}
        normal = lambda *shape, std=0.02: nnx.Param(std * jax.random.normal(rngs.params(), shape))
        self.token_scale = settings.token_scale or width**0.5
        self.token = normal(space.size, width, std=settings.token_std or 1 / self.token_scale)
        self.modality = normal(len(space.modalities), width)
        learned = settings.positions == "learned"
        self.position = normal(space.places, width, std=0.5**0.5) if learned else None
        self.mask_token = normal(width)
        self.encoder = stack(
            lambda r: Block(width, settings.heads, rngs=r, **kind), settings.encoder_layers, rngs
        )
        self.encoder_norm = LayerNorm(width, bias=settings.bias)
        self.context = Linear(width, width, rngs=rngs, dtype=dtype)
        self.decoder = stack(
            lambda r: DecoderBlock(width, settings.heads, rngs=r, **kind),
            settings.decoder_layers,
            rngs,
        )
        self.decoder_norm = LayerNorm(width, bias=settings.bias)
        self.unimodal_norm = LayerNorm(width, bias=settings.bias)
        self.unimodal = stack(
            lambda r: Linear(width, settings.embed_dim, rngs=r, bias=False),
            len(space.modalities),
            rngs,
        )
        self.fused = Linear(width, settings.embed_dim, rngs=rngs, bias=False)
        self.logit_scale = nnx.Param(
            jnp.full((2,), np.log(1 / 0.07))
        )  # unimodal pairs, fused pairs
        self.settings, self.space, self.dtype = settings, space, dtype

    def places(self, place: jax.Array) -> jax.Array:
        """Position and modality embeddings [..., D] of places."""
        if self.position is None:
            position = position_table(self.space, self.settings.width)
        else:
            position = self.position[...]
        return (position + self.modality[...][self.space.per_place()["modality"]])[place]

    def encode(self, view: View, *, layers: int | None = None) -> jax.Array:
        """Visible tokens -> float[B, N, D]: after all layers and the final norm, or raw after the first `layers`."""
        x = self.token_scale * self.token[...][view.ids] + self.places(view.place)
        x = jnp.where(view.mask[..., None], x, 0).astype(self.dtype)
        run = partial(run_stack, scan=self.settings.scan, remat=self.settings.remat)
        x = run(self.encoder, x, Mask.of_keys(view.mask), first=layers)
        return x if layers is not None else self.encoder_norm(x)

    def decode(self, queries: View, context_bnd: jax.Array, visible: View) -> jax.Array:
        """Queries (their ids are not read) over the encoder's output -> float[B, Q, D].

        Queries see queries of their own modality; in a sequence only those before them, or the number of
        queries would tell how long the text is.
        """
        table = self.space.per_place()
        sequential = np.array([isinstance(m.layout, Sequence) for m in self.space.modalities])
        modality = jnp.asarray(table["modality"])[queries.place]
        own = Mask(
            queries=modality,
            keys=jnp.where(queries.mask, modality, PADDING),
            causal=jnp.asarray(sequential)[modality] if sequential.any() else None,
        )
        context = self.context(context_bnd) + self.places(visible.place).astype(self.dtype)
        # Rows that see nothing attend to all padding alike: let it say nothing.
        context = jnp.where(visible.mask[..., None], context, 0)
        x = (self.mask_token[...] + self.places(queries.place)).astype(self.dtype)
        x = run_stack(
            self.decoder, x, context, own, Mask.of_keys(visible.mask),
            scan=self.settings.scan, remat=self.settings.remat,
        )  # fmt: skip
        return self.decoder_norm(x)

    def logits(self, states: jax.Array, modality: str) -> jax.Array:
        """Decoder states [..., D] -> float32 logits [..., vocabulary] over the modality's own ids only."""
        vocabulary, start = self.space.vocabulary(modality), self.space.offset(modality)
        table = self.token[...][start : start + vocabulary.size].astype(self.dtype)
        flat = states.reshape(-1, states.shape[-1]) @ table.T
        return flat.reshape(*states.shape[:-1], -1).astype(jnp.float32)

    def embed_unimodal(self, view: View, modality: jax.Array) -> jax.Array:
        """Tokens of one modality per row -> unit float32[B * M, E].

        Args:
          view: B * M rows: example by example, its M modalities. modality: int32[M]: which (their projections are used).
        """
        pooled = mean_pool(self.encode(view, layers=self.settings.embed_layers), view.mask)
        pooled = self.unimodal_norm(pooled).reshape(-1, len(modality), pooled.shape[-1])
        z = jnp.einsum("bmd,mde->bme", pooled, self.unimodal.kernel[...][modality])
        return unit(z.reshape(-1, z.shape[-1]))

    def embed_fused(self, encoded_bnd: jax.Array, view: View) -> jax.Array:
        """The encoder's output -> unit float32[B, E], one embedding of everything visible."""
        return unit(self.fused(mean_pool(encoded_bnd, view.mask)))


def rows_kept(old: TokenSpace, new: TokenSpace, ids: Mapping[str, np.ndarray]) -> Rows:
    """Where the rows of a model's tables lie when its token space grows.

    Args:
      ids: modality -> where each of its old ids lies in its vocabulary now.

    Raises:
      UserError: a modality is missing in `new`, or has another layout (a sequence may have become longer).
    """
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"token": [], "position": []}
    for m in old.modalities:
        if m.name not in new.names:
            raise UserError(
                f"the modality {m.name!r} is missing here; a space can grow, not shrink"
            )
        longer = isinstance(m.layout, Sequence) and isinstance(new[m.name].layout, Sequence)
        if new[m.name].layout != m.layout and not (longer and new[m.name].size >= m.size):
            raise UserError(
                f"the modality {m.name!r} is {m.layout} there, {new[m.name].layout} here"
            )
        rows = np.arange(len(ids[m.name]))
        pairs["token"].append((old.offset(m.name) + rows, new.offset(m.name) + ids[m.name]))
        places = np.arange(m.size)
        pairs["position"].append((old.starts[m.name] + places, new.starts[m.name] + places))
    joined = {
        path: (np.concatenate([a for a, _ in some]), np.concatenate([b for _, b in some]))
        for path, some in pairs.items()
    }
    indices = np.arange(len(old.names)), np.array([new.index(n) for n in old.names])
    return joined | {"modality": indices, "unimodal/kernel": indices}


def spread_vectors(key: jax.Array, vectors: np.ndarray, width: int) -> jax.Array:
    """Codes' vectors [V, d] in `width` random directions, each of mean 0 and variance 1: float32[V, width].

    Distances between codes are kept, up to one scale (Johnson and Lindenstrauss 1984).
    """
    centred = jnp.asarray(vectors - vectors.mean(0), jnp.float32)
    spread = centred @ jax.random.normal(key, (vectors.shape[1], width))
    return spread / jnp.maximum(spread.std(), 1e-6)


def mean_pool(x_bnd: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the tokens that are there, float32[B, D]; zero where none is."""
    weight = mask[..., None].astype(jnp.float32)
    return (x_bnd.astype(jnp.float32) * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
