"""The train state, a plain dict {params, buffers, opt, ema, step}, born sharded; nothing random is in it."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mm import sharding
from mm.errors import UserError
from mm.space import Rows
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


def grow(fresh: Any, old: Any, rows: Rows, optional: Collection[str] = ()) -> Any:
    """The parameters `old` within those of a larger model: all that they had is as it was, the rest is `fresh`.

    Args:
      optional: paths of parts that the old model may not have at all.

    Raises:
      UserError: an array whose rows are not named, and that differs in shape; or that only one of the two has.
    """
    there = {sharding.path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(old)}

    def taken(path: Any, new: jax.Array) -> jax.Array:
        name = sharding.path_name(path)
        found = there.pop(name, None)
        if found is not None and name in rows and found.shape[1:] == new.shape[1:]:
            source, target = rows[name]
            return new.at[target].set(np.asarray(found)[source])
        if found is None and any(f"{name}/".startswith(f"{part}/") for part in optional):
            return new
        if found is None or found.shape != new.shape or found.dtype != new.dtype:
            was = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise UserError(f"{name}: {was} there, {new.dtype}{list(new.shape)} here")
        return jax.device_put(np.asarray(found), new.sharding)

    grown = jax.tree_util.tree_map_with_path(taken, fresh)
    if there:
        raise UserError(f"{next(iter(there))}: missing here")
    return grown


def count(params: Any) -> int:
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))
