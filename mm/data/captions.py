"""captions.jsonl of a folder: which caption and which label a stem has. See `mm.data.folder`."""

import json
from typing import Any

from etils.epath import Path

from mm.errors import UserError, nearest


def read_captions(path: Path, known: set[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """captions.jsonl -> captions by stem, in the order of the lines, and labels by stem.

    Args:
      path: a line of JSON each, see the module; where there is no such file, there are no captions.
      known: stems that have files.

    Raises:
      UserError: naming the line that is wrong.
    """
    captions: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not a readable UTF-8 text ({e}); save it as UTF-8") from e
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as e:
            raise UserError(f"{where}: not JSON ({e}); one object in braces per line") from e
        stem, caption, label = _entry(entry, where)
        if known and stem not in known:
            raise UserError(
                f"{where}: no file has the stem {stem!r}{_near(stem, known)}; mend it, or delete the line"
            )
        if caption:
            captions.setdefault(stem, []).append(caption)
        if label is not None and labels.setdefault(stem, label) != label:
            raise UserError(
                f"{where}: label {label!r}, but an earlier line of {stem!r} has {labels[stem]!r}; keep one"
            )
    return captions, labels


def _entry(entry: Any, where: str) -> tuple[str, str, str | None]:
    """A line's stem, caption ("" for none) and label."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    names = [
        fields[k] for k in ("stem", "file", "image", "audio") if isinstance(fields.get(k), str)
    ]
    caption, label = fields.get("caption", fields.get("text", "")), fields.get("label")
    if not names or not isinstance(caption, str) or not (caption.strip() or label is not None):
        raise UserError(
            f'{where}: needs a stem and a caption, as in {{"stem": "cat-01", "caption": "a cat"}}'
        )
    stem = names[0]
    if "stem" not in fields:
        inside = Path(stem.removeprefix("images/").removeprefix("audio/"))
        stem = inside.with_suffix("").as_posix()
    return stem, " ".join(caption.split()), None if label is None else str(label)


def _near(stem: str, known: set[str]) -> str:
    hint = nearest(stem, known)
    return hint if "did you mean" in hint else ""
