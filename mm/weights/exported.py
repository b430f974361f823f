"""A joint model in one file: weights in half precision, its task, and which tokenizers it speaks.

The tokenizers stay files of their own (several models share them), pinned by fingerprint. They are looked for beside
the model, and where mm itself is: the checkout, or the installed package.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path
from flax import traverse_util

import mm
from mm import artefact, checkpoint, config, tokenizers, workdir
from mm.errors import UserError
from mm.report.medians import main_figures
from mm.tasks.joint import Joint, JointTask

KIND = "joint"
SHIPPED = Path(__file__).parent / "shipped" / "digits.safetensors"
"""What `mm.load()` opens."""


def write(run: Path, out: Path, card: str = "") -> str:
    """Writes the newest checkpoint of `run` to `out`; returns the file's fingerprint.

    Weights are stored as float16: the one place where their dtype changes.

    Args:
      card: for people: data, licence, limits (Markdown). Seed, steps and figures are added from the run.

    Raises:
      UserError: no finished run of a joint model, or weights beyond float16's range.
    """
    exp, checkpoints, step = checkpoint.of_run(run)
    if not isinstance(exp.task, Joint):
        raise UserError(f"{run}: the run of {exp.name!r} trained no joint model; name one that did")
    results = workdir.read_json(run / "results.json")
    origin = workdir.read_json(run / "config.json")["experiment"]["data"]["tokenizers"]
    toks = tokenizers.load_all(exp.data.tokenizers)
    checkpoints.check_tokenizers(step, {n: t.fingerprint for n, t in toks.items()})
    task = exp.task.build_for(tokenizers.space_of(toks))
    part = exp.optim.evaluated
    params, _ = jax.eval_shape(task.init, jax.random.key(0))
    params = checkpoints.restore_part(step, {part: params})[part]
    arrays = {k: np.asarray(v) for k, v in traverse_util.flatten_dict(params, sep=".").items()}
    with np.errstate(over="ignore"):  # looked for below
        half = {name: a.astype(np.float16) for name, a in arrays.items()}
    for name, a in half.items():
        if not np.isfinite(a).all():
            raise UserError(f"{run}: {name} does not fit float16; train it again, or mend it")
    settings = {
        "name": exp.name,
        "task": config.to_json(exp.task),
        "tokenizers": {
            name: f"{origin[name].partition('#')[0]}#{t.fingerprint}" for name, t in toks.items()
        },
    }
    figures = {name: dataclasses.asdict(f) for name, f in main_figures(results).items()}
    facts = {"seed": exp.seed, "step": step, "figures": figures, "card": card}
    return artefact.write(out, KIND, settings, half, facts)


def read(path: Path) -> tuple[JointTask, Any, dict[str, tokenizers.Tokenizer], dict[str, Any]]:
    """(task, parameters in float32, tokenizers by modality, card) of a file that `write` made.

    Raises:
      UserError: see `artefact.read`; or its tokenizers are not found, or other ones than it was trained with.
    """
    meta, arrays = artefact.read(path)
    if meta["kind"] != KIND:
        raise UserError(f"{path}: holds a {meta['kind']!r}, not a joint model; name another file")
    settings = meta["config"]
    toks = tokenizers.load_all({n: _found(ref, path) for n, ref in settings["tokenizers"].items()})
    task = config.from_json(settings["task"]).build_for(tokenizers.space_of(toks))
    params = traverse_util.unflatten_dict(arrays, sep=".")
    return task, jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params), toks, meta["card"]


def _found(reference: str, model: Path) -> str:
    """Where the file of "path#fingerprint" lies."""
    name, _, mark = reference.partition("#")
    package = Path(mm.__file__).parent
    places = [model.parent, package.parent, package / "weights" / "shipped", Path(".")]
    for place in places:
        if (place / name).is_file():
            return f"{place / name}#{mark}"
    raise UserError(f"{model}: its tokenizer {name} is not found; put it beside the model")
