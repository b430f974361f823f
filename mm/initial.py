"""The weights of another run as the start of this one: `--config.init=RUN`.

Taken are the parameters of its newest checkpoint (their average, where that is what it evaluated) and the buffers
beside them, such as a codebook. Step and optimizer start fresh. With `--config.grow` a joint model may have more
modalities than that run, or a text a larger vocabulary: what the old model said it says to the same bits, until it
is trained.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path

from mm import checkpoint, config, tokenizers
from mm import state as states
from mm.errors import UserError
from mm.space import TokenSpace


def check(exp: config.Experiment) -> None:
    """What can be checked of `exp.init` before any work.

    Raises:
      UserError: no run is there, it has no checkpoint, or was trained in other tokens (and may not grow).
    """
    _kept(*_open(exp), exp)


def given(state: states.State, exp: config.Experiment, task: Any) -> states.State:
    """A fresh state of `task` with the weights of `exp.init` in the place of its own.

    Raises:
      UserError: as `check`, or the first array that does not fit.
    """
    other, checkpoints, step = _open(exp)
    kept = _kept(other, checkpoints, step, exp)
    part = other.optim.evaluated
    there = checkpoints.shapes(step)
    named = {part: state["params"], "buffers": state["buffers"]}
    named = {k: v for k, v in named.items() if v or there[k]}
    as_saved = {k: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), there[k]) for k in named}  # fmt: skip
    if kept is None and (different := checkpoint.first_difference(as_saved, named)):
        different = different.replace(f"{part}/", "params/", 1)
        raise UserError(f"--config.init={exp.init}: {different}; give both the same model")
    read = checkpoints.restore_part(step, as_saved)
    if kept is None:
        params = _placed_as(state["params"], read[part])
    else:
        params = _grown(state["params"], read[part], exp, task, kept)
    return state | {
        "params": params,
        "buffers": _placed_as(state["buffers"], read.get("buffers", {})),
        "ema": jax.tree.map(jnp.copy, params) if exp.optim.ema else {},
    }


def _grown(fresh: Any, old: Any, exp: config.Experiment, task: Any, kept: "Kept") -> Any:
    space, ids = kept
    if not hasattr(task, "rows_kept"):
        raise UserError("config.grow: only joint models grow; leave it out")
    try:
        return states.grow(fresh, old, task.rows_kept(space, ids), task.added(space))
    except UserError as e:
        raise UserError(f"--config.init={exp.init}, grown: {e}") from e


Kept = tuple[TokenSpace, dict[str, np.ndarray]]
"""The other run's token space, and per modality where its ids lie in this run's vocabulary."""


def _kept(
    other: config.Experiment, checkpoints: checkpoint.Checkpoints, step: int, exp: config.Experiment
) -> Kept | None:
    """None where both have the same tokens, and nothing may grow. Raises UserError where they do not."""
    toks = tokenizers.load_all(exp.data.tokenizers)
    here = tokenizers.fingerprints_in(toks, exp.data.source)
    there = checkpoints.meta(step)["tokenizers"]
    differing = [n for n in sorted(there.keys() | here.keys()) if there.get(n) != here.get(n)]
    changed = any(n in there and n in here for n in differing)
    before, now = (getattr(e.data.source, "space", None) for e in (other, exp))
    if (
        not changed and before and now and not toks and not other.data.tokenizers
    ):  # their rows are tokens already
        if before != now and not exp.grow:
            raise UserError(
                f"--config.init={exp.init}: another token space: {', '.join(before.names)} there, {', '.join(now.names)} "
                "here; start from another run, or let it grow (--config.grow)"
            )
        ids = {m.name: np.arange(m.vocabulary.size) for m in before.modalities if m.vocabulary}
        return (before, ids) if exp.grow else None
    if not differing:
        return None
    if not exp.grow:
        name = differing[0]
        raise UserError(
            f"--config.init={exp.init}: another token space: the {name!r} tokenizer is {there.get(name)} there "
            f"and {here.get(name)} here; use the same tokenizers, start from another run, or let it grow (--config.grow)"
        )
    olds = tokenizers.load_all(other.data.tokenizers)
    ids = {name: _ids(exp, name, old, toks.get(name)) for name, old in olds.items()}
    return tokenizers.space_of(olds), ids


def _ids(exp: config.Experiment, name: str, old: Any, new: Any) -> np.ndarray:
    try:
        if new is None:
            raise UserError("it is missing here; a space can grow, not shrink")
        if new.fingerprint == old.fingerprint:
            return np.arange(old.modality.vocabulary.size)
        if not hasattr(new, "ids_of"):
            raise UserError(
                "its codes mean something else here; only the vocabularies of texts grow"
            )
        return new.ids_of(old)
    except UserError as e:
        raise UserError(f"--config.init={exp.init}, grown: the {name!r} tokenizer: {e}") from e


def _open(exp: config.Experiment) -> tuple[config.Experiment, checkpoint.Checkpoints, int]:
    try:
        return checkpoint.of_run(Path(exp.init).expanduser())
    except UserError as e:
        raise UserError(f"--config.init={exp.init}: {e}") from e


def _placed_as(like: Any, tree: Any) -> Any:
    return jax.device_put(jax.device_get(tree), jax.tree.map(lambda x: x.sharding, like))
