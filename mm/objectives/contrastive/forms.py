"""Objectives over the embeddings of several modalities, as configs name them: functions of this package with their settings.

Those that ask for more than embeddings are in `forms_with_needs`.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mm.objectives.contrastive import mixing, nway
from mm.objectives.contrastive.nway import Sum
from mm.objectives.contrastive.pair import Reduction, pair_loss, softmax
from mm.objectives.contrastive.views import Views, exactly, same_example, same_group


@dataclasses.dataclass(kw_only=True, slots=True)
class AllPairs:
    """`nway.all_pairs`.

    Attributes:
      target: Views -> [B, B], who is how much a positive of whom. reduction: see `pair.Reduction`.
    """

    target: Any = same_group
    reduction: Reduction = softmax

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        loss = partial(pair_loss, reduction=self.reduction)
        return nway.all_pairs(views.z, views.there, self.target(views), views.scale, loss)


@dataclasses.dataclass(kw_only=True, slots=True)
class Pairs:
    """The pair loss of some pairs of modalities, each pair's mean counted alike.

    Attributes:
      of: numbers of the modalities.
    """

    of: tuple[tuple[int, int], ...]
    target: Any = same_group
    reduction: Reduction = softmax

    def wrong(self, modalities: Sequence[str]) -> str | None:
        there = range(len(modalities))
        outside = [pair for pair in self.of if not set(pair) <= {*there}]
        return f"of={self.of}: modalities are 0 .. {there[-1]}" if outside else None

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        z, there, target = views.z, views.there, self.target(views)
        terms = [
            pair_loss(
                views.scale * z[a] @ z[b].T, target, there[a], there[b], reduction=self.reduction
            )
            for a, b in self.of
        ]
        means = [total / jnp.maximum(count, 1) for total, count in terms]
        return sum(means, jnp.zeros(())), sum((c > 0 for _, c in terms), jnp.zeros(()))


@dataclasses.dataclass(kw_only=True, slots=True)
class OneToK:
    """The first modality against all others at once, which are K ways to say it: `nway.one_to_k`."""

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        return nway.one_to_k(views.z, views.there, views.scale)


@dataclasses.dataclass(kw_only=True, slots=True)
class Symile:
    """`nway.symile`.

    Attributes:
      every: all tuples are negatives, not one permutation of each modality.
    """

    every: bool = False

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        return nway.symile(views.z, views.there, views.group, views.scale, key, self.every)


@dataclasses.dataclass(kw_only=True, slots=True)
class Gram:
    """`nway.gram`."""

    target: Any = same_group
    anchor: int = 0
    smoothing: float = 0.1

    def wrong(self, modalities: Sequence[str]) -> str | None:
        if not 0 <= self.anchor < len(modalities):
            return f"anchor={self.anchor}: modalities are 0 .. {len(modalities) - 1}"
        return None if 0 <= self.smoothing <= 1 else f"smoothing={self.smoothing}: from 0 to 1"

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        target = self.target(views)
        return nway.gram(views.z, views.there, target, views.scale, self.anchor, self.smoothing)


@dataclasses.dataclass(kw_only=True, slots=True)
class Triangle:
    """`nway.triangle`: of three modalities."""

    target: Any = same_group
    anchor: int = 0

    def wrong(self, modalities: Sequence[str]) -> str | None:
        inside = self.anchor in (0, 1, 2)
        return exactly(3, modalities) or (None if inside else f"anchor={self.anchor}: 0, 1 or 2")

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        return nway.triangle(views.z, views.there, self.target(views), views.scale, self.anchor)


@dataclasses.dataclass(kw_only=True, slots=True)
class MultiView:
    """`nway.mv_infonce`, or `nway.mv_dhel`."""

    loss: Any = nway.mv_infonce

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        return self.loss(views.z, views.there, views.scale)


@dataclasses.dataclass(kw_only=True, slots=True)
class OfPairs:
    """A term of `geometry` for every pair of modalities.

    Attributes:
      term: (x, y, bool[B], which rows exist of both) -> scalar, such as `geometry.alignment`; of uniformity see `OfEach`.
    """

    term: Any

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        z, there = views.z, views.there
        pairs = list(itertools.combinations(range(len(z)), 2))
        both = [there[a] & there[b] for a, b in pairs]
        terms = [self.term(z[a], z[b], x) for (a, b), x in zip(pairs, both, strict=True)]
        return _of_some(terms, both)


@dataclasses.dataclass(kw_only=True, slots=True)
class OfEach:
    """A term of `geometry` for every modality by itself: (x, bool[B], which rows exist) -> scalar, such as `geometry.uniformity`."""

    term: Any

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        terms = [self.term(z, rows) for z, rows in zip(views.z, views.there, strict=True)]
        return _of_some(terms, [*views.there])


def _of_some(terms: Sequence[jax.Array], there: Sequence[jax.Array]) -> Sum:
    """The sum of terms that are of any rows, and their number."""
    some = jnp.stack([rows.any() for rows in there])
    return jnp.where(some, jnp.stack(terms), 0).sum(), some.sum().astype(jnp.float32)


@dataclasses.dataclass(kw_only=True, slots=True)
class Weighted:
    """CWCL: a row of the first modality is a positive of a second one's rows as much as their first ones resemble its own,
    (1 + cosine) / 2; from the second to the first plain InfoNCE. The first modality is one whose encoder is frozen.

    Source: Srinivasa et al. 2023 (CWCL).
    """

    def wrong(self, modalities: Sequence[str]) -> str | None:
        return exactly(2, modalities)

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        frozen, other = views.z
        return pair_loss(
            views.scale * frozen @ other.T, (1 + jax.lax.stop_gradient(frozen @ frozen.T)) / 2,
            *views.there, target_ba=same_example(views),
        )  # fmt: skip


@dataclasses.dataclass(kw_only=True, slots=True)
class Geodesic:
    """m2-mix of two modalities, `mixing.geodesic_negatives`; m3-mix adds mixtures within each of them and within both at once.

    Attributes:
      alpha: of Beta(alpha, alpha), from which shares are drawn. scale: inverse temperature of mixtures, their own.

    Source: Oh et al. 2023, with parts of equal weight.
    """

    inside: bool = False
    alpha: float = 0.5
    scale: float = 20.0

    def wrong(self, modalities: Sequence[str]) -> str | None:
        above = self.alpha > 0 and 0 < self.scale < float("inf")
        settings = f"alpha={self.alpha}, scale={self.scale}: above 0, and finite"
        return exactly(2, modalities) or (None if above else settings)

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        (x, y), there = views.z, views.there.all(0)
        scale, keys = jnp.asarray(self.scale), jax.random.split(key, 3)
        draw = lambda key: jax.random.beta(key, self.alpha, self.alpha, (len(x),))
        terms = [mixing.geodesic_negatives(x, y, scale, draw(keys[0]), there)]
        if self.inside:
            other, share = jax.random.permutation(keys[1], len(x)), draw(keys[2])
            u, v = (mixing.slerp(z, z[other], 1 - share) for z in (x, y))
            pairs = there & there[other]
            terms += [mixing.within(a, b, scale, other, share, there) for a, b in ((x, y), (y, x))]
            terms += [pair_loss(scale * u @ v.T, same_example(views), pairs, pairs)]
        means = [total / jnp.maximum(count, 1) for total, count in terms]
        return sum(means, jnp.zeros(())), there.any().astype(jnp.float32)
