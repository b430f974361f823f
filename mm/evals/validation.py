"""Every term of the loss on data that is not trained on, for any task."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax

from mm import progress
from mm.errors import UserError
from mm.tasks import Run, Terms


@dataclasses.dataclass(kw_only=True, slots=True)
class ValidationLoss:
    """Mean of every term, and the weighted loss, over fixed validation batches with fixed keys.

    Attributes:
      batches: how many, from the start of the split's order.
      batch_size: examples in each.
    """

    batches: int = 8
    batch_size: int = 256
    split: str = "validation"
    name: str = "validation"
    when: str = "interval"

    def validate(self) -> None:
        if min(self.batches, self.batch_size) < 1:
            sizes = f"batches={self.batches}, batch_size={self.batch_size}"
            raise UserError(f"config.evals: validation: {sizes}: must be at least 1")

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        batches = run.data.batches(
            self.split, seed=0, start=0, steps=self.batches, batch_size=self.batch_size
        )
        task, key = _Same(run.task), jax.random.key(0)
        total: Terms = {}
        numbered = zip(range(self.batches), batches, strict=False)
        for i, batch in progress.track(numbered, f"{self.name} batch", self.batches):
            terms = _terms(task, run.params, run.buffers, batch, jax.random.fold_in(key, i))
            total = jax.tree.map(lambda a, b: a + b, total, terms) if total else terms
            jax.block_until_ready(total)  # what is counted is done
        means = {t: float(s) / float(c) for t, (s, c) in jax.device_get(total).items() if c > 0}
        yield "loss", sum(w * means[t] for t, w in run.task.weights.items() if t in means)
        yield from means.items()


@dataclasses.dataclass(frozen=True, slots=True)
class _Same:
    """A task as a key of jit's cache: equal to itself only, so that nothing compiles twice."""

    task: Any

    def __hash__(self) -> int:
        return id(self.task)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.task is self.task


@functools.partial(jax.jit, static_argnums=0)
def _terms(task: _Same, params: Any, buffers: Any, batch: Any, key: jax.Array) -> Terms:
    return task.task.loss(params, buffers, batch, key)[0]
