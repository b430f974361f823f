"""Files of 4M: a state dict in safetensors, and the config that goes with it."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import yaml
from etils.epath import Path
from safetensors import SafetensorError, safe_open

from mm.errors import UserError
from mm.paths import as_local
from mm.tokenizers.files import existing_file

Arrays = dict[str, np.ndarray]
Config = dict[str, Any]

LISTED = 12  # names in a message
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")


class File:
    """An open safetensors file of 4M's, of which only what is asked for is read.

    Attributes:
      shapes: of every tensor, by key. config: NAME.json beside it, or else config.json, goes before its own metadata.
    """

    def __init__(self, path: Path | str):
        """Raises UserError: no such file, a pickle, or damaged."""
        self.path = existing_file(path, "a .safetensors of 4M's")
        _refuse_pickle(self.path)
        try:
            self._open = safe_open(self.path, framework="numpy")
            self.shapes = {k: tuple(self._open.get_slice(k).get_shape()) for k in self._open.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, TypeError) as e:
            raise UserError(
                f"{self.path}: not a readable safetensors file ({e}); download it again"
            ) from e
        config = _flat(
            {name: _literal(value) for name, value in (self._open.metadata() or {}).items()}
        )
        beside = (self.path.with_suffix(".json"), self.path.parent / "config.json")
        self.config = config | next((_json_config(p) for p in beside if p.is_file()), {})

    def __contains__(self, key: str) -> bool:
        return key in self.shapes

    def part(self, key: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor, float32."""
        return self._open.get_slice(key)[index].astype(np.float32)

    def whole(self, key: str) -> np.ndarray:
        """A tensor, float32."""
        return self._open.get_tensor(key).astype(np.float32)


def read(path: Path | str) -> tuple[Config, Arrays]:
    """Config and state dict of a file, arrays in float32. Raises UserError: see `File`."""
    with as_local(path) as local:
        file = File(local)
        return file.config, {key: file.whole(key) for key in file.shapes}


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as f:
        head = f.read(9)
    whole = head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().length
    if not whole and (head.startswith((b"PK\x03\x04", b"\x80")) or path.suffix in PICKLES):
        raise UserError(
            f"{path}: a pickle, which runs what code it likes when it is read; where you trust it, "
            "torch.load(..., weights_only=True) it and write its state dict with safetensors.torch.save_file"
        )


def _json_config(path: Path) -> Config:
    try:
        return _flat(json.loads(path.read_text()))
    except (ValueError, TypeError, AttributeError) as e:
        raise UserError(f"{path}: not a config ({e}); give a JSON object of 4M's arguments") from e


def _flat(found: Config) -> Config:
    """What stands below "config", and `vit...` beside it; all, where there is no such part."""
    inner = found.get("config")
    if not isinstance(inner, dict):
        return dict(found)
    return inner | {name: value for name, value in found.items() if name.startswith("vit")}


def _literal(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def listed(names: Iterable[str]) -> str:
    """Names in a line, not too many."""
    names = sorted(names)
    return ", ".join(names[:LISTED]) + (
        f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    )
