"""TFDS data sets on disk: built at first use, quietly and all or nothing, and read as `Records`."""

import contextlib
import fcntl
import functools
import io
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from mm import progress
from mm.data.records import CorruptLog, Records
from mm.errors import UserError


def prepare(
    make: Callable[..., tfds.core.DatasetBuilder], folder: Path
) -> tfds.core.DatasetBuilder:
    """Builds a data set below `folder`, unless it is there.

    TFDS renames a build to its place when it is complete, so a killed one leaves nothing that is
    read later; a lock keeps two processes from building at once (TFDS lets the later one fail).

    Args:
      make: `data_dir=` -> a builder. If that says how many `examples` it has, the time left can be told.

    Raises:
      UserError: what was built cannot be opened; or as the builder raises it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built_before = any(path.is_dir() for path in folder.iterdir())
        with _damage_named(folder) if built_before else contextlib.nullcontext():
            builder = make(data_dir=str(folder))
        target = Path(builder.data_path)
        if not target.exists():
            for left in target.parent.glob("*incomplete*"):
                shutil.rmtree(left, ignore_errors=True)
            tfds.disable_progress_bar()
            what = f"building data set {builder.info.full_name} below {folder}: examples"
            total = getattr(builder, "examples", None)
            with (
                progress.work(what, total, delay=0.0) as work,
                contextlib.redirect_stdout(io.StringIO()),
            ):
                _count_into(work, builder)
                builder.download_and_prepare(file_format="array_record")
    return builder


def _count_into(work: progress.Work, builder: Any) -> None:
    """Makes `work` hear of every example that a `tfds.core.GeneratorBasedBuilder` generates."""
    made = itertools.count(1)

    def counted(examples: Iterator[Any]) -> Iterator[Any]:
        for example in examples:
            work.update(next(made))
            yield example

    generators = builder._split_generators

    @functools.wraps(generators)
    def split_generators(*args: Any, **kwargs: Any) -> dict[str, Iterator[Any]]:
        return {split: counted(g) for split, g in generators(*args, **kwargs).items()}

    builder._split_generators = split_generators


def open_records(
    builder: tfds.core.DatasetBuilder,
    split: str,
    log: CorruptLog,
    decode: Callable[[bytes], Any],
    rows: Sequence[int] | None = None,
) -> Records:
    """Records of an official split of a built data set, from its array_record files.

    Args:
      decode: the bytes of a record (a serialized tf.Example) -> what is wanted of it. Reading
        with TFDS's own decoding takes more than twice as long.
      rows: which of the split's records; an unreadable one is replaced from within them. None =
        all.

    Raises:
      UserError: a file of the split cannot be opened at all.
    """
    shards = builder.info.splits[split].file_instructions
    with _damage_named(Path(builder.data_path)):
        # TFDS's decorator hides the method's parameters.
        source = builder.as_data_source(split).data_source  # pyright: ignore[reportCallIssue]
        # The source opens files only when it is read; this opens them, and counts.
        found = len(ArrayRecordDataSource([str(shard.filename) for shard in shards]))
        if found != len(source):
            raise ValueError(f"{split}: {found} records where {len(source)} were written")

    def locate(index: int) -> tuple[str, int]:
        for shard in shards:
            if index < shard.take:
                return str(shard.filename), shard.skip + index
            index -= shard.take
        raise IndexError(index)

    return Records(source, log, locate=locate, decode=decode, rows=rows)


@contextlib.contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # JSON, protobuf and array_record each raise their own for damaged files
        reason = " ".join(str(e).split())[:160]
        raise UserError(
            f"{folder}: cannot be opened ({reason}); delete it, the next start builds it anew"
        ) from e
