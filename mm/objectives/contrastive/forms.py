"""Objectives over the embeddings of several modalities, as configs name them: functions of this package with their settings."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mm.errors import UserError
from mm.models.layers import unit
from mm.objectives.contrastive import mixing, momentum, nway
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
    """A dataclass whose fields are its settings. Two more members are optional, see `check`:

    needs: what of `Views` it uses that not every task offers: tokens, embed, head, teacher.
    wrong(names of the modalities) -> what cannot work in its settings, None where all can.
    """

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        """(sum over what counts, how much counts), float32 scalars."""
        ...


def check(form: Any, modalities: Sequence[str], offered: Collection[str], where: str) -> None:
    """Raises UserError where a form cannot work on these modalities, or with what its task offers.

    Args:
      offered: see `Form`'s `needs`. where: the setting that names the form.
    """
    what = type(form).__name__
    if len(modalities) < 2:
        raise UserError(f"{where}: contrast needs at least two modalities, not {len(modalities)}")
    for need in getattr(form, "needs", ()):
        if need not in offered:
            raise UserError(f"{where}: {what} needs {need}, which this task has not")
    if hasattr(form, "wrong") and (wrong := form.wrong(modalities)):
        raise UserError(f"{where}: {what}: {wrong}")


def exactly(number: int, modalities: Sequence[str]) -> str | None:
    """What is wrong where there are more or fewer modalities."""
    found = len(modalities)
    return None if found == number else f"of {number} modalities, there are {found}"


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
class Late:
    """The pair loss of two modalities' late interaction, each direction by its own: `similarity.late_interaction`."""

    target: Any = same_group
    reduction: Reduction = softmax
    pool: Pool = "max"
    mean: bool = True
    needs: ClassVar = ("tokens",)

    def wrong(self, modalities: Sequence[str]) -> str | None:
        return exactly(2, modalities)

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
class Conditioned:
    """The pair loss of the last modality with all others, of which it pools the tokens: `similarity.conditioned_scores`."""

    temperature: float = 0.1
    target: Any = same_group
    reduction: Reduction = softmax
    needs: ClassVar = ("tokens",)

    def wrong(self, modalities: Sequence[str]) -> str | None:
        above = 0 < self.temperature < float("inf")
        return None if above else f"temperature={self.temperature}: above 0, and finite"

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

    needs: ClassVar = ("head",)

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        return gated_symile(views.z, views.there, views.group, views.scale, key, views.head)


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
class Comm:
    """`nway.comm`: fused by the towers' head (`mm.models.heads.Fusion`). All modalities must be there.

    Attributes:
      augment: (key, raw rows) -> raw rows, of any modality.
      of: names of the modalities, in the order of the towers.
    """

    augment: Any
    of: tuple[str, ...] = ("x", "y")
    needs: ClassVar = ("embed", "head")

    def wrong(self, modalities: Sequence[str]) -> str | None:
        names = tuple(modalities)
        return None if self.of == names else f"of={self.of}: modalities are {names}"

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

    needs: ClassVar = ("teacher",)

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        assert views.predicted is not None and views.teacher is not None, "see `check`"
        pairs = itertools.product(range(len(views.z)), repeat=2)
        terms = [
            momentum.predicted(
                views.predicted[a], views.teacher[b], views.there[a] & views.there[b]
            )
            for a, b in pairs
        ]
        return sum((t for t, _ in terms), jnp.zeros(())), sum((n for _, n in terms), jnp.zeros(()))


@dataclasses.dataclass(kw_only=True, slots=True)
class Augmented:
    """A form of rows that are made a little different in every step, and embedded anew. Their tokens are not kept.

    Attributes:
      by: name of a modality -> (key, raw rows) -> raw rows, such as `augment.moved`; in the order of the towers, all of them,
        None = as they are.
    """

    form: Any
    by: dict[str, Any]

    @property
    def needs(self) -> tuple[str, ...]:
        return ("embed", *getattr(self.form, "needs", ()))

    def wrong(self, modalities: Sequence[str]) -> str | None:
        if tuple(self.by) != tuple(modalities):
            return f"by={tuple(self.by)}: modalities are {tuple(modalities)}"
        return self.form.wrong(modalities) if hasattr(self.form, "wrong") else None

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        keys = jax.random.split(key, len(self.by) + 1)
        z = [
            views.z[i] if change is None else views.embed(name, change(k, views.columns[name]))
            for i, (k, (name, change)) in enumerate(zip(keys[1:], self.by.items(), strict=True))
        ]
        return self.form(views._replace(z=jnp.stack(z), tokens=()), keys[0])


@dataclasses.dataclass(kw_only=True, slots=True)
class Coded:
    """The pair loss of two modalities, each the weighted sum of codes of the towers' head (`mm.models.heads.Codes`).

    Source: Chen et al. 2023 (FDT).
    """

    target: Any = same_group
    reduction: Reduction = softmax
    needs: ClassVar = ("tokens", "head")

    def wrong(self, modalities: Sequence[str]) -> str | None:
        return exactly(2, modalities)

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        a, b = (views.head(m, *tokens)[1] for m, tokens in enumerate(views.tokens))
        return pair_loss(
            views.scale * a @ b.T, self.target(views), *views.there, reduction=self.reduction
        )


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


@dataclasses.dataclass(kw_only=True, slots=True)
class Fused:
    """All modalities but the last, fused by the towers' head (`mm.models.heads.Fusion`, `Chain`), against the last one: the pair loss
    of all vectors that the head makes on the way.

    Attributes:
      keep: probability that a modality which is there is shown; below 1, rows have seen any subset.
      told: the head is told what is absent; else all count, absent ones as what their encoder makes of zeros.
    """

    keep: float = 1.0
    told: bool = True
    target: Any = same_group
    needs: ClassVar = ("head",)

    def wrong(self, modalities: Sequence[str]) -> str | None:
        return None if 0 < self.keep <= 1 else f"keep={self.keep}: above 0, at most 1"

    def __call__(self, views: Views, key: jax.Array) -> Sum:
        number, inputs = len(views.z), (jnp.arange(len(views.z)) < len(views.z) - 1)[:, None]
        shown = views.there & inputs & jax.random.bernoulli(key, self.keep, views.there.shape)
        given = shown if self.told else jnp.broadcast_to(inputs, shown.shape)
        terms = [
            pair_loss(
                views.scale * x @ views.z[-1].T, self.target(views), shown.any(0), views.there[-1]
            )
            for x in views.head.states(views.z, given)[: number - 1]
        ]
        total, count = (sum(t, jnp.zeros(())) for t in zip(*terms, strict=True))
        return total, count
