"""The trunk: 4M's encoder-decoder over the shared token space, with embeddings for contrast.

The encoder reads the visible tokens of all modalities together, the decoder predicts hidden ones
(queries carry no ids; as 4M does it, those of a sequence may be told the token before theirs). The first layers
of the encoder, called a second time on single modalities, give one unimodal embedding each; the encoder's output pools into a fused embedding of all that is visible.
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
    product,
    run_stack,
    sincos_1d,
    sincos_2d,
    stack,
    unit,
)
from mm.space import Dense, Grid, Rows, Sequence, TokenSpace, Vector, View


@dataclasses.dataclass(kw_only=True, slots=True)
class Model:
    """Size and kind of the trunk.

    Attributes:
      width: features per token; heads of width // heads features each.
      token_scale: input embeddings are multiplied by this and their table begins at 1 / token_scale, so that tokens are not
        drowned by positions; 0 = sqrt(width). (4M's weights want 1, and a table that begins at 0.02: `token_std`.)
      positions: `sincos` (fixed), or `learned`, one free vector per place that begins random and as large as sin-cos: in
        small grids the waves hardly differ between places; or `by_layout`, learned for vectors only, queries' apart (4M's).
      tables: vectors of ids. `one`, by which tokens are read, told to queries and predicted; `two`, of its own what is read;
        `three`, of its own what is predicted as well.
      registers: learned tokens at the head of what the encoder reads.
      padding_speaks: a row that sees nothing attends to what the encoder made of padding (4M's), not to nothing.
      codebook_init: share of the variance of token embeddings that begins as a random projection of what the codes stand
        for in their tokenizer (its codebook), so that like codes begin alike; 0 = none, all random.
      mlp: `gelu`, `gelu_tanh` or `swiglu`. bias: of linear layers and norms.
      embed_layers: encoder layers that the unimodal embeddings run through (K). embed_dim: their size; 0 leaves out all
        that contrast needs.
      scan: loop over stacked layers (small program) instead of unrolling them (some per cent faster on CPU).
      attention: `xla`, `cudnn` (NVIDIA GPUs) or `splash` (TPUs): the same numbers within rounding; see docs/speed.md.
      remat: `none`, `dots` or `full`. dtype: of matrix products; `auto` = bfloat16, but float32 on CPU.
      float32_stream: what the layers add up, and what they add to it, is kept in float32 where products are not.
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
    tables: str = "one"
    registers: int = 0
    padding_speaks: bool = False
    codebook_init: float = 0.0
    mlp: str = "gelu"
    bias: bool = True
    qk_norm: bool = False
    attention: str = "xla"
    scan: bool = True
    remat: str = "none"
    dtype: str = "auto"
    float32_stream: bool = False


CONTRAST = ("unimodal_norm", "unimodal", "fused", "logit_scale")
"""Parts that only contrast needs: a model that learns it later begins them fresh."""
POSITIONS = ("sincos", "learned", "by_layout")
TABLES = ("one", "two", "three")


def compute_dtype(name: str) -> Any:
    """`auto` -> bfloat16 on accelerators, float32 on CPU (where XLA has no bfloat16 product)."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def learned_places(space: TokenSpace, positions: str, role: str) -> dict[str, slice]:
    """Modality -> its places among those whose vectors are learned, in order.

    Args:
      role: where vectors of inputs and of queries are apart, which of them: `seen`, `predicted`.
    """
    slices, end = {}, 0
    for m in space.modalities:
        by_layout = positions == "by_layout" and isinstance(m.layout, Vector) and getattr(m, role)
        if positions == "learned" or by_layout:
            slices[m.name] = slice(end, end + m.places)
            end += m.places
    return slices


def position_table(space: TokenSpace, width: int, learned: Mapping[str, jax.Array]) -> jax.Array:
    """Position embeddings float32[places, width]: 2-D sin-cos for grids, 1-D for everything else, but for learned ones."""
    tables = []
    for m in space.modalities:
        layout = m.layout
        grid = (layout.h, layout.w) if isinstance(layout, Grid) and layout.t == 1 else None
        grid = layout.grid if isinstance(layout, Dense) else grid
        if m.name in learned:
            tables.append(learned[m.name])
        elif grid and grid[0] > 1:
            tables.append(sincos_2d(*grid, width))
        else:
            tables.append(sincos_1d(m.places, width))
    return jnp.concatenate(tables)


class EncoderDecoder(nnx.Module):
    """See the module. All methods are pure; B examples, N visible tokens, Q queries, D features."""

    def __init__(self, settings: Model, space: TokenSpace, *, rngs: nnx.Rngs):
        width, dtype = settings.width, compute_dtype(settings.dtype)
        stream = jnp.float32 if settings.float32_stream else dtype
        precision: dict[str, Any] = {"dtype": dtype, "result": stream}
        kind: dict[str, Any] = {"mlp": settings.mlp, "bias": settings.bias, "dtype": dtype}
        kind |= {"stream": stream, "qk_norm": settings.qk_norm, "impl": settings.attention}
        normal = lambda *shape, std=0.02: nnx.Param(std * jax.random.normal(rngs.params(), shape))
        self.token_scale = settings.token_scale or width**0.5
        std, tables = settings.token_std or 1 / self.token_scale, TABLES.index(settings.tables)
        self.seen, self.told = (
            (space.only("seen"), space.only("predicted")) if tables else (space, space)
        )
        self.token = normal(self.seen.size, width, std=std)
        self.target = normal(self.told.size, width, std=std) if tables >= 1 else None
        self.head = normal(self.told.size, width, std=std) if tables >= 2 else None
        self.modality = normal(len(space.modalities), width)
        of_all, apart = (settings.positions == kind for kind in ("learned", "by_layout"))
        self.learned = {
            role: learned_places(space, settings.positions, role) for role in ("seen", "predicted")
        }
        seen, told = (
            max((s.stop for s in part.values()), default=0) for part in self.learned.values()
        )
        self.position = normal(seen, width, std=0.5**0.5 if of_all else 0.02) if seen else None
        self.target_position = normal(told, width) if apart and told else None
        self.dense = nnx.Dict(
            {
                m.name: Linear(m.layout.shape[1], width, rngs=rngs, bias=m.layout.bias, **precision)
                for m in space.modalities
                if isinstance(m.layout, Dense)
            }
        )
        self.registers = normal(settings.registers, width) if settings.registers else None
        self.mask_token = normal(width)
        self.encoder = stack(
            lambda r: Block(width, settings.heads, rngs=r, **kind), settings.encoder_layers, rngs
        )
        self.encoder_norm = LayerNorm(width, bias=settings.bias)
        self.context = Linear(width, width, rngs=rngs, **precision)
        self.decoder = stack(
            lambda r: DecoderBlock(width, settings.heads, rngs=r, **kind),
            settings.decoder_layers,
            rngs,
        )
        self.decoder_norm = LayerNorm(width, bias=settings.bias)
        if settings.embed_dim:
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
        self.settings, self.space, self.dtype, self.stream = settings, space, dtype, stream

    def places(self, place: jax.Array, role: str = "seen") -> jax.Array:
        """Position and modality embeddings [..., D] of places, of inputs or of queries (`predicted`)."""
        apart = role == "predicted" and self.settings.positions == "by_layout"
        table = self.target_position if apart else self.position
        learned = {} if table is None else {n: table[...][s] for n, s in self.learned[role].items()}
        position = position_table(self.space, self.settings.width, learned)
        return (position + self.modality[...][self.space.per_place()["modality"]])[place]

    def rows_of(self, ids: jax.Array, place: jax.Array, part: TokenSpace) -> jax.Array:
        """Where ids on the id line lie in a table of only some modalities."""
        if part == self.space:
            return ids
        shift = [
            part.offset(m.name) - self.space.offset(m.name) if m.name in part.names else 0
            for m in self.space.modalities
        ]
        return ids + jnp.asarray(shift)[self.space.per_place()["modality"]][place]

    def read(self, view: View) -> jax.Array:
        """What tokens say, by their ids or their values: [B, N, D]."""
        x = self.token_scale * self.token[...][self.rows_of(view.ids, view.place, self.seen)]
        modality = jnp.asarray(self.space.per_place()["modality"])[view.place]
        for name, values in view.values.items():
            said = jnp.take_along_axis(
                self.dense[name](values),
                jnp.clip(view.ids, 0, values.shape[1] - 1)[..., None],
                axis=1,
            )
            x = jnp.where((modality == self.space.index(name))[..., None], said, x)
        return x

    def encode(self, view: View, *, layers: int | None = None) -> jax.Array:
        """Visible tokens -> float[B, R + N, D]: after all layers and the final norm, or raw after the first `layers`.

        Registers (R, see `Model`) come first; `without_registers` cuts them off.
        """
        x = self.read(view) + self.places(view.place)
        x = self.behind_registers(jnp.where(view.mask[..., None], x, 0).astype(self.stream))
        mask = self.registers_there(view.mask)
        run = partial(run_stack, scan=self.settings.scan, remat=self.settings.remat)
        x = run(self.encoder, x, Mask.of_keys(mask), first=layers)
        return x if layers is not None else self.encoder_norm(x)

    def behind_registers(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, R + N, D]."""
        if self.registers is None:
            return x
        first = jnp.broadcast_to(self.registers[...], (len(x), *self.registers.shape))
        return jnp.concatenate([first.astype(x.dtype), x], 1)

    def registers_there(self, mask: jax.Array) -> jax.Array:
        """bool[B, N] -> bool[B, R + N]."""
        return jnp.pad(mask, ((0, 0), (self.settings.registers, 0)), constant_values=True)

    def without_registers(self, x: jax.Array) -> jax.Array:
        """[B, R + N, D] -> [B, N, D]."""
        return x[:, self.settings.registers :]

    def decode(
        self, queries: View, context_bnd: jax.Array, visible: View, *, silent: bool = False
    ) -> jax.Array:
        """Queries (their ids are not read, but what they are told is) over the encoder's output -> float[B, Q, D].

        Queries see queries of their own modality; in a sequence only those before them, or the number of
        queries would tell how long the text is.

        Args:
          silent: rows that see nothing read nothing at all (as 4M generates, whose encoder then has no tokens).
        """
        table = self.space.per_place()
        sequential = np.array([isinstance(m.layout, Sequence) for m in self.space.modalities])
        modality = jnp.asarray(table["modality"])[queries.place]
        own = Mask(
            queries=modality,
            keys=jnp.where(queries.mask, modality, PADDING),
            causal=jnp.asarray(sequential)[modality] if sequential.any() else None,
        )
        places = jnp.where(visible.mask[..., None], self.places(visible.place), 0)
        there = self.registers_there(visible.mask)
        places = jnp.pad(places, ((0, 0), (self.settings.registers, 0), (0, 0)))
        context = self.context(context_bnd) + places.astype(self.stream)
        if not self.settings.padding_speaks:  # rows that see nothing attend to all of it alike
            context = jnp.where(there[..., None], context, 0)
        cross = Mask.of_keys(there)._replace(silent=~there.any(1) if silent else None)
        x = (self.told_of(queries) + self.places(queries.place, "predicted")).astype(self.stream)
        x = run_stack(
            self.decoder, x, context, own, cross,
            scan=self.settings.scan, remat=self.settings.remat,
        )  # fmt: skip
        return self.decoder_norm(x)

    def told_of(self, queries: View) -> jax.Array:
        """What queries begin with beside their places: the mask token, or the token that they are told."""
        if queries.given is None:
            return self.mask_token[...]
        table = self.token_scale * self.token[...] if self.target is None else self.target[...]
        rows = self.rows_of(jnp.maximum(queries.given, 0), queries.place, self.told)
        return jnp.where((queries.given >= 0)[..., None], table[rows], self.mask_token[...])

    def logits(self, states: jax.Array, modality: str) -> jax.Array:
        """Decoder states [..., D] -> float32 logits [..., vocabulary] over the modality's own ids only."""
        vocabulary, start = self.space.vocabulary(modality), self.told.offset(modality)
        table = next(t for t in (self.head, self.target, self.token) if t is not None)
        flat = states.reshape(-1, states.shape[-1]).astype(self.dtype)
        logits = product(flat, table[...][start : start + vocabulary.size].T)
        return logits.reshape(*states.shape[:-1], -1)

    def embed_unimodal(self, view: View, modality: jax.Array) -> jax.Array:
        """Tokens of one modality per row -> unit float32[B * M, E].

        Args:
          view: B * M rows: example by example, its M modalities. modality: int32[M]: which (their projections are used).
        """
        encoded = self.without_registers(self.encode(view, layers=self.settings.embed_layers))
        pooled = mean_pool(encoded, view.mask)
        pooled = self.unimodal_norm(pooled).reshape(-1, len(modality), pooled.shape[-1])
        z = jnp.einsum("bmd,mde->bme", pooled, self.unimodal.kernel[...][modality])
        return unit(z.reshape(-1, z.shape[-1]))

    def embed_fused(self, encoded_bnd: jax.Array, view: View) -> jax.Array:
        """The encoder's output -> unit float32[B, E], one embedding of everything visible."""
        return unit(self.fused(mean_pool(self.without_registers(encoded_bnd), view.mask)))


def rows_kept(
    settings: Model, old: TokenSpace, new: TokenSpace, ids: Mapping[str, np.ndarray]
) -> Rows:
    """Where the rows of a model's tables lie when its token space grows.

    Args:
      ids: modality -> where each of its old ids lies in its vocabulary now.

    Raises:
      UserError: a modality is missing in `new`, or has another layout (a sequence may have become longer).
    """
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
    rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for role, paths in (("seen", ("token",)), ("predicted", ("target", "head"))):
        a, b = (s if settings.tables == "one" else s.only(role) for s in (old, new))
        of = [
            (a.offset(n) + np.arange(len(ids[n])), b.offset(n) + ids[n])
            for n in a.names
            if a[n].vocabulary
        ]
        rows |= dict.fromkeys(paths, _side_by_side(of))
    for role, path in (("seen", "position"), ("predicted", "target_position")):
        a, b = (learned_places(s, settings.positions, role) for s in (old, new))
        places = {n: np.arange(s.stop - s.start) for n, s in a.items()}
        rows[path] = _side_by_side([(a[n].start + p, b[n].start + p) for n, p in places.items()])
    rows["modality"] = np.arange(len(old.names)), np.array([new.index(n) for n in old.names])
    return rows | {"unimodal/kernel": rows["modality"]}


def _side_by_side(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    nothing = np.zeros(0, int)
    return np.concatenate([nothing, *(a for a, _ in pairs)]), np.concatenate(
        [nothing, *(b for _, b in pairs)]
    )


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
