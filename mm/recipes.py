"""Config files: read, and what they return checked. A `get_config` that yields is a sweep.

def get_config(arg: str = ""):
    for lr in (1e-3, 3e-3):
        yield f"lr={lr}", dataclasses.replace(quickstart.get_config(arg), optim=Optim(lr=lr))
"""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from mm import config, parts
from mm.errors import UserError, nearest

Runs = dict[str, config.Experiment]
"""Name -> experiment; the name of a single one is empty."""


def read(reference: str) -> Runs:
    """The experiments of FILE or FILE:arg.

    Raises:
      UserError: no such file, no `get_config`, or not what that must return.
    """
    file, _, arg = reference.partition(":")
    if not Path(file).is_file():
        folder = Path(file).parent
        others = [str(p) for p in sorted(folder.glob("*.py"))] if folder.is_dir() else []
        raise UserError(
            f"--config {reference}: no such file{nearest(file, others) if others else '; run from the checkout'}"
        )
    try:
        get_config = getattr(parts.load_file(file), "get_config", None)
    except ModuleNotFoundError as e:
        raise UserError(
            f"{file}: needs {e.name!r}, which is not found; run from its checkout"
        ) from e
    if get_config is None:
        raise UserError(f"{file}: has no get_config(arg); see configs/quickstart.py")
    made = get_config(arg) if arg else get_config()
    if not inspect.isgenerator(made):
        _check(file, "get_config returned", made)
        return {"": made}
    runs: Runs = {}
    for pair in made:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise UserError(f"{file}: get_config yields {str(pair)[:60]}, not (name, Experiment)")
        name, exp = pair
        _check(file, f"get_config yields with {name!r}", exp)
        if not re.fullmatch(r"\w[\w.,=+-]*", str(name)) or name == "cache":
            raise UserError(f"{file}: {name!r} names no folder; use letters, digits and .,=+-")
        if name in runs:
            raise UserError(f"{file}: two runs are called {name!r}; give each a name of its own")
        runs[name] = exp
    if not runs:
        raise UserError(f"{file}: get_config yields no run")
    return runs


def _check(file: str, what: str, exp: Any) -> None:
    if not isinstance(exp, config.Experiment):
        raise UserError(f"{file}: {what} a {type(exp).__name__}, not an mm.config.Experiment")


def check_distinct(runs: Runs) -> None:
    """Raises UserError where two runs differ in nothing but the name, as after an override of what is swept."""
    seen: dict[str, str] = {}
    for name, exp in runs.items():
        mark = config.fingerprint(dataclasses.replace(exp, name=""))
        if mark in seen:
            raise UserError(
                f"{seen[mark]!r} and {name!r} are the same experiment; drop the override, or one of them"
            )
        seen[mark] = name
