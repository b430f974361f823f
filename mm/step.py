"""One step of the loop as a pure function, and the cosines between the gradients of its terms."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from mm import config, sharding
from mm import state as states
from mm.tasks import Task, weighted

Step = Callable[[states.State, Any], tuple[states.State, dict[str, jax.Array]]]


def make_step(task: Task, tx: optax.GradientTransformation, optim: config.Optim, seed: int) -> Step:
    """One step, to be jitted: (state, batch) -> (state, metrics).

    All randomness is folded from (seed, step). A loss or gradient that is not finite leaves the state as it was,
    but for the step count, and is reported as `skipped`.
    """

    def step(state: states.State, batch: Any) -> tuple[states.State, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state["step"])

        def loss(params: Any) -> tuple[jax.Array, Any]:
            terms, buffers = task.loss(params, state["buffers"], batch, key)
            return weighted(terms, task.weights), (terms, buffers)

        (value, (terms, buffers)), grads = jax.value_and_grad(loss, has_aux=True)(state["params"])
        norm = optax.tree.norm(grads)
        updates, opt = tx.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        average = (
            jax.tree.map(lambda a, p: optim.ema * a + (1 - optim.ema) * p, state["ema"], params)
            if optim.ema
            else {}
        )
        new = {"params": params, "buffers": buffers, "opt": opt, "ema": average}
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        old = {k: state[k] for k in new}
        new = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
        report = {name: s / jnp.maximum(c, 1) for name, (s, c) in terms.items()}
        report |= {"loss": value, "grad_norm": norm, "skipped": 1.0 - finite}
        return new | {"step": state["step"] + 1}, report

    return step


def jitted(
    task: Task, tx: optax.GradientTransformation, optim: config.Optim, seed: int, state: Any
) -> Any:
    """`make_step`, jitted: the old state's memory becomes the new one's, and each array stays where it lies.

    Args:
      state: shapes, dtypes and shardings (`states.abstract`).
    """
    layout = jax.tree.map(lambda x: x.sharding, state)
    mesh = layout["step"].mesh
    whole = NamedSharding(mesh, PartitionSpec())
    plain = make_step(task, tx, optim, seed)

    def step(state: states.State, batch: Any) -> tuple[states.State, dict[str, jax.Array]]:
        with sharding.traced_on(mesh):
            return plain(state, batch)

    return jax.jit(step, donate_argnums=0, out_shardings=(layout, whole))


class Ahead:
    """A jitted function, compiled for these shapes in a thread while the caller goes on; its first call waits."""

    def __init__(self, step: Any, *shapes: Any):
        self.program: Future[Any] = Future()
        # No pool: Python would wait at its exit for what nobody waits for any more.
        threading.Thread(target=self._compile, args=(step, shapes), daemon=True).start()

    def _compile(self, step: Any, shapes: Any) -> None:
        try:
            self.program.set_result(step.lower(*shapes).compile())
        except BaseException as e:
            self.program.set_exception(e)

    def wait(self) -> None:
        """Until it is compiled."""
        self.program.result()

    def __call__(self, *arguments: Any) -> Any:
        return self.program.result()(*arguments)


def term_cosines(task: Task, seed: int) -> Callable[[states.State, Any], dict[str, Any]]:
    """Norms of the gradients of groups of terms (by the name before '/'), weighted, and cosines between them; to be jitted.

    Whether two objectives pull the same way, and how hard; costs one backward pass per group.
    """
    groups = sorted({name.split("/")[0] for name in task.weights})

    def cosines(state: states.State, batch: Any) -> dict[str, Any]:
        key = jax.random.fold_in(jax.random.key(seed), state["step"])

        def loss(params: Any, group: str) -> jax.Array:
            terms, _ = task.loss(params, state["buffers"], batch, key)
            return weighted(
                terms, {t: w for t, w in task.weights.items() if t.split("/")[0] == group}
            )

        grads = {g: jax.grad(loss)(state["params"], g) for g in groups}
        norms = {g: optax.tree.norm(grads[g]) for g in groups}
        found: dict[str, Any] = {f"norm/{g}": norm for g, norm in norms.items()}
        for a, b in itertools.combinations(groups, 2):
            dot = optax.tree.vdot(grads[a], grads[b])
            found[f"cosine/{a}-{b}"] = dot / (norms[a] * norms[b] + 1e-15)
        return found

    return cosines
