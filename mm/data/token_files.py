"""Tokens on disk: aligned shards of array_record, and the manifest that says what they are. See docs/tokenize.md.

    manifest.json                          what is here, in which tokens, of what, under which licences
    train/image-00003-of-00014.array_record    record i of every modality is the same example; empty = absent
    train/index-00003-of-00014.safetensors     group int32[n], and what is present, bool[n] per modality

A record is the number of filled places and then all ids, little-endian integers of the smallest type that holds them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from etils.epath import Path
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mm import config, space
from mm.data.columns import digest
from mm.errors import UserError, nearest
from mm.paths import is_local
from mm.workdir import FORMAT_VERSION, read_json

MANIFEST = "manifest.json"
INDEX = "index"
GROUP, GROUP_BYTES = (
    8,
    1024,
)  # records that are written, and lost, together at most; and bytes of them


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """How one modality is written.

    Attributes:
      modality: its place in a token space. fingerprint: of the tokenizer that wrote it.
    """

    modality: space.Modality
    fingerprint: str

    @property
    def dtype(self) -> np.dtype:
        """The smallest that holds every id, and the length."""
        assert self.modality.vocabulary
        most = max(self.modality.vocabulary.size - 1, self.modality.size)
        return np.dtype("<u1" if most < 1 << 8 else "<u2" if most < 1 << 16 else "<i4")

    @property
    def options(self) -> str:
        """Of array_record: codes do not compress, the unused end of a text does.

        Small records share a group, which alone costs 54 bytes and a microsecond; what is lost with one bit of it stays few.
        """
        group = min(max(GROUP_BYTES // self.size, 1), GROUP)
        packed = isinstance(self.modality.layout, space.Sequence)
        return f"group_size:{group}" + ("" if packed else ",uncompressed")

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return (self.modality.size + 1) * self.dtype.itemsize

    def pack(self, ids: np.ndarray, length: np.ndarray) -> list[bytes]:
        """ids int[n, size] and lengths int[n] -> n records."""
        rows = np.concatenate([length[:, None], ids], 1).astype(self.dtype)
        size, joined = self.size, rows.tobytes()
        return [joined[i : i + size] for i in range(0, len(joined), size)]

    def unpack(self, records: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Records -> ids [n, size] and lengths [n]; what `wrong` finds fault with must not be among them."""
        rows = np.frombuffer(b"".join(records), self.dtype).reshape(-1, self.modality.size + 1)
        return rows[:, 1:], rows[:, 0]

    def wrong(self, record: bytes, present: bool) -> str:
        """Why a record is none of this form; empty if it is."""
        size = self.size if present else 0
        if len(record) != size:
            return f"has {len(record)} bytes, and must have {size}"
        if not present:
            return ""
        ids, length = self.unpack([record])
        assert self.modality.vocabulary
        last = self.modality.vocabulary.size - 1
        if ids.min() < 0 or ids.max() > last:
            return f"has the ids {ids.min()} .. {ids.max()}, and its vocabulary 0 .. {last}"
        if not 0 <= length[0] <= self.modality.size:
            return f"says that {length[0]} of {self.modality.size} places are filled"
        return ""

    def fit(self, ids: np.ndarray, length: np.ndarray) -> bool:
        """Whether unpacked rows can be of this form."""
        assert self.modality.vocabulary
        low, high = ids.min(initial=0), ids.max(initial=0)
        filled = length.min(initial=0) >= 0 and length.max(initial=0) <= self.modality.size
        return bool(low >= 0 and high < self.modality.vocabulary.size and filled)


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a split, of all modalities.

    Attributes:
      split, number, count: it is `number` of `count` in the split. examples: records in each file.
      files: modality (and `INDEX`) -> {bytes, sha256}.
      present: modality -> how many of the examples have it.
    """

    split: str
    number: int
    count: int
    examples: int
    files: Mapping[str, Mapping[str, Any]]
    present: Mapping[str, int]

    def path(self, folder: Path, name: str) -> Path:
        """Where the file of a modality, or the index, lies."""
        return folder / file_name(self.split, name, self.number, self.count)

    def json(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {
            "examples": self.examples,
            "present": dict(self.present),
            "files": {name: dict(f) for name, f in self.files.items()},
        }


def file_name(split: str, name: str, number: int, count: int) -> str:
    """Path of a shard's file within its folder."""
    suffix = "safetensors" if name == INDEX else "array_record"
    return f"{split}/{name}-{number:05d}-of-{count:05d}.{suffix}"


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path on this machine to write to; when the block ends well, it is renamed (elsewhere: copied) to `path`.

    Each writer has a name of its own, so that two that make the same file do not meet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{path.name}.{uuid.uuid4().hex[:8]}.partial"
    with contextlib.ExitStack() as stack:
        near = path.parent
        if not is_local(path):
            near = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        partial = near / mark
        stack.callback(partial.unlink, missing_ok=True)
        yield partial
        if is_local(path):
            partial.replace(path)
        else:
            far = path.with_name(mark)
            partial.copy(far)
            far.replace(path)


def write_records(path: Path, form: Form, parts: Iterator[Sequence[bytes]]) -> dict[str, Any]:
    """One file of records, all or nothing; returns its bytes and sha256."""
    with new_file(path) as partial:
        writer = array_record_module.ArrayRecordWriter(os.fspath(partial), form.options)
        try:
            for records in parts:
                for record in records:
                    writer.write(record)
        finally:
            writer.close()
        return facts(partial)


def write_index(path: Path, group: np.ndarray, present: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """One file of an index, all or nothing; returns its bytes and sha256."""
    arrays = {"group": group.astype(np.int32)}
    arrays |= {f"present.{name}": p.astype(np.uint8) for name, p in present.items()}
    with new_file(path) as partial:
        partial.write_bytes(save(arrays))
        return facts(partial)


def write_note(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON object that `read_json` reads, all or nothing, by several writers too."""
    with new_file(path) as partial:
        partial.write_text(json.dumps({"format_version": FORMAT_VERSION, **value}, indent=1) + "\n")


def facts(path: Path) -> dict[str, Any]:
    """What the manifest says of a file."""
    mark = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            mark.update(part)
    return {"bytes": path.stat().length, "sha256": mark.hexdigest()}


class Manifest:
    """What `FOLDER/manifest.json` says.

    Attributes:
      folder: where it is. forms: modality -> how it is written, in the order of the token space.
      splits: split -> its shards.
    """

    def __init__(self, folder: Path):
        """Raises UserError where there is none, or one that is damaged, or newer."""
        path = self.path = Path(folder) / MANIFEST
        if not path.exists():
            raise UserError(
                f"{path}: no such file; make the folder with --mode=tokenize, or, where that was stopped, run it again"
            )
        self.folder, self.value = Path(folder), read_json(path)
        try:
            self.forms = {
                name: Form(config.from_json(m["modality"]), str(m["tokenizer"]))
                for name, m in self.value["modalities"].items()
            }
            self.splits = {
                split: [
                    Shard(split, i, len(part["shards"]), s["examples"], s["files"], s["present"])
                    for i, s in enumerate(part["shards"])
                ]
                for split, part in self.value["splits"].items()
            }
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            raise UserError(f"{path}: damaged ({type(e).__name__} {e}); restore it") from e

    def shards(self, split: str) -> list[Shard]:
        """Raises UserError where there is no such split."""
        if split not in self.splits:
            raise UserError(f"{self.path}: has no split {split!r}{nearest(split, self.splits)}")
        return self.splits[split]

    def mark(self, names: Sequence[str]) -> str:
        """16 hex digits of what the files of these modalities hold."""
        marks = [
            f"{split} {name} {shard.files[name]['sha256']}"
            for split, shards in self.splits.items()
            for shard in shards
            for name in (INDEX, *names)
        ]
        return digest(*marks)

    def check_sizes(self, folder: Path, names: Sequence[str]) -> None:
        """Raises UserError for a file that is not there, or of another size. `folder`: where the files are."""
        for shard in (s for shards in self.splits.values() for s in shards):
            for name in (INDEX, *names):
                path, wanted = shard.path(folder, name), shard.files[name]["bytes"]
                found = path.stat().length if path.is_file() else None
                if found != wanted:
                    size = "is missing" if found is None else f"has {found:,} bytes"
                    raise UserError(
                        f"{path}: {size}, by {self.path} it has {wanted:,}; restore the file, or tokenize anew"
                    )


def read_index(shard: Shard, folder: Path) -> dict[str, np.ndarray]:
    """What `write_index` wrote: `group`, and `present.<modality>`.

    Raises:
      UserError: it is not what the manifest says.
    """
    path = shard.path(folder, INDEX)
    raw = path.read_bytes()
    try:
        if hashlib.sha256(raw).hexdigest() != shard.files[INDEX]["sha256"]:
            raise ValueError("its sha256 is not the manifest's")
        return load(raw)
    except (ValueError, SafetensorError) as e:
        raise UserError(f"{path}: damaged ({e}); restore the file, or tokenize anew") from e


def open_reader(path: str) -> Any:
    """A reader of an array_record file, kept open. Raises UserError where it cannot be opened."""
    return _reader(path, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=512)
def _reader(path: str, written: int) -> Any:
    """`written`: when; another file of the same name has another reader."""
    try:
        options = "readahead_buffer_size:0"
        return array_record_module.ArrayRecordReader(
            path, options=options, file_reader_buffer_size=1 << 15
        )
    except Exception as e:  # the library's errors have no class of their own
        reason = " ".join(str(e).split())[:120]
        raise UserError(f"{path}: cannot be opened ({reason}); restore the file") from e


def remove_partial(folder: Path) -> None:
    """Takes away what writers that were killed have left below `folder`."""
    for path in [
        p for split in folder.iterdir() if split.is_dir() for p in split.glob("*.partial")
    ]:
        path.unlink(missing_ok=True)
