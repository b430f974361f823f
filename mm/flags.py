"""The command line: flags -> a checked `Experiment` and what to do with it, or one line of what is wrong."""

import dataclasses
import re
from typing import Any

from absl import flags
from etils.epath import Path
from ml_collections import config_flags

from mm import config, recipes, usage, weights_and_biases
from mm.errors import UserError, nearest

MODES = ("train", "evaluate", "generate", "embed", "check-data", "tokenize", "compile")
SHIPPED = ("generate", "embed")  # these use the model that ships with mm where none is named


@dataclasses.dataclass(frozen=True)
class Command:
    """What the user asked for.

    Attributes:
      experiment: None where only a workdir was named, and for a sweep.
      origins: where each run's experiment comes from; a single one has no name.
      topology, slices, json: for compile. splits, shard_size, passes, runner, workers, runner_options: for tokenize.
      model: what generate and embed use: a run's folder, an exported file, None for the model that ships with mm.
    """

    mode: str
    experiment: config.Experiment | None
    origins: dict[str, config.Origin]
    sweep: recipes.Runs
    workdir: Path
    model: Path | None
    inputs: dict[str, str]
    outputs: dict[str, str | None]
    out: Path
    seed: int
    out_given: bool
    wandb: str
    topology: str
    slices: int
    json: str
    splits: tuple[str, ...]
    shard_size: int
    passes: int
    runner: str
    workers: int
    runner_options: str


def parse(argv: list[str]) -> Command:
    """Parses and validates the command line (argv[0] is the program).

    Raises:
      UserError: anything in it that cannot be meant.
      SystemExit: after --help.
    """
    path, rest = _without_config(argv)
    runs: recipes.Runs = {} if path is None else recipes.read(path)
    if len(argv) == 1 or any(a in ("--help", "-h", "-help", "--h") for a in rest):
        print(usage.fields(next(iter(runs.values()))) if runs else usage.HELP)
        raise SystemExit(0 if len(argv) > 1 else 2)
    of_file = {name: config.to_json(exp) for name, exp in runs.items()}
    read = {name: _read(rest, name, exp) for name, exp in (runs or {"": None}).items()}
    values = next(iter(read.values()))[0]
    runs = {name: exp for name, (_, exp) in read.items() if exp}
    recipes.check_distinct(runs)
    origins = {
        name: config.Origin(path or "", config.differences(of_file[name], config.to_json(exp)))
        for name, exp in runs.items()
    }
    experiment = runs.get("")
    return _command(values, path, experiment, origins, {} if experiment else runs)


def _command(
    values: flags.FlagValues,
    path: str | None,
    experiment: config.Experiment | None,
    origins: dict[str, config.Origin],
    sweep: recipes.Runs,
) -> Command:
    mode = values.mode
    if mode not in MODES:
        raise UserError(f"--mode={mode}: unknown{nearest(mode, MODES)}")
    if sweep and mode != "train":
        raise UserError(
            f"--mode={mode}: {path} is a sweep; name one of its runs, --workdir DIR/NAME"
        )
    if mode == "tokenize" and not (experiment and values["out"].present):
        raise UserError("--mode=tokenize: needs --config FILE and --out FOLDER")
    if path is None and (mode == "train" or not (values.workdir or mode in SHIPPED)):
        needed = "--config FILE" if mode == "train" else "--workdir RUN (or --config FILE)"
        raise UserError(f"--mode={mode}: needs {needed}")
    if mode == "compile" and not (experiment and values.topology and values.slices > 0):
        raise UserError(
            "--mode=compile: needs --config FILE and --topology, as in --topology=v5e:2x4"
        )
    if values.wandb:
        weights_and_biases.check()
    name = experiment.name if experiment else Path((path or "").partition(":")[0]).stem
    # Commas separate modalities; a comma with a blank behind it belongs to a text.
    wanted = [part for item in values.output for part in re.split(r",(?! )", item)]
    workdir = Path(values.workdir or f"runs/{name}").expanduser()
    return Command(
        mode=mode,
        experiment=experiment,
        origins=origins,
        sweep=sweep,
        workdir=workdir,
        model=workdir if values.workdir or path else None,
        inputs=dict(_pair(item) for item in values.input),
        outputs={k: v or None for k, _, v in (item.partition("=") for item in wanted)},
        out=Path(values.out).expanduser(),
        out_given=bool(values["out"].present),
        seed=values.seed,
        wandb=values.wandb,
        topology=values.topology,
        slices=values.slices,
        json=values.json,
        splits=tuple(values.splits.split(",")),
        shard_size=values.shard_size,
        passes=values.passes,
        runner=values.runner,
        workers=values.workers,
        runner_options=values.runner_options,
    )


def _values() -> flags.FlagValues:
    """All flags but --config; `mm.usage` explains them."""
    values = flags.FlagValues()
    texts = {
        "mode": "train",
        "workdir": "",
        "out": "generated",
        "wandb": "",
        "topology": "",
        "json": "",
        "splits": "train,validation,test",
        "runner": "DirectRunner",
        "runner_options": "",
    }
    for name, default in texts.items():
        flags.DEFINE_string(name, default, "", flag_values=values)
    for name in ("input", "output"):
        flags.DEFINE_multi_string(name, [], "", flag_values=values)
    for name, default in {
        "seed": 0,
        "slices": 1,
        "shard_size": 8192,
        "passes": 1,
        "workers": 2,
    }.items():
        flags.DEFINE_integer(name, default, "", flag_values=values)
    return values


def _without_config(argv: list[str]) -> tuple[str | None, list[str]]:
    """The value of --config, and the other arguments."""
    path, rest, others = None, [], iter(argv)
    for a in others:
        if a in ("--config", "-config"):
            path = next(others, "")
        elif a.startswith(("--config=", "-config=")):
            path = a.partition("=")[2]
        else:
            rest.append(a)
    return path, rest


def _read(
    argv: list[str], name: str, experiment: config.Experiment | None
) -> tuple[flags.FlagValues, Any]:
    """The flags, and a copy of `experiment` with the overrides, validated."""
    values = _values()
    try:
        if experiment:
            config_flags.DEFINE_config_dataclass(
                "config", experiment, flag_values=values, sys_argv=argv
            )
        rest = values(argv)
        if len(rest) > 1:
            hint = "flags begin with --, and lists take commas without blanks"
            raise UserError(f"{rest[1]!r}: not a flag; {hint}")
        changed: Any = values["config"].value if experiment else None
        if changed:
            config.validate(changed)
    except UserError as e:
        if name:
            raise UserError(f"{name}: {e}") from e
        raise
    except flags.UnrecognizedFlagError as e:
        known = [*values, "config"]
        raise UserError(f"--{e.flagname}: no such flag{nearest(e.flagname, known)}") from e
    except KeyError as e:
        where = f" (run {name})" if name else ""
        raise UserError(_field_error(argv, experiment, str(e)) + where) from e
    except (flags.Error, TypeError, AttributeError, IndexError) as e:
        raise UserError(" ".join(f"{name} {e}".split())) from e
    return values, changed


def _field_error(argv: list[str], part: Any, message: str) -> str:
    """For an override of a field that does not exist: the field and its nearest relative."""
    for a in argv:
        match = re.match(r"--?config\.([\w.\[\]]+)", a)
        inner = part
        for field in match[1].split(".") if match else ():
            base = field.partition("[")[0]
            known = getattr(type(inner), "__dataclass_fields__", {})
            names = list(inner if isinstance(inner, dict) else known)
            if match and base not in names:
                return f"--config.{match[1]}: no field {base!r}{nearest(base, names)}"
            inner = inner[base] if isinstance(inner, dict) else getattr(inner, base)
    return f"--config: {message}"


def _pair(item: str) -> tuple[str, str]:
    name, found, value = item.partition("=")
    if not found or not value:
        raise UserError(
            f'--input {item}: expected MODALITY=VALUE, as in --input text="a thin seven" or --input image=seven.png'
        )
    return name, value
