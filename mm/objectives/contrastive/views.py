"""What there is to be contrasted, what an objective over it is, and the two commonest answers to who is a positive of whom."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mm.errors import UserError
from mm.objectives.contrastive.nway import Sum

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
