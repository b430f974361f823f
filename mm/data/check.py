"""What a data set is like, before anything is trained on it: --mode=check-data."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import soundfile
from etils.epath import Path

from mm import config, tokenizers
from mm.data import Column, Source
from mm.data.aligned import SPLITS
from mm.data.records import CorruptLog
from mm.errors import UserError
from mm.tokenizers import files
from mm.tokenizers.arrays import write_array

CHUNK = 512  # rows that are read at a time
EXAMPLES = 10
NAMED = 20  # unreadable files whose names are printed


def lines(data: config.Data, cache: Path, out: Path | None, task: Any = None) -> Iterator[str]:
    """Reads every row of every split, and says what was found, a line at a time.

    Per split and modality: rows, examples that lack it, dtype and shape, lengths, range of values.
    Then the files that cannot be read, and ten training examples.

    Args:
      cache: where the source builds what it builds at first use.
      out: where the examples' pictures and sounds are written; None = nowhere.
      task: the experiment's; that of a tokenizer knows how its rows are looked at, before it is trained.

    Raises:
      UserError: the source cannot be opened; at the end, some of its files cannot be read.
    """
    log, source = CorruptLog(None), data.source
    try:
        source.open(cache, log)
    except UserError:
        yield from log.found[:NAMED]
        raise
    yield f"{type(source).__name__}: {', '.join(source.modalities)}"
    if hasattr(source, "verify"):  # tokens on disk
        yield from source.verify(cache)
        return
    loaded = dict(_loaded(data.tokenizers))
    for split in SPLITS:
        yield from _split(source, split, loaded)
    settings: dict[str, Any] = {getattr(task, "column", ""): getattr(task, "network", None)}
    settings |= {name: getattr(t, "settings", None) for name, t in loaded.items()}
    pictures = {name: s.picture for name, s in settings.items() if hasattr(s, "picture")}
    yield from _examples(source, out, pictures)
    yield from log.found[:NAMED]
    if log.found:
        more = f" (the first {NAMED} are named above)" if len(log.found) > NAMED else ""
        raise UserError(
            f"{len(log.found):,} files or records cannot be used{more}: mend them, or take them out of the data"
        )


def _loaded(references: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """The tokenizers that are there already; those of texts say how long texts are in tokens."""
    for name, reference in references.items():
        with contextlib.suppress(UserError):
            yield name, tokenizers.load(reference, name)


def _split(source: Source, split: str, loaded: Mapping[str, Any]) -> Iterator[str]:
    order, columns = source.order(split, 0, 0), source.columns(split)
    n, groups = len(order["group"]), len(np.unique(order["group"]))
    yield f"{split}: {n:,} examples, {groups:,} groups"
    for name, column in columns.items():
        lack = int((order[name] < 0).sum())
        missing = f"{lack:,} examples lack it" if lack else "in every example"
        yield f"  {name}: {len(column):,} rows, {missing}; " + "; ".join(
            _facts(column, loaded.get(name))
        )


def _facts(column: Column, tokenizer: Any) -> Iterator[str]:
    """dtype and shape, lengths, range of values, of all rows."""
    if not len(column):
        return
    row = column[np.arange(1)]
    if isinstance(row, list):
        texts = [t for rows in _chunks(column) for t in rows]
        yield f"texts, {len(set(texts)):,} different ones"
        yield _spread(np.array([len(t) for t in texts]), "characters")
        if long := _tokens(texts, tokenizer):
            yield long
        return
    yield f"{row.dtype}[{', '.join(map(str, row.shape[1:]))}]"
    lengths = getattr(column, "lengths", None)
    for unit, values in lengths.items() if isinstance(lengths, Mapping) else ():
        yield _spread(values, unit)
    low, high, total, filled = np.inf, -np.inf, 0.0, []
    for rows in _chunks(column):
        low, high = min(low, rows.min()), max(high, rows.max())
        total += float(rows.mean(dtype=np.float64)) * len(rows)
        if row.ndim == 2:
            filled.append(_filled(rows))
    if filled:
        yield _spread(
            np.concatenate(filled), f"of {row.shape[1]} values up to the last that is not 0"
        )
    yield f"values {low:.4g} .. {high:.4g}, mean {total / len(column):.4g}"
    if not (np.isfinite(low) and np.isfinite(high)):
        yield "NOT FINITE"


def _tokens(texts: list[str], tokenizer: Any) -> str:
    if tokenizer is None:
        return ""
    try:
        _, length = tokenizer.encode(sorted(set(texts)))
    except UserError as e:
        return f"TOO LONG: {e}"
    return _spread(length, f"of {tokenizer.modality.size} tokens")


def _chunks(column: Column) -> Iterator[Any]:
    for start in range(0, len(column), CHUNK):
        yield column[np.arange(start, min(start + CHUNK, len(column)))]


def _filled(rows: np.ndarray) -> np.ndarray:
    """int[n]: values up to the last one that is not 0, of [n, T]."""
    used = rows != 0
    return np.where(used.any(1), rows.shape[1] - used[:, ::-1].argmax(1), 0)


def _spread(values: np.ndarray, unit: str) -> str:
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{low:.4g} / {middle:.4g} / {high:.4g} {unit} (least, median, most)"


def _examples(source: Source, out: Path | None, pictures: Mapping[str, Any]) -> Iterator[str]:
    """The first training examples of an epoch; texts are printed, other rows written below `out`."""
    order, columns = source.order("train", 0, 0), source.columns("train")
    count = min(EXAMPLES, len(order["group"]))
    yield f"{count} examples of train:"
    for i in range(count):
        parts = [f"group {order['group'][i]}"]
        for name, column in columns.items():
            row = int(order[name][i])
            stem = out / f"{i}-{name}" if out else None
            found = _example(name, column, row, stem, pictures) if row >= 0 else f"{name} -"
            parts.append(found)
        yield f"  {i}: " + ", ".join(parts)


def _example(
    name: str, column: Column, row: int, stem: Path | None, pictures: Mapping[str, Any]
) -> str:
    value = column[np.array([row])][0]
    if isinstance(value, str):
        return f"{name} {value!r}"
    return (
        f"{name} {_write(value, stem, column, pictures.get(name))}" if stem else f"{name} row {row}"
    )


def _write(value: np.ndarray, stem: Path, column: Column, picture: Any) -> Path:
    """A PNG, a WAV, or the array as it is: by `picture`, or its shape and dtype. Returns its path."""
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(
            f"--out {stem.parent}: cannot be made ({e.strerror}); name another folder"
        ) from e
    if picture or files.is_picture(value):
        return files.write_picture(picture(value) if picture else value, stem)
    if value.ndim == 1 and (rate := getattr(column, "rate", 0)):
        soundfile.write(stem.with_suffix(".wav"), value, rate, subtype="PCM_16")
        return stem.with_suffix(".wav")
    return write_array(value, stem)
