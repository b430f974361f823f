"""Parts of experiments by name: "module:qualified.name", and "tokenizers/pen.py:Pen" for what a recipe file defines.

Not every recipe can be imported: with an `__init__.py`, `tokenizers/` of a checkout would shadow Hugging Face's
package. So a recipe file is a module whose name is its path from the working directory, which is the checkout; it
is run once, and whoever asks for a class of it gets the same one.

To look up a name is to run its file: open configs, runs and artefacts only of people whose code you would run.
"""

import functools
import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

from mm.errors import UserError, nearest


class Absent(UserError):
    """The file or module that a name asks for is not here."""


def name_of(part: Any) -> str:
    """The name by which `required` finds a class or function again."""
    return f"{part.__module__}:{part.__qualname__}"


def required(name: str) -> Any:
    """What a name stands for.

    Raises:
      Absent: its file is not there (from here), or a module is not installed.
      UserError: they are there, and do not have it.
    """
    module, _, qualified = str(name).rpartition(":")
    if not module:
        raise UserError(
            f"{name!r}: names no part, as module:name does; a setting that is a dict cannot have the "
            "keys 'type' and 'import'"
        )
    if "<" in qualified:  # <lambda>, <locals>
        raise UserError(
            f"{module}: {qualified} has no name that a run could find it by; define it at the top "
            "level of a file"
        )
    try:
        found = load_file(module) if module.endswith(".py") else _import(module)
    except ModuleNotFoundError as e:
        raise Absent(
            f"{name}: needs the module {e.name!r}, which is not here; run from the checkout, or install it"
        ) from e
    try:
        return functools.reduce(getattr, qualified.split("."), found)
    except AttributeError as e:
        own = [n for n, v in vars(found).items() if getattr(v, "__module__", "") == module]
        raise UserError(f"{module}: has no {qualified!r}{nearest(qualified, own)}") from e


def imported(name: str) -> Any:
    """What a name stands for; None where its file or module is not here. Raises UserError: see `required`."""
    try:
        return required(name)
    except Absent:
        return None


def load_file(path: str | Path) -> types.ModuleType:
    """A recipe file as a module; run at the first call, and anew where the name means another file by now.

    Raises:
      Absent: no such file. Whatever the file raises is not caught.
    """
    file, here = Path(os.path.abspath(path)), Path.cwd()
    if not file.is_file():
        raise Absent(f"{path}: no such file; run from the checkout that has it")
    name = (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(file):
        return known
    module = types.ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # before it is run: dataclasses look their module up
    _find_neighbours()
    try:
        exec(compile(file.read_bytes(), file, "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import(module: str) -> types.ModuleType:
    _find_neighbours()
    return importlib.import_module(module)


def _find_neighbours() -> None:
    """Recipes import each other (data_pipelines, configs) from the checkout."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
