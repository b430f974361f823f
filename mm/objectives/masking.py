"""Who sees what: random views of a batch, drawn on device inside the step.

Every example draws a component of the mixture; each component says, per modality, how many tokens are
visible and how many of the hidden ones are targets. Ranks come from pairwise comparison and packing from
cumulative sums: XLA's sorts are slow on CPU.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mm.errors import UserError
from mm.sharding import split_rows
from mm.space import Batch, Modality, TokenSpace, View


@dataclasses.dataclass(kw_only=True, slots=True)
class Warmup:
    """Of every example a share is hidden that grows as training goes on: first contrast learns, then generation.

    The share is drawn from a normal law of width `width`, cut to [0, 1], whose mean goes from 0 to 1 over the first `steps`
    steps and then stays there.

    Attributes:
      generated: examples of which less is hidden are not predicted.
      contrasted: modalities of which less is visible are not contrasted.

    Source: DREAM (arXiv 2603.02667), which draws one share per batch and hides images alone.
    """

    steps: int
    width: float = 0.45
    generated: float = 0.5
    contrasted: float = 0.25

    def draw(self, key: jax.Array, step: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Hidden shares at a step of training, float32[shape]."""
        mean = jnp.minimum(step / self.steps, 1.0)
        low, high = -mean / self.width, (1 - mean) / self.width
        return mean + self.width * jax.random.truncated_normal(key, low, high, shape)


@dataclasses.dataclass(kw_only=True, slots=True)
class Masking:
    """The mixture of masks.

    Attributes:
      visible, targets: most tokens in the encoder's and the decoder's view (static sizes).
      dirichlet: weight of "a random share of everything"; `alphas` are its concentrations, one drawn per example
        (small: nearly all from one modality; large: even shares).
      whole: weight of "some modalities whole, another one in parts": what generation meets. The part shown of the
        other one is nothing with probability `nothing`, else uniform.
      several: share of the `whole` examples that may show more than one modality whole; `further`: then each of the others
        with this probability.
      unconditional: share of the `whole` examples that see nothing but the part (for guidance).
      warmup: decides the part that is shown in its place (and none is a random share of everything).
    """

    visible: int = 32
    targets: int = 24
    dirichlet: float = 0.3
    alphas: tuple[float, ...] = (0.1, 1.0, 10.0)
    whole: float = 0.7
    nothing: float = 0.3
    unconditional: float = 0.1
    several: float = 0.5
    further: float = 0.5
    warmup: Warmup | None = None

    def views(
        self, key: jax.Array, space: TokenSpace, batch: Batch, hidden: jax.Array | None = None
    ) -> tuple[View, View, jax.Array]:
        """See `generation_views`."""
        return generation_views(key, self, space, batch, hidden)

    def validate(self) -> None:
        """Raises UserError for sizes that hold nothing."""
        if min(self.visible, self.targets) < 1:
            raise UserError("config.task.masking: visible and targets must be at least 1")

    def check(self, space: TokenSpace) -> None:
        """Every token space will do."""


def lengths(batch: Batch, space: TokenSpace) -> jax.Array:
    """int32[B, M]: how many tokens each modality really has (0 = absent)."""
    return jnp.stack([jnp.where(batch.present[n], batch.length[n], 0) for n in space.names], 1)


class Roles(NamedTuple):
    """bool[M]: which modalities can be inputs, and targets."""

    seen: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, space: TokenSpace) -> "Roles":
        """Those of a token space."""
        return cls(*(np.array([getattr(m, r) for m in space.modalities]) for r in cls._fields))


def draw_counts(
    key: jax.Array, settings: Masking, roles: Roles, length: jax.Array, hidden: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Visible and target tokens per modality, int32[B, M] each, from the mixture, or as the warm-up has drawn."""
    pick, a, b = jax.random.split(key, 3)
    if settings.warmup and hidden is not None:
        visible, targets = whole_counts(b, settings, roles, length, 1 - hidden)
        return visible, jnp.where(hidden >= settings.warmup.generated, targets, 0)
    share = settings.whole / (settings.whole + settings.dirichlet)
    whole = jax.random.uniform(pick, (length.shape[0], 1)) < share
    first = dirichlet_counts(a, settings, roles, length)
    second = whole_counts(b, settings, roles, length)
    return jnp.where(whole, second[0], first[0]), jnp.where(whole, second[1], first[1])


def dirichlet_counts(
    key: jax.Array, settings: Masking, roles: Roles, length: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A random number of visible tokens, shared out among the modalities present by a Dirichlet draw; likewise targets."""
    k1, k2, k3, k4, k5 = jax.random.split(key, 5)
    rows = length.shape[0]
    alpha = jnp.asarray(settings.alphas)[jax.random.randint(k1, (rows, 1), 0, len(settings.alphas))]
    seen = jax.random.randint(k2, (rows, 1), 1, settings.visible + 1)
    visible = share_out(k3, alpha, seen, length * roles.seen)
    hidden = (length - visible) * roles.predicted
    targets = share_out(k4, alpha, jnp.full((rows, 1), settings.targets), hidden)
    # What the shares left unused goes to whoever still hides tokens, in a random order of modalities.
    return visible, fill(k5, targets, hidden, settings.targets)


def share_out(key: jax.Array, alpha: jax.Array, total: jax.Array, limit: jax.Array) -> jax.Array:
    """floor(total * p), p ~ Dirichlet(alpha) over modalities with limit > 0, clamped to `limit`: int32[B, M]."""
    log_gamma = jax.random.loggamma(key, jnp.broadcast_to(alpha, limit.shape))
    p = jnp.where(limit > 0, jax.nn.softmax(jnp.where(limit > 0, log_gamma, -1e30)), 0.0)
    return jnp.minimum(jnp.floor(total * p).astype(jnp.int32), limit)


def fill(key: jax.Array, count: jax.Array, limit: jax.Array, total: int) -> jax.Array:
    """Trims `count` to `total` per row or raises it towards `limit`, modality by modality in a random order."""
    order = ranks(jax.random.uniform(key, count.shape))  # [B, M]
    earlier = order[:, None, :] < order[:, :, None]  # [B, M, M]: j comes before i
    before = jnp.where(earlier, count[:, None, :], 0).sum(-1)
    count = jnp.clip(total - before, 0, count)
    spare = limit - count
    spare_before = jnp.where(earlier, spare[:, None, :], 0).sum(-1)
    room = jnp.maximum(total - count.sum(-1, keepdims=True) - spare_before, 0)
    return count + jnp.minimum(spare, room)


def whole_counts(
    key: jax.Array, settings: Masking, roles: Roles, length: jax.Array, part: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """One modality, or a random subset, whole (or, seldom, none), and of another one a part: int32[B, M] each.

    Whatever is hidden is a target: one reading of the context is asked about all that it does not show.

    Args:
      part: float[B, 1], how much is shown of the modality in parts; None = as the settings say.
    """
    k1, k2, k3, k4, k5, k6, k7 = jax.random.split(key, 7)
    rows, modalities = length.shape
    present = length > 0
    askable = present & roles.predicted
    noise = jnp.where(askable, jax.random.uniform(k1, length.shape), -1.0)
    target = jax.nn.one_hot(noise.argmax(-1), modalities, dtype=bool)
    others = present & ~target & roles.seen
    # The sources: the other modality with the largest draw, and half of the time any others besides.
    draw = jnp.where(others, jax.random.uniform(k2, length.shape), -1.0)
    one = jax.nn.one_hot(draw.argmax(-1), modalities, dtype=bool) & others
    more = (
        others
        & (jax.random.uniform(k3, length.shape) < settings.further)
        & (jax.random.uniform(k4, (rows, 1)) < settings.several)
    )
    source = (one | more) & (jax.random.uniform(k5, (rows, 1)) >= settings.unconditional)
    # Drop the later sources where they do not fit; at least one always does if it fits at all.
    draw_rank = ranks(jnp.where(source, -draw, 2.0))
    earlier = (draw_rank[:, None, :] <= draw_rank[:, :, None]) & source[:, None, :]
    source &= jnp.where(earlier, length[:, None, :], 0).sum(-1) <= settings.visible
    used = jnp.where(source, length, 0).sum(-1, keepdims=True)
    u1, u2 = jax.random.uniform(k6, (2, rows, 1))
    part = jnp.where(u1 < settings.nothing, 0.0, u2) if part is None else part
    shown = jnp.minimum(jnp.floor(part * length), settings.visible - used).astype(jnp.int32)
    visible = jnp.where(source, length, jnp.where(target & roles.seen, shown, 0))
    hidden = (length - visible) * roles.predicted
    return visible, fill(k7, jnp.zeros_like(length), hidden, settings.targets)


def ranks(values: jax.Array) -> jax.Array:
    """Rank of each value in its row, ties by position, int32 like `values` [..., S]."""
    index = jnp.arange(values.shape[-1])
    less = values[..., None, :] < values[..., :, None]
    tied = (values[..., None, :] == values[..., :, None]) & (index[None, :] < index[:, None])
    return (less | tied).sum(-1).astype(jnp.int32)


def token_ranks(key: jax.Array, space: TokenSpace, length: jax.Array) -> jax.Array:
    """A random order of the tokens within each modality, int32[B, places]; places without a token come last.

    Sequences are ordered left to right half of the time: the prefixes that generation meets.
    """
    parts = []
    for i, m in enumerate(space.modalities):
        k1, k2 = jax.random.split(jax.random.fold_in(key, i))
        u = jax.random.uniform(k1, (length.shape[0], m.size))
        position = jnp.arange(m.size)
        if m.order == "left_to_right":
            prefix = jax.random.uniform(k2, (length.shape[0], 1)) < 0.5
            u = jnp.where(prefix, position / m.size, u)
        parts.append(over_places(m, ranks(jnp.where(position < length[:, i : i + 1], u, 2.0))))
    return jnp.concatenate(parts, 1)


def over_places(m: Modality, x: jax.Array) -> jax.Array:
    """[B, size] -> [B, places]: places beyond the most tokens hold none (a rank that is never reached)."""
    return jnp.pad(x, ((0, 0), (0, m.places - m.size)), constant_values=m.places)


def pack(chosen: jax.Array, ids: jax.Array, size: int) -> View:
    """The chosen places of each row, in order, as a View of `size` tokens (what does not fit is dropped).

    Args:
      chosen: bool[B, places]. ids: int32[B, places] on the id line.
    """
    end = jnp.cumsum(chosen, axis=1)
    place = jax.vmap(lambda c: jnp.searchsorted(c, jnp.arange(1, size + 1), method="compare_all"))(
        end
    )
    mask = jnp.arange(size) < end[:, -1:]
    place = jnp.where(mask, place, 0).astype(jnp.int32)
    view = View(jnp.take_along_axis(ids, place, axis=1), place, mask)
    return jax.tree.map(split_rows, view)


def line_ids(batch: Batch, space: TokenSpace) -> jax.Array:
    """All tokens of a batch on the id line, int32[B, places]; of what is dense, which of its rows."""
    rows = len(batch.group)
    ids = [
        batch.ids[m.name] + space.offset(m.name)
        if m.vocabulary
        else jnp.broadcast_to(jnp.arange(m.size, dtype=jnp.int32), (rows, m.size))
        for m in space.modalities
    ]
    return jnp.concatenate(
        [over_places(m, i) for m, i in zip(space.modalities, ids, strict=True)], 1
    )


def generation_views(
    key: jax.Array, settings: Masking, space: TokenSpace, batch: Batch, hidden: jax.Array | None = None
) -> tuple[View, View, jax.Array]:  # fmt: skip
    """The encoder's view, the decoder's view, and how many tokens of each modality are visible (int32[B, M]).

    Args:
      hidden: float[B, 1], what the warm-up has drawn.
    """
    k1, k2 = jax.random.split(key)
    length = lengths(batch, space)
    visible, targets = draw_counts(k1, settings, Roles.of(space), length, hidden)
    modality = space.per_place()["modality"]
    rank = token_ranks(k2, space, length)
    seen = rank < visible[:, modality]
    asked = ~seen & (rank < (visible + targets)[:, modality])
    ids = line_ids(batch, space)
    shown = dataclasses.replace(pack(seen, ids, settings.visible), values=batch.values)
    return shown, pack(asked, ids, settings.targets), visible


def contrast_views(
    key: jax.Array, space: TokenSpace, batch: Batch, modalities: int, share: float, hidden: jax.Array | None = None,
    of: tuple[str, ...] = (),
) -> tuple[View, jax.Array, jax.Array]:  # fmt: skip
    """For some modalities, an independent random subset of fixed size of each example's tokens.

    Masks are fingerprints: were two views' masks related (complements, one budget shared), contrast would match
    masks instead of contents. Each modality's subset is drawn on its own, its size fixed.

    Args:
      modalities: how many are drawn (the same ones for the whole batch). of: from these; () = all.
      share: of a modality's places that are kept, at least one.
      hidden: float[B, M], what is hidden of each besides (of its tokens); drawn apart, or sizes would be fingerprints too.

    Returns:
      View of [B * modalities, n] rows, example by example; the modalities drawn, int32[modalities];
      bool[modalities, B], where there is anything to embed.
    """
    k1, k2 = jax.random.split(key)
    sizes = np.array([m.size for m in space.modalities])
    keep = np.maximum(np.ceil(sizes * share).astype(int), 1)
    count, width = contrast_size(space, modalities, share, of)
    length = lengths(batch, space)
    drawn = jnp.asarray([space.index(n) for n in of or space.names])
    if count < len(drawn):
        drawn = drawn[jax.random.permutation(k1, len(drawn))[:count]]
    ids, rows = line_ids(batch, space), []
    owner = space.per_place()["modality"]
    rank = independent_ranks(k2, space, length)
    kept = jnp.minimum(jnp.asarray(keep), length)
    if hidden is not None:
        kept = jnp.minimum(kept, jnp.ceil((1 - hidden) * length).astype(jnp.int32))
    for i in range(count):
        chosen = (owner == drawn[i]) & (rank < kept[:, owner])
        rows.append(pack(chosen, ids, width))
    # Example by example, so that a batch that is split over devices stays where it is.
    view = jax.tree.map(lambda *x: jnp.stack(x, 1).reshape(-1, width), *rows)
    values = {
        n: jnp.repeat(v, count, axis=0) for n, v in batch.values.items() if n in (of or space.names)
    }
    return dataclasses.replace(view, values=values), drawn, length.T[drawn] > 0


def contrast_size(
    space: TokenSpace, modalities: int, share: float, of: tuple[str, ...] = ()
) -> tuple[int, int]:
    """How many modalities the contrast's view has, and how many tokens of each."""
    sizes = [space[n].size for n in of or space.names]
    return min(modalities, len(sizes)), max(int(np.ceil(max(sizes) * share)), 1)


def independent_ranks(key: jax.Array, space: TokenSpace, length: jax.Array) -> jax.Array:
    """Uniformly random orders within each modality, int32[B, places]."""
    parts = []
    for i, m in enumerate(space.modalities):
        u = jax.random.uniform(jax.random.fold_in(key, i), (length.shape[0], m.size))
        there = jnp.arange(m.size) < length[:, i : i + 1]
        parts.append(over_places(m, ranks(jnp.where(there, u, 2.0))))
    return jnp.concatenate(parts, 1)
