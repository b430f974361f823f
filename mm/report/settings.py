"""What was asked for, in which versions, on which machine."""

import dataclasses
import json
from typing import Any

from mm import config, parts
from mm.report.files import RunFiles
from mm.report.markup import escape, folded, note, table

REQUIRED = "(no default)"


def settings(run: RunFiles) -> str:
    """What the command line changed, what differs from the fields' defaults, and the whole."""
    if not run.settings:
        return ""
    file, changed = run.config.get("file"), run.config.get("changed")
    if changed:
        rows = [(escape(name), show(old), show(new)) for name, (old, new) in changed.items()]
        named = f"Changed on the command line; the file is <code>{escape(str(file))}</code>."
        body = note(named) + table(("", "in the file", "in this run"), rows, words=True)
    elif changed is not None:
        body = note(f"As <code>{escape(str(file))}</code> says: nothing was changed.")
    else:
        body = note("The run does not say which file it is from, or what was changed.")
    rows = [(escape(n), show(old), show(new)) for n, (old, new) in from_defaults(run.settings)]
    apart = table(("", "default", "in this run"), rows, words=True)
    body += folded(f"{len(rows)} fields that differ from their defaults", apart)
    whole = f"<pre>{escape(json.dumps(run.settings, indent=1))}</pre>"
    return body + folded("the whole resolved experiment", whole)


def machine(run: RunFiles) -> str:
    """Versions and machine, side by side as they were recorded."""
    rows = [
        (escape(str(name)), show(value))
        for part in ("versions", "machine")
        for name, value in (run.train.get(part) or {}).items()
    ]
    return table(("", ""), rows, words=True) if rows else ""


def from_defaults(settings: Any, path: str = "") -> list[tuple[str, tuple[Any, Any]]]:
    """(field, (default, value)) where an experiment's JSON differs from its dataclasses' defaults.

    A dataclass that is not known here gives its fields without defaults.
    """
    found: list[tuple[str, tuple[Any, Any]]] = []
    if isinstance(settings, list) and any(isinstance(v, dict) and "type" in v for v in settings):
        for i, value in enumerate(settings):
            found += from_defaults(value, f"{path}[{i}]")
        return found
    if not isinstance(settings, dict) or "type" not in settings:
        return [(path, (REQUIRED, settings))]
    known = _defaults(settings["type"])
    for name, value in settings.items():
        if name == "type":
            continue
        default, below = known.get(name, REQUIRED), f"{path}.{name}" if path else name
        if default == value:
            continue
        nested = isinstance(value, (dict, list)) and (default == REQUIRED or _same(default, value))
        found += from_defaults(value, below) if nested else [(below, (default, value))]
    return found or ([(path, (REQUIRED, settings["type"]))] if path else [])


def _same(default: Any, value: Any) -> bool:
    """Whether both are the same dataclass, or the default is an empty list."""
    if isinstance(default, dict) and isinstance(value, dict):
        return default.get("type") == value.get("type") is not None
    return default == []


def _defaults(name: str) -> dict[str, Any]:
    """The JSON of a dataclass's defaults by field; fields without one are left out."""
    try:
        kind = parts.imported(name)
    except Exception:  # a recipe's file is run, which may fail in any way
        kind = None
    if kind is None or not dataclasses.is_dataclass(kind):
        return {}
    found = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            found[field.name] = config.to_json(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = config.to_json(field.default_factory())
    return found


def show(value: Any) -> str:
    """A setting in short, as HTML."""
    if isinstance(value, dict) and set(value) == {"import"}:
        value = value["import"].rpartition(":")[2]
    if isinstance(value, dict) and set(value) == {"type"}:
        value = value["type"].rpartition(":")[2] + "()"
    text = value if isinstance(value, str) else json.dumps(value)
    return escape(text if len(text) <= 300 else text[:297] + "...")
