"""The train state, a plain dict {params, buffers, opt, ema, step}, born sharded; nothing random is in it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mm import sharding
from mm.tasks import Task

State = dict[str, Any]


def fresh(task: Task, tx: optax.GradientTransformation, seed: int, ema: bool) -> State:
    """A state at step 0 (traceable)."""
    params, buffers = task.init(jax.random.key(seed))
    average = jax.tree.map(jnp.copy, params) if ema else {}
    return {
        "params": params,
        "buffers": buffers,
        "opt": tx.init(params),
        "ema": average,
        "step": jnp.zeros((), jnp.int32),
    }


def abstract(
    task: Task, tx: optax.GradientTransformation, seed: int, ema: bool, mesh: jax.sharding.Mesh
) -> State:
    """Shapes, dtypes and shardings of the state; nothing is allocated."""
    shapes = jax.eval_shape(lambda: fresh(task, tx, seed, ema))
    return sharding.abstract(shapes, sharding.shardings(shapes, mesh))


def init(
    task: Task, tx: optax.GradientTransformation, seed: int, ema: bool, mesh: jax.sharding.Mesh
) -> State:
    """A state at step 0, each array made where it lives."""
    out = jax.tree.map(lambda x: x.sharding, abstract(task, tx, seed, ema, mesh))
    return jax.jit(lambda: fresh(task, tx, seed, ema), out_shardings=out)()


def count(params: Any) -> int:
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))
