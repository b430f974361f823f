"""What the one loop trains: the joint model, a tokenizer, a judge. This file is the contract."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from etils.epath import Path

Terms = dict[str, tuple[jax.Array, jax.Array]]
"""Per loss term and metric: (sum, count), float32 scalars, over the global batch."""


def weighted(terms: Terms, weights: Mapping[str, float]) -> jax.Array:
    """The loss: the weighted sum of the terms' means; a term nothing contributed to adds nothing."""
    return sum(
        (w * terms[t][0] / jnp.maximum(terms[t][1], 1) for t, w in weights.items() if t in terms),
        jnp.zeros(()),
    )


class Task(Protocol):
    """A trainable thing. `params` and `buffers` are plain nested dicts of arrays.

    Attributes:
      weights: what each term counts in the loss; a term that is not in it is a metric, logged only.
    """

    weights: Mapping[str, float]

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fresh (params, buffers); must be traceable, so that shapes are known before arrays exist."""
        ...

    def loss(self, params: Any, buffers: Any, batch: Any, key: jax.Array) -> tuple[Terms, Any]:
        """One training step's terms, and the buffers after it. Pure; all randomness from `key`."""
        ...

    def export(self, params: Any, buffers: Any, folder: Path) -> Path | None:
        """Writes the trained thing as a self-describing artefact below `folder`; None if it has no such form."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A task in a state, with its data: what an evaluator is given.

    Attributes:
      data: an `mm.data.Data` that was opened (columns, tokenizers, batches).
      folder: the run's workdir; an evaluator may write pictures or tables below it.
    """

    task: Any
    params: Any
    buffers: Any
    data: Any
    folder: Path
    seed: int


class Evaluator(Protocol):
    """One class, one question. A dataclass whose fields are its settings; named in a config's `evals`.

    One that takes long may have a `__length_hint__`: how many pairs it yields, so that the time left can be told.

    Attributes:
      name: the key of its results in `results.json`.
      when: `interval` (cheap, on validation data) or `end`.
    """

    name: str
    when: str

    def run(self, run: Run) -> Iterator[tuple[str, Any]]:
        """Yields (name, value); values are numbers, strings, or nested dicts of them, ready for JSON."""
        ...
