"""Several codes for each latent: quantizers beside each other, each for its own features, or after each other, each for
what those before it left.

Every one of the m quantizers has ids of its own, `codes` of one after `codes` of another, so an id means one thing.
"""

import dataclasses
from typing import Any

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
    straight_through,
)
from mm.tokenizers.quantizers.fsq import FSQ, digits, number
from mm.tokenizers.quantizers.vector import VectorQuantizer


@dataclasses.dataclass(kw_only=True, slots=True)
class Product(Quantizer):
    """A latent's features in m equal parts, each with a quantizer of its own.

    Of `GumbelQuantizer`, it makes what 4M calls memcodes; of `VectorQuantizer`, product quantization (Jegou et al. 2011).

    Attributes:
      part: settings of each. parts: m.
    """

    part: Any = dataclasses.field(default_factory=VectorQuantizer)
    parts: int = 4

    @property
    def codes(self) -> int:
        return self.parts * self.part.codes

    @property
    def width(self) -> int:
        return self.parts * self.part.width

    @property
    def per_latent(self) -> int:
        return self.parts

    @property
    def learned(self) -> frozenset[str]:
        return self.part.learned

    def validate(self) -> None:
        """Raises UserError: no parts, or parts that have several codes themselves."""
        check_several(self.part, self.parts, "part", "parts")

    def init(self, key: jax.Array) -> Buffers:
        """Each one's arrays, stacked."""
        return jax.vmap(self.part.init)(jax.random.split(key, self.parts))

    def _each(self, x: jax.Array) -> list[jax.Array]:
        return jnp.split(x, self.parts, axis=-1)

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., d]: ids int32[..., m]."""
        found = [
            self.part.quantize(one_of(buffers, i), x, None if key is None else jax.random.fold_in(key, i))
            for i, x in enumerate(self._each(z))
        ]  # fmt: skip
        return Quantized(
            jnp.stack([q.ids + i * self.part.codes for i, q in enumerate(found)], -1),
            jnp.concatenate([q.vectors for q in found], -1),
            jnp.stack([q.latents for q in found], -2),
        )

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[..., m] -> vectors float32[..., d]."""
        local = ids - self.part.codes * np.arange(self.parts)
        found = [self.part.lookup(one_of(buffers, i), local[..., i]) for i in range(self.parts)]
        return jnp.concatenate(found, -1)

    def ids_of(self, buffers: Buffers, vectors: jax.Array) -> jax.Array:
        """float32[..., d] -> int32[..., m]."""
        found = [self.part.ids_of(one_of(buffers, i), x) for i, x in enumerate(self._each(vectors))]
        return jnp.stack(found, -1) + self.part.codes * np.arange(self.parts)

    def update(self, buffers: Buffers, quantized: Quantized, key: jax.Array) -> Buffers:
        """Each by its part of the batch."""
        return updated(self.part, buffers, quantized, key)

    def terms(self, buffers: Buffers, quantized: Quantized) -> Terms:
        """Those of all parts; `usage` and `perplexity` of all codes together."""
        return terms_of(self.part, buffers, quantized) | code_terms(quantized.ids, self.codes)

    def table(self, buffers: Buffers) -> jax.Array | None:
        """Every code's vector in its own features, zero in those of others; None where parts' codes are mere names."""
        tables = [self.part.table(one_of(buffers, i)) for i in range(self.parts)]
        if any(t is None for t in tables):
            return None
        return jax.scipy.linalg.block_diag(*tables)


@dataclasses.dataclass(kw_only=True, slots=True)
class Residual(Quantizer):
    """Codes after each other: each quantizes what those before it left, and a latent's vector is their sum.

    Attributes:
      stage: settings of each, a `VectorQuantizer` of whole latents (no `cosine`, no `drift`).
      stages: m.
      dropout: share of the training latents' rows that keep only the first codes, as many as a draw says, so that
        a decoder can do with fewer (Zeghidour et al. 2021, SoundStream, section III.C).
      beam: how many beginnings `ids_of` follows.
    """

    stage: VectorQuantizer = dataclasses.field(
        default_factory=lambda: VectorQuantizer(cosine=False)
    )
    stages: int = 4
    dropout: float = 0.0
    beam: int = 16

    @property
    def codes(self) -> int:
        return self.stages * self.stage.codes

    @property
    def width(self) -> int:
        return self.stage.width

    @property
    def per_latent(self) -> int:
        return self.stages

    def validate(self) -> None:
        """Raises UserError: no stages, stages that lose lengths, or a share that is none."""
        check_several(self.stage, self.stages, "stage", "stages")
        if self.stage.cosine:
            raise UserError(
                "config.task.quantizer.stage.cosine: what is left of a latent has a length; make it False"
            )
        check_share(self.dropout)

    def init(self, key: jax.Array) -> Buffers:
        """Each one's arrays, stacked."""
        return jax.vmap(self.stage.init)(jax.random.split(key, self.stages))

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., d]: ids int32[..., m], coarse first; with a key some may be none."""
        kept = kept_stages(z.shape[:-1], self.stages, self.dropout, key)
        left, ids, latents = z, [], []
        for i in range(self.stages):
            found = self.stage.quantize(one_of(buffers, i), left)
            ids.append(jnp.where(i < kept, found.ids + i * self.stage.codes, self.codes))
            latents.append(left)
            left = left - self.stage.lookup(one_of(buffers, i), found.ids)
        ids = jnp.stack(ids, -1)
        vectors = straight_through(z, self.lookup(buffers, ids))
        return Quantized(ids, vectors, jnp.stack(latents, -2))

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[..., m] (or fewer: the first) -> vectors float32[..., d], their sums; no code adds nothing."""
        total = jnp.zeros((*ids.shape[:-1], self.width))
        for i in range(ids.shape[-1]):
            local = ids[..., i] - i * self.stage.codes
            there = (local >= 0) & (local < self.stage.codes)
            total += jnp.where(there[..., None], self.stage.lookup(one_of(buffers, i), local), 0.0)
        return total

    def ids_of(self, buffers: Buffers, vectors: jax.Array) -> jax.Array:
        """The codes whose sum is nearest: float32[..., d] -> int32[..., m]. With a `beam` of codes^(m - 1) always,
        with fewer beginnings nearly so."""
        flat = vectors.reshape(-1, self.width)
        left, ids = flat[:, None], jnp.zeros((len(flat), 1, 0), jnp.int32)
        for i in range(self.stages):
            book = buffers["codebook"][i]
            after = left[:, :, None] - book  # [N, beam, K, d]
            error = jnp.square(after).sum(-1).reshape(len(flat), -1)
            _, best = jax.lax.top_k(-error, min(self.beam, error.shape[1]))
            beginning, code = jnp.divmod(best, len(book))
            rows = jnp.arange(len(flat))[:, None]
            left = after[rows, beginning, code]
            new = (code + i * len(book)).astype(jnp.int32)
            ids = jnp.concatenate([ids[rows, beginning], new[..., None]], -1)
        return ids[:, 0].reshape(*vectors.shape[:-1], self.stages)

    def update(self, buffers: Buffers, quantized: Quantized, key: jax.Array) -> Buffers:
        """Each by what came to it; latents without a code there have no say."""
        return updated(self.stage, buffers, quantized, key)

    def terms(self, buffers: Buffers, quantized: Quantized) -> Terms:
        """Those of all stages; `usage` and `perplexity` of all codes together."""
        return terms_of(self.stage, buffers, quantized) | code_terms(quantized.ids, self.codes)

    def table(self, buffers: Buffers) -> jax.Array:
        """Every code's share of a vector, float32[codes, d]."""
        return self.lookup(buffers, alone(self))


@dataclasses.dataclass(kw_only=True, slots=True)
class ResidualFSQ(Quantizer):
    """A lattice whose cells are split again, m - 1 times, into as many cells as it has levels.

    Attributes:
      levels: per feature; see `FSQ`. stages: m. dropout: see `Residual`.
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)
    stages: int = 4
    dropout: float = 0.0

    @property
    def first(self) -> FSQ:
        """The coarsest lattice."""
        return FSQ(levels=tuple(self.levels))

    @property
    def codes(self) -> int:
        return self.stages * self.first.codes

    @property
    def width(self) -> int:
        return len(self.levels)

    @property
    def per_latent(self) -> int:
        return self.stages

    def validate(self) -> None:
        """Raises UserError: no stages, or a share that is none."""
        check_several(self.first, self.stages, "levels", "stages")
        check_share(self.dropout)

    def cell(self, i: int) -> np.ndarray:
        """float32[d], the width of a cell of stage i, 0 the first, among vectors."""
        return (1 / (self.first.half * np.array(self.levels, np.float64) ** i)).astype(np.float32)

    def quantize(self, buffers: Buffers, z: jax.Array, key: jax.Array | None = None) -> Quantized:
        """Codes of latents z float32[..., d]: ids int32[..., m], coarse first; with a key some may be none."""
        bounded = self.first.bound(z)
        kept = kept_stages(z.shape[:-1], self.stages, self.dropout, key)[..., None]
        ids = self.ids_of(buffers, jax.lax.stop_gradient(bounded))
        ids = jnp.where(np.arange(self.stages) < kept, ids, self.codes)
        return Quantized(ids, straight_through(bounded, self.lookup(buffers, ids)), bounded)

    def lookup(self, buffers: Buffers, ids: jax.Array) -> jax.Array:
        """ids int32[..., m] (or fewer: the first) -> vectors float32[..., d]; no code adds nothing."""
        size = self.first.codes
        total = jnp.zeros((*ids.shape[:-1], self.width))
        for i in range(ids.shape[-1]):
            local = ids[..., i] - i * size
            there = ((local >= 0) & (local < size))[..., None]
            total += jnp.where(there, self._offset(local, i), 0.0)
        return total

    def ids_of(self, buffers: Buffers, vectors: jax.Array) -> jax.Array:
        """float32[..., d] -> int32[..., m]."""
        size, levels = self.first.codes, np.array(self.levels)
        ids, left = [], vectors
        for i in range(self.stages):
            cells = left / self.cell(i)
            middle = jnp.round(cells) + levels // 2 if i == 0 else jnp.floor(cells + levels / 2)
            local = number(middle, self.levels)
            ids.append(local + i * size)
            left = left - self._offset(local, i)
        return jnp.stack(ids, -1)

    def _offset(self, local: jax.Array, i: int) -> jax.Array:
        """What stage i adds to a vector: its ids, counted from 0, int32[...] -> float32[..., d]."""
        levels = np.array(self.levels)
        middle = levels // 2 if i == 0 else (levels - 1) / 2
        return (digits(local, self.levels) - middle) * self.cell(i)

    def table(self, buffers: Buffers) -> jax.Array:
        """Every code's share of a vector, float32[codes, d]."""
        return self.lookup(buffers, alone(self))


def alone(quantizer: Quantizer) -> jax.Array:
    """Every code of a residual quantizer with none before or after it: int32[codes, m]."""
    codes, m = quantizer.codes, quantizer.per_latent
    ids = np.arange(codes)
    return jnp.asarray(np.where(ids[:, None] // (codes // m) == np.arange(m), ids[:, None], codes))


def one_of(arrays: Any, i: int) -> Any:
    """The i-th quantizer's arrays."""
    return jax.tree.map(lambda a: a[i], arrays)


def kept_stages(shape: tuple[int, ...], stages: int, dropout: float, key: jax.Array | None) -> jax.Array:  # fmt: skip
    """How many codes latents keep, int32[B, 1, ...]: the same number in a row of the batch, at least one."""
    rows = (shape[0], *[1] * (len(shape) - 1))
    if key is None or not dropout:
        return jnp.full(rows, stages)
    of_rows, of_number = jax.random.split(jax.random.fold_in(key, 7))
    some = jax.random.randint(of_number, rows, 1, stages + 1)
    return jnp.where(jax.random.bernoulli(of_rows, dropout, rows), some, stages)


def updated(one: Quantizer, buffers: Buffers, quantized: Quantized, key: jax.Array) -> Buffers:
    """Buffers of m quantizers of a kind, each moved by its own ids and latents."""
    keys = jax.random.split(key, quantized.ids.shape[-1])
    return jax.vmap(one.update)(buffers, _stacked(one, quantized), keys)


def terms_of(one: Quantizer, buffers: Buffers, quantized: Quantized) -> Terms:
    """Terms of m quantizers of a kind, added up."""
    each = jax.vmap(one.terms)(buffers, _stacked(one, quantized))
    return jax.tree.map(lambda x: x.sum(0), each)


def _stacked(one: Quantizer, quantized: Quantized) -> Quantized:
    """The quantizers' axis first, ids counted from 0; no code stays beyond the end."""
    m = quantized.ids.shape[-1]
    none = quantized.ids >= m * one.codes
    ids = jnp.where(none, one.codes, quantized.ids - one.codes * np.arange(m))
    latents = jnp.moveaxis(quantized.latents, -2, 0)
    return Quantized(jnp.moveaxis(ids, -1, 0), latents, latents)


def check_several(one: Any, number: int, what: str, field: str) -> None:
    """Raises UserError: fewer than one of them, or each has several codes itself."""
    if number < 1 or one.per_latent > 1:
        raise UserError(
            f"config.task.quantizer.{field}={number}: at least 1, of a {what} that writes one code; change it"
        )
    one.validate()


def check_share(dropout: float) -> None:
    """Raises UserError: no share."""
    if not 0 <= dropout <= 1:
        raise UserError(f"config.task.quantizer.dropout={dropout}: a share, 0 .. 1; change it")
