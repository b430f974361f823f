"""Self-describing weights: safetensors with everything needed to use them in their own metadata.

A tokenizer or judge file says what it is (kind), how its network is built (config), what it was trained on
and how well it does (card), and carries the fingerprint of its contents, so that it can be neither applied with
the wrong statistics nor exchanged unnoticed.
"""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils.epath import Path
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mm import parts
from mm.errors import UserError, nearest, refuse_newer
from mm.paths import as_local

FORMAT_VERSION = 1


def fingerprint(kind: str, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """16 hex digits over kind, config and every array's name, dtype, shape and bytes (not over the card)."""
    digest = hashlib.sha256(json.dumps([kind, config], sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def write(
    path: Path,
    kind: str,
    config: dict[str, Any],
    arrays: dict[str, np.ndarray],
    card: dict[str, Any],
) -> str:
    """Writes an artefact (all or nothing) and returns its fingerprint.

    Args:
      config: JSON-ready settings that rebuild the network, statistics included.
      arrays: flat dict of weights, names with dots ("encoder.in.kernel").
      card: JSON-ready facts for people: data, licence, figures.
    """
    mark = fingerprint(kind, config, arrays)
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "kind": kind,
        "config": json.dumps(config, sort_keys=True),
        "card": json.dumps(card, sort_keys=True),
        "fingerprint": mark,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata))
    partial.replace(path)
    return mark


def kind_of(part: Any, known: Mapping[str, type]) -> str:
    """What an artefact calls the class of some settings: a short name where it is `known`, else its own."""
    short = {made: kind for kind, made in known.items()}
    return short.get(type(part)) or parts.name_of(type(part))


def settings_of(
    path: Path, kind: str, fields: dict[str, Any], *, known: Mapping[str, type], what: str, has: str
) -> Any:
    """Settings in the artefact at `path`: of the class that `kind_of` called `kind`.

    A class that is not `known` is looked up by its name, which runs its file: as with configs, that is
    only for artefacts of people whose code you would run.

    Args:
      what: they are of, for messages. has: a method that such a class has.

    Raises:
      UserError: the class is not found, is none of that sort, or does not have such fields any more.
    """
    if kind not in known and ":" not in kind:
        raise UserError(f"{path}: holds a {kind!r}, not a {what}{nearest(kind, known)}")
    try:
        made = known.get(kind) or parts.required(kind)
        if not (isinstance(made, type) and dataclasses.is_dataclass(made) and hasattr(made, has)):
            raise UserError(f"{kind} is no dataclass with {has}()")
        return rebuilt(made, fields)
    except UserError as e:
        raise UserError(f"{path}: the class of its settings is not found: {e}") from e
    except TypeError as e:
        raise UserError(f"{path}: {kind} has other fields by now ({e}); train it anew") from e


def rebuilt(made: type, fields: dict[str, Any]) -> Any:
    """A dataclass from its part of a config: nested ones are dataclasses again, and lists tuples.

    Raises:
      TypeError: it has no such field, or one without a default is not there.
    """
    hints = typing.get_type_hints(made)

    def value(hint: Any, found: Any) -> Any:
        if isinstance(found, dict) and dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return rebuilt(hint, found)
        return tuple(value(None, f) for f in found) if isinstance(found, list) else found

    return made(**{name: value(hints.get(name), found) for name, found in fields.items()})


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads an artefact: ({kind, config, card, fingerprint}, arrays).

    Raises:
      UserError: no such file, not an artefact, a newer format, or contents that do not match the fingerprint.
    """
    if not Path(path).is_file():
        raise UserError(
            f"{path}: no such file; train it with its recipe, or check the path in the config"
        )
    try:
        with as_local(path) as file, safe_open(file, framework="numpy") as f:
            metadata = f.metadata() or {}
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as e:
        raise UserError(
            f"{path}: not a readable safetensors file ({e}); restore it from the repository"
        ) from e
    if "kind" not in metadata:
        raise UserError(f"{path}: safetensors without mm's metadata; write it with mm's own export")
    try:
        version = int(metadata.get("format_version", 1))
        meta: dict[str, Any] = {k: json.loads(metadata[k]) for k in ("config", "card")}
        meta |= {k: metadata[k] for k in ("kind", "fingerprint")}
    except (KeyError, ValueError) as e:
        raise UserError(f"{path}: its metadata is damaged ({e}); restore the file") from e
    refuse_newer(path, version, FORMAT_VERSION)
    found = fingerprint(meta["kind"], meta["config"], arrays)
    if found != meta["fingerprint"]:
        raise UserError(
            f"{path}: its contents ({found}) are not what its label says ({meta['fingerprint']}); restore the file"
        )
    return meta, arrays
