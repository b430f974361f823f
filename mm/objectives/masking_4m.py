"""4M's masking, drawn on device inside the step: budgets from a mixture of Dirichlet laws, texts with holes.

Every example draws a component of the mixture, which shares out two budgets of tokens among its modalities: what is seen,
and what is asked. Images show and ask for random places. Of a text (or a row of embeddings) random tokens are
kept; every run of the others is one sentinel in the input, and a sentinel followed by the run in the target. What a
modality has no room for is lost, so that the real numbers of tokens are below the budgets, as in 4M.

Source: Mizrahi et al. 2023 (4M-7); Bachmann et al. 2024 (4M-21); the details are those of their code.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mm.errors import UserError, nearest
from mm.objectives.packing_4m import Buffer, packed
from mm.objectives.spans_4m import chunks_of, cut, draw_kept, embedded, spans, written
from mm.space import Batch, Dense, Modality, Sequence, TokenSpace, View

SCHEMES = ("random", "all", "binary")
Ends = tuple[int, int]
LEAST = 1e-9  # concentration of what may be drawn, and is never meant to be
WHOLE = np.nextafter(np.float32(1), np.float32(0))  # the largest share that PyTorch draws
NONE = -1e30  # a draw of the least concentration is about -1e10
SHORTER = (
    0.9  # what tokens are kept with, over what they were kept with when the input was too long
)


@dataclasses.dataclass(kw_only=True, slots=True)
class Component:
    """One law of the mixture.

    Attributes:
      weight: how often it is drawn, beside the others.
      input_alphas, target_alphas: modality -> concentration of its share of what is seen, and asked; missing = 0: (next to)
        never. What a modality is given that can be no input, or no target, is lost.
      keep: sequence -> share of its tokens that is kept: `random` (uniform in [0, 1)), `all`, `binary` (all or none);
        missing = random. Less is kept until the input is within its budget.
    """

    weight: float = 1.0
    input_alphas: dict[str, float] = dataclasses.field(default_factory=dict)
    target_alphas: dict[str, float] = dataclasses.field(default_factory=dict)
    keep: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(kw_only=True, slots=True)
class Masking4M:
    """The mixture of masks, as 4M draws it.

    Attributes:
      visible, targets: most tokens in the encoder's and the decoder's view (static sizes), the upper ends of the budgets.
      least_visible, least_targets: their lower ends (budgets are uniform in between); None = the same as the upper ones.
      components: the mixture; see `mod7`, `mod21`, `all_to_all`.
      chunks: sequence -> (first, last) of the ids that begin a chunk: its chunks are kept or masked whole. The end of the
        text is a chunk of its own, and what stands before the first of these ids another one.
      first_sentinel, sentinels: [S_0] .. [S_199] in the vocabulary of every sequence: the id of the first one, which is not
        in use, and how many there are.
    """

    visible: int = 128
    targets: int = 128
    least_visible: int | None = None
    least_targets: int | None = None
    components: tuple[Component, ...] = ()
    chunks: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    first_sentinel: int = 4
    sentinels: int = 200
    warmup: ClassVar[None] = None

    def views(
        self, key: jax.Array, space: TokenSpace, batch: Batch, hidden: jax.Array | None = None
    ) -> tuple[View, View, jax.Array]:
        """See `generation_views`; `hidden` is of `masking.Masking` only."""
        return generation_views(key, self, space, batch)

    def ends(self) -> tuple[Ends, Ends]:
        """Least and most tokens that are seen, and asked."""
        least = [
            most if low is None else low
            for low, most in (
                (self.least_visible, self.visible),
                (self.least_targets, self.targets),
            )
        ]
        return (least[0], self.visible), (least[1], self.targets)

    def validate(self) -> None:
        """Raises UserError for what cannot be meant in any token space."""
        where = "config.task.masking"
        for field, (least, most) in zip(("visible", "targets"), self.ends(), strict=True):
            if most < 1 or not 0 <= least <= most:
                raise UserError(
                    f"{where}: {field}={most}, least_{field}={least}: must be at least 1, and 0 .. {field}"
                )
        if not self.components or not sum(c.weight for c in self.components) > 0:
            raise UserError(
                f"{where}.components: nothing to draw; take them from masking_4m.mod7(space), or give one a weight"
            )
        for i, c in enumerate(self.components):
            for field in ("input_alphas", "target_alphas"):
                for name, alpha in getattr(c, field).items():
                    if not 0 <= alpha < np.inf:
                        raise UserError(
                            f"{where}.components[{i}].{field}[{name!r}]={alpha}: must be 0 or more"
                        )
            for name, scheme in c.keep.items():
                if scheme not in SCHEMES:
                    raise UserError(
                        f"{where}.components[{i}].keep[{name!r}]={scheme!r}: use {', '.join(SCHEMES)}"
                    )
            if not c.weight >= 0:
                raise UserError(f"{where}.components[{i}].weight={c.weight}: must be 0 or more")

    def check(self, space: TokenSpace) -> None:
        """Raises UserError for what a token space has not: modalities, or ids for sentinels and chunks."""
        where = "config.task.masking"
        for c in self.components:
            for name in (*c.input_alphas, *c.target_alphas, *c.keep):
                if name not in space.names:
                    raise UserError(
                        f"{where}.components: no modality {name!r}{nearest(name, space.names)}"
                    )
        for name, (first, last) in self.chunks.items():
            vocabulary = space[name].vocabulary if name in space.names else None
            if not vocabulary or not 0 <= first <= last < vocabulary.size:
                raise UserError(
                    f"{where}.chunks[{name!r}]={first, last}: no range of its ids; give the first and the last id that begins a chunk"
                )
        for m in space.modalities:
            if m.vocabulary is None or not in_spans(m):
                continue
            needed, end = (m.size + 1) // 2 + 2, self.first_sentinel + self.sentinels
            if needed > self.sentinels or end > m.vocabulary.size:
                raise UserError(
                    f"{where}: sentinels={self.sentinels} from first_sentinel={self.first_sentinel}: {m.name!r} has "
                    f"{m.vocabulary.size} ids and needs {needed} sentinels for {m.size} tokens; make room for them in its vocabulary"
                )


def in_spans(m: Modality) -> bool:
    """Whether what is hidden of it are spans (a text, a row of embeddings), not places."""
    return isinstance(m.layout, Sequence) or (isinstance(m.layout, Dense) and not m.layout.grid)


class Budgets(NamedTuple):
    """Per example and modality.

    Attributes:
      visible, targets: int32[B, M], most tokens.
      keep: float32[B, M], what a token of a sequence is kept with at first.
      pick: float32[B, M] in [0, 1), which sentinel the target begins with where it is too long.
    """

    visible: jax.Array
    targets: jax.Array
    keep: jax.Array
    pick: jax.Array


def draw_budgets(
    key: jax.Array, settings: Masking4M, space: TokenSpace, present: jax.Array
) -> Budgets:
    """A component for each example, and what it says.

    Args:
      present: bool[B, M]; what is absent has no budget.
    """
    keys, parts = jax.random.split(key, 5), settings.components
    rows, size = len(present), jnp.array([m.size for m in space.modalities])
    weight = jnp.array([c.weight for c in parts])
    drawn = jax.random.categorical(keys[0], jnp.log(weight), shape=(rows,))

    def of(role: str, given: list[dict[str, float]]) -> jax.Array:
        alphas = [[concentration(m, a, role) for m in space.modalities] for a in given]
        return jnp.array(alphas)[drawn] * present

    alphas = of("seen", [c.input_alphas for c in parts]), of("predicted", [c.target_alphas for c in parts])  # fmt: skip
    shares = draw_shares(keys[1], jnp.stack(alphas))
    total = [
        jax.random.randint(k, (rows, 1), least, most + 1)
        for k, (least, most) in zip(keys[2:4], settings.ends(), strict=True)
    ]
    visible = share_out(shares[0], total[0], present * size)
    taken = jnp.where(jnp.array([in_spans(m) for m in space.modalities]), 0, visible)
    targets = share_out(shares[1], total[1], present * size - taken)
    schemes = [[SCHEMES.index(c.keep.get(n, "random")) for n in space.names] for c in parts]
    scheme, (u, pick) = jnp.array(schemes)[drawn], jax.random.uniform(keys[4], (2, *present.shape))
    keep = jnp.where(scheme == 0, u, jnp.where(scheme == 1, 1.0, u < 0.5))
    return Budgets(visible, targets, jnp.where(visible > 0, keep, 0.0), pick)


def concentration(m: Modality, alphas: Mapping[str, float], role: str) -> float:
    """Of a modality's share; 0 = it takes no part."""
    alpha = alphas.get(m.name, 0.0)
    return max(alpha, LEAST) if alpha or getattr(m, role) else 0.0


def draw_shares(key: jax.Array, alphas: jax.Array) -> jax.Array:
    """Independent draws of M shares each, p ~ Dirichlet(alphas), as logarithms but for a constant: float32[..., D, M] with
    D = M, or 2 of a single one.

    Args:
      alphas: float32[..., M], 0 = takes no part: its share is the logarithm of nothing, `NONE`.
    """
    draws = max(alphas.shape[-1], 2)
    alphas = jnp.repeat(alphas[..., None, :], draws, -2)
    return jnp.where(alphas > 0, jax.random.loggamma(key, jnp.where(alphas > 0, alphas, 1.0)), NONE)


def share_out(shares: jax.Array, total: jax.Array, room: jax.Array) -> jax.Array:
    """floor(total * p) of the first draw, the remainder one by one to the largest shares of the others; what is beyond the
    room then is lost: int32[B, M].

    No share is a whole one, as in 4M: where one modality is drawn alone, one token is left for the next draw.

    Args:
      shares: float32[B, D, M], see `draw_shares`. total: int32[B, 1]. room: int32[B, M].
    """
    count = room.shape[1]
    part = jnp.minimum(jax.nn.softmax(shares[:, 0]), WHOLE)
    whole = jnp.floor(total * part).astype(jnp.int32)
    rest = total - whole.sum(1, keepdims=True)  # at most count - 1, of a single one 1
    given = jax.nn.one_hot(shares[:, 1:].argmax(-1), count, dtype=jnp.int32)
    given = jnp.where(jnp.arange(given.shape[1])[:, None] < rest[..., None], given, 0).sum(1)
    return jnp.where(shares[:, 0] > NONE, jnp.minimum(whole + given, room), 0)


def scattered(key: jax.Array, ids: jax.Array, visible: jax.Array, targets: jax.Array) -> Buffer:
    """An image: of a random order of its places the first are seen, the next ones asked.

    Args:
      ids: [B, L], or values [B, L, features]. visible, targets: int32[B, 1].
    """
    order = jnp.argsort(jax.random.uniform(key, ids.shape[:2]), axis=1)
    return Buffer(ids, order < visible, (order >= visible) & (order < visible + targets))


def text(
    key: jax.Array, m: Modality, settings: Masking4M, ids: jax.Array, there: jax.Array, b: Budgets
) -> Buffer:
    """A sequence: see `spans_4m.written`, and of embeddings `spans_4m.embedded`.

    Args:
      ids: int32[B, L], or values [B, L, features]. there: bool[B, L]. b: of this modality, [B, 1] each.
    """
    chunk, limits = None, settings.chunks.get(m.name)
    if m.vocabulary and limits:
        chunk = chunks_of(ids, m.vocabulary.eos, *limits)
    s = spans(draw_kept(key, b.keep, there, b.visible, chunk), there)
    if m.vocabulary:
        start, count = cut(b.pick, s, b.targets)
        return written(ids, s, b.visible, start, count, settings.first_sentinel)
    return embedded(ids, s, b.visible)


def buffers(key: jax.Array, settings: Masking4M, space: TokenSpace, batch: Batch) -> dict[str, Buffer]:  # fmt: skip
    """What is seen and asked of every modality."""
    present = jnp.stack([batch.present[n] for n in space.names], 1)
    key, *keys = jax.random.split(key, 1 + len(space.modalities))
    budgets, made = draw_budgets(key, settings, space, present), {}
    for i, (m, own) in enumerate(zip(space.modalities, keys, strict=True)):
        ids = jnp.asarray((batch.ids if m.vocabulary else batch.values)[m.name])
        b = Budgets(*(x[:, i : i + 1] for x in budgets))
        if in_spans(m):
            there = jnp.arange(m.size) < jnp.asarray(batch.length[m.name])[:, None]
            made[m.name] = text(own, m, settings, ids, there, b)
        else:
            made[m.name] = scattered(own, ids, b.visible, b.targets)
    return made


def generation_views(
    key: jax.Array, settings: Masking4M, space: TokenSpace, batch: Batch
) -> tuple[View, View, jax.Array]:
    """The encoder's view, the decoder's view, and how many tokens of each modality are visible (int32[B, M])."""
    made = buffers(key, settings, space, batch)
    seen = jnp.stack([made[m.name].seen.sum(1) * m.seen for m in space.modalities], 1)
    return *packed(made, space, settings.visible, settings.targets), seen


TYPES = (1204, 2203)
"""Ids of v1=0 .. v1=999 in 4M's vocabulary: a figure of metadata is one of them and its value."""


def all_to_all(space: TokenSpace, alpha: float = 0.5, **sizes: Any) -> Masking4M:
    """Everything from everything, all concentrations alike.

    Args:
      sizes: other fields of `Masking4M`.
    """
    return _of(space, sizes, even(space, alpha, alpha))


def mod7(space: TokenSpace, **sizes: Any) -> Masking4M:
    """What 4M-7 was trained with: all to all, and pixels to all, as often; 128 tokens seen, 128 asked."""
    return _of(space, sizes, even(space, 0.5, 0.5), even(space, 0.0, 0.5, {pixels(space): 1000.0}))


def mod21(space: TokenSpace, **sizes: Any) -> Masking4M:
    """What 4M-21 was trained with: all to all with four concentrations, pixels to all, each of two captions to all without the
    other (half as often); 256 tokens seen, 256 asked. Embeddings of captions have a share of what is asked, too, which is
    lost, but not where they are what is seen."""
    lost = ("t5_caption",)
    parts = [even(space, a, a, lost=lost) for a in (0.01, 0.1, 1.0, 10.0)]
    parts.append(even(space, 0.0, 0.5, {pixels(space): 1000.0}, lost=lost))
    captions = [n for n in ("caption", "t5_caption") if n in space.names]
    for name in captions:
        given = dict.fromkeys(captions, 0.0) | {name: 5.0}
        parts.append(even(space, 0.05, 0.5, given, lost=lost, weight=0.5))
        parts[-1].target_alphas[name] = 0.0
        parts[-1].keep[name] = "all"
    return _of(space, {"visible": 256, "targets": 256} | sizes, *parts)


def even(
    space: TokenSpace, inputs: float, targets: float, more: Mapping[str, float] | None = None, *,
    lost: Collection[str] = (), weight: float = 1.0,
) -> Component:  # fmt: skip
    """One concentration for all inputs but those with `more`, one for all targets and what is `lost`."""
    return Component(
        weight=weight,
        input_alphas={m.name: inputs for m in space.modalities if m.seen} | dict(more or {}),
        target_alphas={m.name: targets for m in space.modalities if m.predicted or m.name in lost},
        keep={n: "binary" for n in space.names if n == "color_palette"},
    )


def pixels(space: TokenSpace) -> str:
    """The first modality of pixels. Raises UserError where there is none."""
    for m in space.modalities:
        if isinstance(m.layout, Dense) and m.layout.grid:
            return m.name
    raise UserError(
        f"4M's mixtures begin with pixels, and none of {', '.join(space.names)} is; use masking_4m.all_to_all"
    )


def _of(space: TokenSpace, sizes: Mapping[str, Any], *components: Component) -> Masking4M:
    fits = lambda m: m.name == "metadata" and m.vocabulary and m.vocabulary.size > TYPES[1]
    chunks = {m.name: TYPES for m in space.modalities if fits(m)}
    return Masking4M(**({"components": components, "chunks": chunks} | dict(sizes)))
