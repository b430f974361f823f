"""The same task from several seeds at once, as one run: what a small experiment needs to tell luck from effect.

Members share the program and nothing else: each has its own weights, its own part of every batch, its own randomness.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils.epath import Path

from mm.config import Experiment
from mm.errors import UserError
from mm.tasks import Evaluator, Run, Task, Terms


@dataclasses.dataclass(kw_only=True, slots=True)
class Ensemble:
    """Settings: `task`, trained `members` times. The batch is shared out among them.

    Clipping by the global norm would couple them: `ensembled` turns it off where it is on.
    """

    task: Any
    members: int = 5

    def validate(self) -> None:
        if self.members < 1:
            raise UserError(f"config.task.members={self.members}: at least 1")
        if hasattr(self.task, "validate"):
            self.task.validate()

    def build(self, data: Any) -> "EnsembleTask":
        return EnsembleTask(self.task.build(data), self.members)


class EnsembleTask:
    """See `mm.tasks.Task`. Arrays have one more axis, the first, of members."""

    def __init__(self, task: Task, members: int):
        self.task, self.members = task, members
        # A term is the mean over members; each member's gradient is that of its own loss.
        self.weights: Mapping[str, float] = {n: w * members for n, w in task.weights.items()}

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        return jax.vmap(self.task.init)(jax.random.split(key, self.members))

    def loss(self, params: Any, buffers: Any, batch: Any, key: jax.Array) -> tuple[Terms, Any]:
        parts = jax.tree.map(lambda x: x.reshape(self.members, -1, *x.shape[1:]), batch)
        keys = jax.random.split(key, self.members)
        terms, buffers = jax.vmap(self.task.loss)(params, buffers, parts, keys)
        count = jnp.float32(self.members)
        return {n: ((s / jnp.maximum(c, 1)).sum(), count) for n, (s, c) in terms.items()}, buffers

    def export(self, params: Any, buffers: Any, folder: Path) -> None:
        """Members have no artefact beside the checkpoint."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Each:
    """Asks `evaluator` about every member: yields ("seed0", {name: value}), ...."""

    evaluator: Any
    name: str = ""
    when: str = "end"

    def __post_init__(self) -> None:
        self.name, self.when = self.evaluator.name, self.evaluator.when

    def validate(self) -> None:
        if hasattr(self.evaluator, "validate"):
            self.evaluator.validate()

    def run(self, run: Run) -> Iterator[tuple[str, Any]]:
        evaluator: Evaluator = self.evaluator
        for i in range(run.task.members):
            params, buffers = jax.tree.map(lambda x: x[i], (run.params, run.buffers))  # noqa: B023
            member = dataclasses.replace(run, task=run.task.task, params=params, buffers=buffers)
            yield f"seed{i}", dict(evaluator.run(member))


def ensembled(exp: Experiment, members: int) -> Experiment:
    """The experiment with so many members, each of which sees batches of the same size."""
    return dataclasses.replace(
        exp,
        task=Ensemble(task=exp.task, members=members),
        data=dataclasses.replace(exp.data, batch_size=exp.data.batch_size * members),
        optim=dataclasses.replace(exp.optim, clip_norm=0.0),
        evals=tuple(Each(evaluator=e) for e in exp.evals),
    )
