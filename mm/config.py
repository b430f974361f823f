"""The typed settings of an experiment. A config file's `get_config(arg="")` returns an `Experiment`.

Dataclasses are mutable and without string annotations: overrides (`--config.optim.lr=3e-4`) are
written into them, type-checked, once; then `validate` runs and nothing assigns again.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from mm.errors import UserError
from mm.parts import imported, name_of, required


@dataclasses.dataclass(kw_only=True, slots=True)
class Mesh:
    """Devices as (replica, fsdp, tensor); one -1 takes what is left."""

    replica: int = 1
    fsdp: int = -1
    tensor: int = 1


@dataclasses.dataclass(kw_only=True, slots=True)
class Data:
    """What is learned from.

    Attributes:
      source: an `mm.data.Source` (a dataclass from `data_pipelines/`), its settings are fields.
      tokenizers: modality -> "path#fingerprint" of its artefact, in the order of the token space.
        Columns of the source that are not named here are not tokenized; with none at all, the task gets raw rows.
      crops: an `mm.data.crops.Crops`: how many crops of its pictures --mode=tokenize makes of an example; None = none.
      missing: an `mm.data.missing.Missing`: training examples lack modalities; None = none but the source's own.
      corrupt_limit: records that may be unreadable (each replaced by its next readable one, and named) before the run stops.
    """

    source: Any
    tokenizers: dict[str, str] = dataclasses.field(default_factory=dict)
    batch_size: int = 256
    threads: int = 1
    corrupt_limit: int = 10
    missing: Any = None
    crops: Any = None


@dataclasses.dataclass(kw_only=True, slots=True)
class Optim:
    """Linear warmup and cosine decay to `final` x lr; weight decay on matrices only.

    Attributes:
      kind: `adamw`, or `muon`: momentum made orthogonal for the kernels (scaled to the size of AdamW's
        updates, so that `lr` means the same), Adam with Nesterov momentum for everything else.
      clip_norm: the longest that the gradient may be, all parameters together; 0 = any.
      momentum, newton_schulz: of muon; the second is its number of iterations.
      frozen: a regular expression; parameters whose path has it somewhere are not trained ("^encoder/", "^(?!adapters)").
      ema: decay of an average of the parameters that is evaluated in their place; 0 = none.
    """

    kind: str = "adamw"
    lr: float = 1e-3
    warmup: int = 100
    final: float = 0.02
    b1: float = 0.9
    b2: float = 0.98
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    momentum: float = 0.95
    newton_schulz: int = 5
    frozen: str = ""
    ema: float = 0.0

    @property
    def evaluated(self) -> str:
        """The part of the train state that is evaluated and used."""
        return "ema" if self.ema else "params"


@dataclasses.dataclass(kw_only=True, slots=True)
class Experiment:
    """Everything that decides a run's result; its JSON is its fingerprint.

    Attributes:
      task: settings with `build(data) -> mm.tasks.Task`.
      evals: evaluators (`mm.tasks.Evaluator`).
      init: folder of a run whose weights this one starts from (`mm.initial`); empty = fresh ones.
      grow: that run may know fewer modalities than this one, or a part of a text's vocabulary.
      steps: optimizer steps.
      log_every, eval_every, save_every: in steps; 0 = never (but for the end).
      cosine_every: log the gradients of the groups of terms that often, their norms and the cosines between them; 0 = never.
      bad_steps: steps in a row that may be skipped for a loss or gradient that is not finite before the run stops.
    """

    name: str
    task: Any
    data: Data
    optim: Optim = dataclasses.field(default_factory=Optim)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    evals: tuple[Any, ...] = ()
    init: str = ""
    grow: bool = False
    steps: int = 1000
    seed: int = 0
    log_every: int = 20
    eval_every: int = 0
    save_every: int = 0
    keep: int = 2
    cosine_every: int = 0
    bad_steps: int = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where an experiment comes from.

    Attributes:
      file: the config file, with its argument (`configs/x.py:arg`).
      changed: field -> (in the file, now), of the command line's overrides.
    """

    file: str
    changed: dict[str, tuple[Any, Any]]


def to_json(value: Any) -> Any:
    """Settings as JSON that `from_json` reads back.

    Dataclasses become {"type": name, fields...}, functions and classes {"import": name} (`mm.parts`),
    partials {"partial": function, "args", "kwargs"}, tuples lists.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": name_of(type(value))} | fields
    if isinstance(value, functools.partial):
        return {
            "partial": to_json(value.func),
            "args": to_json(value.args),
            "kwargs": to_json(value.keywords),
        }
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if callable(value):
        return {"import": name_of(value)}
    return value


def from_json(value: Any) -> Any:
    """The settings that `to_json` wrote.

    A part whose file or module is not here (a recipe's, when only the wheel is) becomes None: a model can
    be used without the data it was trained on. Who needs them all asks `check_parts` first.

    Raises:
      UserError: the file is here, and does not have the part.
    """
    if isinstance(value, list):
        return tuple(from_json(v) for v in value)
    if not isinstance(value, dict):
        return value
    if "import" in value:
        return imported(value["import"])
    fields = {k: from_json(v) for k, v in value.items() if k != "type"}
    if "type" in value:
        made = imported(value["type"])
        return None if made is None else made(**fields)
    if "partial" in value:
        return functools.partial(fields["partial"], *fields["args"], **fields["kwargs"])
    return fields


def check_parts(saved: Any) -> None:
    """Raises UserError for the first part that an experiment's JSON names and that cannot be found here."""
    for name in _names(saved):
        required(name)


def _names(saved: Any) -> Iterator[str]:
    inner = saved if isinstance(saved, list) else saved.values() if isinstance(saved, dict) else ()
    if isinstance(saved, dict):
        yield from (saved[key] for key in ("type", "import") if key in saved)
    for value in inner:
        yield from _names(value)


def differences(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Fields in which two JSON trees differ, by path (`optim.lr`): the value in each, None where one has none."""
    if old == new:
        return {}
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f".{k}", old.get(k), new.get(k)) for k in sorted(old.keys() | new.keys())]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"[{i}]", a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return {path.removeprefix("."): (old, new)}
    return {k: v for key, a, b in pairs for k, v in differences(a, b, path + key).items()}


def fingerprint(exp: Experiment) -> str:
    """16 hex digits of the experiment's JSON: two runs with the same one are the same experiment."""
    return hashlib.sha256(json.dumps(to_json(exp), sort_keys=True).encode()).hexdigest()[:16]


def validate(exp: Experiment) -> None:
    """Checks what can be checked before any work; parts with a `validate()` of their own are asked too.

    Raises:
      UserError: naming the field, its value and what would do.
    """
    positive = {
        "steps": exp.steps + 1,
        "data.batch_size": exp.data.batch_size,
        "optim.lr": exp.optim.lr,
        "log_every": exp.log_every,
        "keep": exp.keep,
    }
    for field, value in positive.items():
        if value <= 0:
            raise UserError(
                f"config.{field}={value - (field == 'steps')}: must be positive; change it in the config or on the command line"
            )
    if exp.optim.warmup > max(exp.steps, 1):
        raise UserError(
            f"config.optim.warmup={exp.optim.warmup}: longer than the run (steps={exp.steps}); lower it"
        )
    if exp.grow and not exp.init:
        raise UserError("config.grow: there is nothing to grow; name a run with --config.init=RUN")
    sizes = dataclasses.astuple(exp.mesh)
    if sum(s == -1 for s in sizes) > 1 or any(s == 0 or s < -1 for s in sizes):
        raise UserError(f"config.mesh={sizes}: sizes are positive, at most one of them -1")
    for part in (exp.task, exp.data.source, exp.data.missing, exp.data.crops, *exp.evals):
        if hasattr(part, "validate"):
            part.validate()
