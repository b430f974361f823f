"""The weights of another run as the start of this one: `--config.init=RUN`.

Taken are the parameters of its newest checkpoint (their average, where that is what it evaluated) and the buffers
beside them, such as a codebook. Step and optimizer start fresh.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mm import checkpoint, config, tokenizers
from mm.errors import UserError


def check(exp: config.Experiment) -> None:
    """What can be checked of `exp.init` before any work.

    Raises:
      UserError: no run is there, it has no checkpoint, or was trained in other tokens.
    """
    here = tokenizers.load_all(exp.data.tokenizers)
    _open(exp.init, {name: t.fingerprint for name, t in here.items()})


def given(state: dict[str, Any], exp: config.Experiment, here: Mapping[str, str]) -> dict[str, Any]:
    """A fresh state with the weights of `exp.init` in the place of its own.

    Args:
      here: modality -> fingerprint of its tokenizer.

    Raises:
      UserError: as `check`, or the first array that does not fit.
    """
    other, checkpoints, step = _open(exp.init, here)
    part = other.optim.evaluated
    found = checkpoints.shapes(step)
    wanted = {part: state["params"], "buffers": state["buffers"]}
    wanted = {k: jax.eval_shape(lambda x: x, v) for k, v in wanted.items() if v or found[k]}
    if different := checkpoint.first_difference({k: found[k] for k in wanted}, wanted):
        raise UserError(f"--config.init={exp.init}: {different}; give both the same model")
    read = checkpoints.restore_part(step, wanted)
    params = _placed_as(state["params"], read[part])
    return state | {
        "params": params,
        "buffers": _placed_as(state["buffers"], read.get("buffers", {})),
        "ema": jax.tree.map(jnp.copy, params) if exp.optim.ema else {},
    }


def _open(
    run: str, here: Mapping[str, str]
) -> tuple[config.Experiment, checkpoint.Checkpoints, int]:
    try:
        other, checkpoints, step = checkpoint.of_run(Path(run).expanduser())
    except UserError as e:
        raise UserError(f"--config.init={run}: {e}") from e
    there = checkpoints.meta(step)["tokenizers"]
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise UserError(
                f"--config.init={run}: another token space: the {name!r} tokenizer is {there.get(name)} there "
                f"and {here.get(name)} here; use the same tokenizers, or start from another run"
            )
    return other, checkpoints, step


def _placed_as(like: Any, tree: Any) -> Any:
    return jax.device_put(jax.device_get(tree), jax.tree.map(lambda x: x.sharding, like))
