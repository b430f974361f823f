"""Objectives that ask for more than embeddings: the tokens before they were pooled, raw rows, a head, a teacher; see `Form.needs`."""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mm.models.layers import unit
from mm.objectives.contrastive import momentum, nway
from mm.objectives.contrastive.gated import gated_symile
from mm.objectives.contrastive.nway import Sum
from mm.objectives.contrastive.pair import Reduction, pair_loss, softmax
from mm.objectives.contrastive.similarity import Pool, conditioned_scores, late_interaction
from mm.objectives.contrastive.views import Views, exactly, same_group


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
