"""Objectives over the embeddings of several modalities, as configs name them: functions of this package with their settings."""

import dataclasses
import itertools
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mm.models.layers import unit
from mm.objectives.contrastive import momentum, nway
from mm.objectives.contrastive.gated import gated_symile
from mm.objectives.contrastive.nway import Sum
from mm.objectives.contrastive.pair import Reduction, pair_loss, softmax
from mm.objectives.contrastive.similarity import Pool, conditioned_scores, late_interaction

Tokens = tuple[jax.Array, jax.Array]
"""Of one modality: float[B, N, E] and bool[B, N], which exist."""


class Views(NamedTuple):
    """What there is to be contrasted.

    Attributes:
      z: unit float[M, B, E]. there: bool[M, B], which exist. group: int32[B], same number = the same thing.
      scale: inverse temperature, float32[].
      columns: what else is known of the examples, by name, each [B, ...].
      tokens: of each modality, before they were pooled to z.
      embed: (name of a modality, raw rows) -> unit [B, E]: rows that an objective made itself are embedded too.
      head: the module of `Towers.head`, if there is one.
      teacher, predicted: unit float[M, B, E], by the moving average's encoders, and of predictors on z; with a teacher.
    """

    z: jax.Array
    there: jax.Array
    group: jax.Array
    scale: jax.Array
    columns: Mapping[str, jax.Array]
    tokens: tuple[Tokens, ...] = ()
    embed: Any = None
    head: Any = None
    teacher: jax.Array | None = None
    predicted: jax.Array | None = None


class Form(Protocol):
    """A dataclass whose fields are its settings."""

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        """(sum over what counts, how much counts), float32 scalars."""
        ...


def same_group(views: Views) -> jax.Array:
    """bool[B, B]: positives are all examples of one group."""
    return views.group[:, None] == views.group


def same_example(views: Views) -> jax.Array:
    """bool[B, B]: each example is its own positive alone."""
    return jnp.eye(len(views.group), dtype=bool)


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
class Late:
    """The pair loss of two modalities' late interaction, each direction by its own: `similarity.late_interaction`."""

    target: Any = same_group
    reduction: Reduction = softmax
    pool: Pool = "max"
    mean: bool = True

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        (a, there_a), (b, there_b) = ((unit(x), there) for x, there in views.tokens)
        score = partial(late_interaction, pool=self.pool, mean=self.mean)
        return pair_loss(
            views.scale * score(a, b, there_a, there_b), self.target(views), views.there[0], views.there[1],
            logits_ba=views.scale * score(b, a, there_b, there_a), reduction=self.reduction,
        )  # fmt: skip


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

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        target = self.target(views)
        return nway.gram(views.z, views.there, target, views.scale, self.anchor, self.smoothing)


@dataclasses.dataclass(kw_only=True, slots=True)
class Triangle:
    """`nway.triangle`: of three modalities."""

    target: Any = same_group
    anchor: int = 0

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
      term: (x, y) -> scalar, such as `geometry.alignment`; of uniformity see `OfEach`.
    """

    term: Any

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        pairs = list(itertools.combinations(range(len(views.z)), 2))
        total = sum((self.term(views.z[a], views.z[b]) for a, b in pairs), jnp.zeros(()))
        return total, jnp.float32(len(pairs))


@dataclasses.dataclass(kw_only=True, slots=True)
class OfEach:
    """A term of `geometry` for every modality by itself: x -> scalar, such as `geometry.uniformity`."""

    term: Any

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        return sum((self.term(z) for z in views.z), jnp.zeros(())), jnp.float32(len(views.z))


@dataclasses.dataclass(kw_only=True, slots=True)
class Conditioned:
    """The pair loss of the last modality with all others, of which it pools the tokens: `similarity.conditioned_scores`."""

    temperature: float = 0.1
    target: Any = same_group
    reduction: Reduction = softmax

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        streams = [(unit(x), there) for x, there in views.tokens[:-1]]
        scores = conditioned_scores(views.z[-1], streams, self.temperature)
        return pair_loss(
            views.scale * scores, self.target(views), views.there[-1], views.there[:-1].any(0),
            reduction=self.reduction,
        )  # fmt: skip


@dataclasses.dataclass(kw_only=True, slots=True)
class GatedSymile:
    """`gated.gated_symile`, scored by the towers' head (`mm.models.heads.Gate`)."""

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        return gated_symile(views.z, views.there, views.group, views.scale, key, views.head)


@dataclasses.dataclass(kw_only=True, slots=True)
class Weighted:
    """CWCL: a row of the first modality is a positive of a second one's rows as much as their first ones resemble its own,
    (1 + cosine) / 2; from the second to the first plain InfoNCE. The first modality is one whose encoder is frozen.

    Source: Srinivasa et al. 2023 (CWCL).
    """

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        frozen, other = views.z
        return pair_loss(
            views.scale * frozen @ other.T, (1 + jax.lax.stop_gradient(frozen @ frozen.T)) / 2,
            *views.there, target_ba=same_example(views),
        )  # fmt: skip


@dataclasses.dataclass(kw_only=True, slots=True)
class Comm:
    """`nway.comm`: fused by the towers' head (`mm.models.heads.Fusion`). All modalities must be there.

    Attributes:
      augment: (key, raw rows) -> raw rows, of any modality.
      of: names of the modalities, in the order of the towers.
    """

    augment: Any
    of: tuple[str, ...] = ("x", "y")

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        keys = jax.random.split(key, (2, len(self.of)))
        everyone = jnp.ones(len(self.of), bool)
        whole = [
            jnp.stack([views.embed(m, self.augment(k, views.columns[m])) for k, m in zip(some, self.of, strict=True)])
            for some in keys
        ]  # fmt: skip
        first, second = (views.head(z, everyone) for z in whole)
        alone = [views.head(views.z, jnp.arange(len(self.of)) == m) for m in range(len(self.of))]
        return nway.comm(first, second, jnp.stack(alone), views.scale)


@dataclasses.dataclass(kw_only=True, slots=True)
class Predicted:
    """Every modality's prediction against every modality's teacher, its own too: `momentum.predicted`. No negatives.

    Source: Guinot et al. 2025 (SLAP), whose weights of the pairs are equal here.
    """

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        if views.predicted is None or views.teacher is None:
            raise ValueError("predictions need a task with a teacher")
        pairs = itertools.product(range(len(views.z)), repeat=2)
        terms = [
            momentum.predicted(
                views.predicted[a], views.teacher[b], views.there[a] & views.there[b]
            )
            for a, b in pairs
        ]
        return sum((t for t, _ in terms), jnp.zeros(())), sum((n for _, n in terms), jnp.zeros(()))
