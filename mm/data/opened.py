"""An experiment's data, ready to use: built and tokenized at first use, kept below a cache."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils.epath import Path

from mm import artefact, config, progress, tokenizers
from mm.data import Column, Source
from mm.data.batches import Batches, Rows, Table, TokenTable, make_raw, make_tokens, serve
from mm.data.columns import digest
from mm.data.records import CorruptLog
from mm.errors import UserError, nearest
from mm.space import Batch, Dense
from mm.tokenizers import Tokenizer

CHUNK = 2048  # rows that are tokenized at a time


def open_data(settings: config.Data, cache: Path, *, rows: bool = True) -> "OpenData":
    """Opens the source and the tokenizers of an experiment.

    Args:
      cache: folder for what is built and tokenized; may be deleted at any time between runs.
      rows: False opens the tokenizers alone: the token space is known, no row can be read.

    Raises:
      UserError: a tokenizer for a modality that the source does not have, or as `tokenizers.load`
        and the source's `open` raise it.
    """
    return OpenData(settings, load_tokenizers(settings), Path(cache), rows)


def load_tokenizers(settings: config.Data) -> dict[str, Tokenizer]:
    """By modality. Raises UserError: one for a modality that the source does not have, or as `tokenizers.load_all`."""
    known = settings.source.modalities
    for name in settings.tokenizers:
        if name not in known:
            raise UserError(
                f"config.data.tokenizers: no modality {name!r} in the data{nearest(name, known)}"
            )
    return tokenizers.load_all(settings.tokenizers)


class OpenData:
    """What tasks, the loop and evaluators read.

    Attributes:
      source: the opened source. tokenizers: by modality, in the order of the token space.
      space: None where nothing is tokenized. written: whether the source's rows are tokens already.
    """

    def __init__(
        self, settings: config.Data, loaded: Mapping[str, Tokenizer], cache: Path, rows: bool = True
    ):
        self.settings, self.tokenizers, self.cache = settings, dict(loaded), cache
        self.source: Source = settings.source
        self.written = hasattr(self.source, "tokens")  # by whoever made the source: rows are tokens
        if hasattr(self.source, "check_tokenizers"):
            self.source.check_tokenizers(self.tokenizers)  # pyright: ignore[reportAttributeAccessIssue]
        if settings.crops is not None and rows:
            raise UserError(
                "config.data.crops: are made by --mode=tokenize alone; train on the folder that it writes "
                "(mm.data.tokenized.Tokenized), without crops"
            )
        self.space = tokenizers.space_in(self.tokenizers, self.source)
        self._tables: dict[str, dict[str, Table]] = {}
        self._corrupt = CorruptLog(settings.corrupt_limit)
        if rows:
            with progress.work("opening the data"):
                self.source.open(cache, self._corrupt)

    @property
    def corrupt(self) -> int:
        """Records that could not be read and were replaced."""
        return self._corrupt.count

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits: equal where the same rows are trained on in the same tokens (or raw)."""
        if self.written and self.space is not None:
            if hasattr(self.source, "mark"):  # tables on disk
                return self.source.mark(self.space.names)  # pyright: ignore[reportAttributeAccessIssue]
            tables: Any = self.tokens("train")
            return digest(*(f"{n} {digest(t.ids.tobytes().hex())}" for n, t in tables.items()))
        columns = self.raw("train")
        used = [
            f"{name} {columns[name].fingerprint} {t.fingerprint}"
            for name, t in self.tokenizers.items()
        ]
        raw = [] if used else [f"{name} {column.fingerprint}" for name, column in columns.items()]
        return digest(*used, *raw)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the tokenizers that rows are written by, by modality."""
        return tokenizers.fingerprints_in(self.tokenizers, self.source)

    def raw(self, split: str) -> Mapping[str, Column]:
        """The source's columns of a split, by modality."""
        return self.source.columns(split)

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        """Which rows make the examples of an epoch; see `mm.data.Source.order`."""
        rows, missing = self.source.order(split, seed, epoch), self.settings.missing
        if split != "train" or missing is None:
            return rows
        return missing.dropped(rows, np.random.default_rng([seed, epoch, 1]))

    def tokens(self, split: str) -> dict[str, Table]:
        """All rows of a split, by modality; tokenized at first use, later read from the cache."""
        if split not in self._tables and self.written and self.space:
            found = self.source.tokens(split)  # pyright: ignore[reportAttributeAccessIssue]
            self._tables[split] = {name: found[name] for name in self.space.names}
        if split not in self._tables:
            columns = self.raw(split)
            self._tables[split] = {
                name: self._table(split, name, columns[name], tokenizer)
                for name, tokenizer in self.tokenizers.items()
            }
        return self._tables[split]

    def abstract_batch(self, batch_size: int) -> Batch | None:
        """Shapes and dtypes of the batches, known before anything is tokenized; None of raw rows."""
        if self.space is None:
            return None

        def array(*shape: int, dtype: Any = np.int32) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((batch_size, *shape), dtype)

        sizes = {m.name: m.size for m in self.space.modalities}
        return Batch(
            ids={name: array(size) for name, size in sizes.items()},
            length={name: array() for name in sizes},
            present={name: array(dtype=np.bool_) for name in sizes},
            group=array(),
            values={
                m.name: array(*m.layout.shape, dtype=np.float32)
                for m in self.space.modalities
                if isinstance(m.layout, Dense)
            },
        )

    def batches(
        self, split: str, *, seed: int, start: int, steps: int, batch_size: int,
        part: slice = slice(None),
    ) -> Iterator[Any]:  # fmt: skip
        """Batches number `start` .. `steps` - 1 of a run, in NumPy arrays; of each the examples of `part`.

        Returns:
          `mm.space.Batch` where there are tokenizers, else what `make_raw` makes.
        """
        make: Any = functools.partial(make_raw, self.raw(split))
        if self.space is not None:
            make = functools.partial(self._make_tokens, split, self.tokens(split))
        order = functools.partial(self.order, split, seed)
        batches = Batches(order, make, batch_size=batch_size, steps=steps, part=part)
        return serve(batches, start=start, threads=self.settings.threads)

    def _make_tokens(self, split: str, tables: Mapping[str, Table], rows: Rows) -> Batch:
        if hasattr(self.source, "mended"):  # records on disk may be unreadable
            rows = self.source.mended(split, rows, tuple(tables))  # pyright: ignore[reportAttributeAccessIssue]
        return make_tokens(tables, rows)

    def _table(self, split: str, name: str, column: Column, tokenizer: Tokenizer) -> TokenTable:
        mark = digest(column.fingerprint, tokenizer.fingerprint)
        path = self.cache / "tokens" / f"{name}-{split}-{mark}.safetensors"
        if path.exists():
            try:
                meta, arrays = artefact.read(path)
                if meta["kind"] == "tokens" and meta["config"] == {"of": mark}:
                    return TokenTable(arrays["ids"].astype(np.int32), arrays["length"])
            except (UserError, ValueError, KeyError):  # the last two from damaged metadata
                pass
            print(f"{path}: damaged, tokenized anew", flush=True)
        table = self._tokenize(f"{name}/{split}", column, tokenizer)
        fits = table.ids.max(initial=0) < 2**15
        arrays = {"ids": table.ids.astype(np.int16 if fits else np.int32), "length": table.length}
        artefact.write(path, "tokens", {"of": mark}, arrays, {})
        return table

    def _tokenize(self, what: str, column: Column, tokenizer: Tokenizer) -> TokenTable:
        count = len(column)
        ids = np.zeros((count, tokenizer.modality.size), np.int32)
        length = np.zeros(count, np.int32)
        with progress.work(f"tokenizing {what}", total=count) as work:
            for start in range(0, count, CHUNK):
                rows = np.arange(start, min(start + CHUNK, count))
                raw = column[rows]
                try:
                    ids[rows], length[rows] = _encode(tokenizer, raw)
                except ValueError as e:  # rows of another shape or type than the tokenizer's
                    raise UserError(
                        f"config.data: {what}: {e}; make the source's settings those of the tokenizer"
                    ) from e
                work.update(start + len(rows))
        return TokenTable(ids, length)


def _encode(tokenizer: Tokenizer, raw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Strings repeat: each distinct one is encoded once."""
    if not isinstance(raw, list):
        return tokenizer.encode(raw)
    distinct, place = np.unique(raw, return_inverse=True)
    ids, length = tokenizer.encode(distinct.tolist())
    return ids[place], length[place]
