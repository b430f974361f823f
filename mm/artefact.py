"""Self-describing weights: safetensors with everything needed to use them in their own metadata.

A tokenizer or judge file says what it is (kind), how its network is built (config), what it was trained on
and how well it does (card), and carries the fingerprint of its contents, so that it can be neither applied with
the wrong statistics nor exchanged unnoticed.
"""

import dataclasses
import hashlib
import json
import os
import typing
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mm.errors import UserError

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
    os.replace(partial, path)
    return mark


def settings(kind: type, fields: dict[str, Any]) -> Any:
    """A dataclass from its part of a config: nested ones are dataclasses again, and lists tuples.

    Raises:
      TypeError: it has no such field, or one without a default is not there.
    """
    hints = typing.get_type_hints(kind)

    def value(hint: Any, found: Any) -> Any:
        if isinstance(found, dict) and dataclasses.is_dataclass(hint):
            return settings(hint, found)
        return tuple(value(None, f) for f in found) if isinstance(found, list) else found

    return kind(**{name: value(hints.get(name), found) for name, found in fields.items()})


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
        with safe_open(path, framework="numpy") as f:
            metadata = f.metadata() or {}
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as e:
        raise UserError(
            f"{path}: not a readable safetensors file ({e}); restore it from the repository"
        ) from e
    if "kind" not in metadata:
        raise UserError(f"{path}: safetensors without mm's metadata; write it with mm's own export")
    try:
        version = int(metadata["format_version"])
        meta: dict[str, Any] = {k: json.loads(metadata[k]) for k in ("config", "card")}
        meta |= {k: metadata[k] for k in ("kind", "fingerprint")}
    except (KeyError, ValueError) as e:
        raise UserError(f"{path}: its metadata is damaged ({e}); restore the file") from e
    if version > FORMAT_VERSION:
        raise UserError(f"{path}: written by a newer mm (format {version}); update mm")
    found = fingerprint(meta["kind"], meta["config"], arrays)
    if found != meta["fingerprint"]:
        raise UserError(
            f"{path}: its contents ({found}) are not what its label says ({meta['fingerprint']}); restore the file"
        )
    return meta, arrays
