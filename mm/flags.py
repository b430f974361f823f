"""The command line: flags -> a checked `Experiment` and what to do with it, or one line of what is wrong."""

import dataclasses
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from mm import config
from mm.errors import UserError, nearest

MODES = ("train", "evaluate", "generate", "embed", "check-data")

USAGE = """mm: train, use and judge any-to-any multimodal models.

  python -m mm.main --config configs/quickstart.py [--workdir DIR] [--config.optim.lr=3e-4 ...]
  python -m mm.main --config tokenizers/image.py                 (a tokenizer or judge: the same loop)
  python -m mm.main --mode=check-data --config configs/my_data.py [--out DIR]     (what the data is like; nothing is trained)
  python -m mm.main --mode=evaluate --workdir RUN
  python -m mm.main --mode=generate --workdir RUN --input text="a thin seven" --output image,speech [--out DIR]
  python -m mm.main --mode=embed    --workdir RUN --input image=seven.png [--out DIR]

Flags:
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """What the user asked for. `experiment` and `origin` are None where only a workdir was named."""

    mode: str
    experiment: config.Experiment | None
    origin: config.Origin | None
    workdir: Path
    inputs: dict[str, str]
    outputs: dict[str, str | None]
    out: Path
    seed: int
    out_given: bool


def parse(argv: list[str]) -> Command:
    """Parses and validates the command line (argv[0] is the program).

    Raises:
      UserError: anything in it that cannot be meant.
      SystemExit: after --help.
    """
    if len(argv) == 1 or any(a in ("--help", "-h", "-help", "--h") for a in argv[1:]):
        values = _values()
        print(USAGE + values.main_module_help().partition("\n")[2])
        raise SystemExit(0 if len(argv) > 1 else 2)
    config_path = _config_argument(argv)
    if config_path is not None:
        _check_config_file(config_path)
    values = _read(argv)
    if values.mode not in MODES:
        raise UserError(f"--mode={values.mode}: unknown{nearest(values.mode, MODES)}")
    experiment = values["config"].value if config_path else None
    if experiment is not None:
        if not isinstance(experiment, config.Experiment):
            raise UserError(
                f"{config_path}: get_config returned a {type(experiment).__name__}, not an mm.config.Experiment"
            )
        config.validate(experiment)
    if experiment is None and (values.mode == "train" or not values.workdir):
        raise UserError(
            f"--mode={values.mode}: needs "
            + ("--config FILE" if values.mode == "train" else "--workdir RUN (or --config FILE)")
        )
    name = experiment.name if experiment else ""
    folder = Path(values.workdir or f"runs/{name}").expanduser()
    # Commas separate modalities; a comma with a blank behind it belongs to a text.
    wanted = [part for item in values.output for part in re.split(r",(?! )", item)]
    outputs = {k: v or None for k, _, v in (item.partition("=") for item in wanted)}
    inputs = dict(_pair(item) for item in values.input)
    origin = _origin(config_path, experiment) if config_path and experiment else None
    out, given = Path(values.out).expanduser(), bool(values["out"].present)
    return Command(
        values.mode, experiment, origin, folder, inputs, outputs, out, values.seed, given
    )


def _origin(path: str, experiment: config.Experiment) -> config.Origin:
    """The file is read once more: overrides were written into the experiment itself."""
    of_file, now = config.to_json(_load(path)), config.to_json(experiment)
    return config.Origin(path, config.differences(of_file, now))


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        None,
        "the experiment: a file with get_config(arg), as FILE or FILE:arg; --config.a.b=v overrides a field",
        flag_values=values,
    )
    flags.DEFINE_string("mode", "train", f"one of {', '.join(MODES)}", flag_values=values)
    flags.DEFINE_string(
        "workdir",
        "",
        "the run's folder, where everything goes (default: runs/NAME)",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "input", [], "MODALITY=FILE or text=WORDS; may be given several times", flag_values=values
    )
    flags.DEFINE_multi_string(
        "output",
        [],
        'modalities to generate: image,speech; text=TEMPLATE asks for a form: "[MASK]", "a ..."',
        flag_values=values,
    )
    flags.DEFINE_string(
        "out",
        "generated",
        "where generated files (and the examples of check-data) go",
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "seed of what is generated", flag_values=values)
    return values


def _config_argument(argv: list[str]) -> str | None:
    for i, a in enumerate(argv):
        if a in ("--config", "-config"):
            return argv[i + 1] if i + 1 < len(argv) else ""
        if a.startswith(("--config=", "-config=")):
            return a.partition("=")[2]
    return None


def _check_config_file(path: str) -> None:
    file = Path(path.partition(":")[0])
    if not file.is_file():
        others = [str(p) for p in sorted(file.parent.glob("*.py"))] if file.parent.is_dir() else []
        raise UserError(
            f"--config {path}: no such file{nearest(str(file), others) if others else '; run from the checkout'}"
        )


def _read(argv: list[str]) -> flags.FlagValues:
    values = _values()
    sys_argv, sys.argv = sys.argv, argv  # config_flags looks for its overrides there
    try:
        rest = values(argv)
    except flags.UnrecognizedFlagError as e:
        raise UserError(f"--{e.flagname}: no such flag{nearest(e.flagname, list(values))}") from e
    except KeyError as e:
        raise UserError(_field_error(argv, str(e))) from e
    except (flags.Error, TypeError, AttributeError, IndexError) as e:
        raise UserError(" ".join(str(e).split())) from e
    finally:
        sys.argv = sys_argv
    if len(rest) > 1:
        raise UserError(
            f"{rest[1]!r}: not a flag; flags begin with --, and lists take commas without blanks"
        )
    return values


def _field_error(argv: list[str], message: str) -> str:
    """For an override of a field that does not exist: the field and its nearest relative."""
    path = _config_argument(argv) or ""
    for a in argv:
        match = re.match(r"--?config\.([\w.\[\]]+)", a)
        if not match:
            continue
        part: Any = _load(path)
        for name in match[1].split("."):
            base = name.partition("[")[0]
            names = (
                part.keys()
                if isinstance(part, dict)
                else getattr(type(part), "__dataclass_fields__", {}).keys()
            )
            if base not in names:
                return f"--config.{match[1]}: no field {base!r}{nearest(base, names)}"
            part = part[base] if isinstance(part, dict) else getattr(part, base)
    return f"{path}: {message}"


def _load(path: str) -> Any:
    file, _, arg = path.partition(":")
    get_config = runpy.run_path(file)["get_config"]
    return get_config(arg) if arg else get_config()


def _pair(item: str) -> tuple[str, str]:
    name, found, value = item.partition("=")
    if not found or not value:
        raise UserError(
            f'--input {item}: expected MODALITY=VALUE, as in --input text="a thin seven" or --input image=seven.png'
        )
    return name, value
