"""Data sets are built once, all or nothing, quietly; damage is one clear line, or one record."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2

from mm.data.built import open_records, prepare
from mm.data.records import CorruptLog
from mm.errors import UserError

COUNT = {"train": 300, "test": 40}

BUILDER = """
import numpy as np
import tensorflow_datasets as tfds
from etils import epath


class Noise(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = epath.Path({folder!r})
    dies_at = None

    def _info(self):
        features = {{"bytes": tfds.features.Tensor(shape=(600,), dtype=np.uint8, encoding="bytes")}}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {{split: self._generate_examples(n) for split, n in {count!r}.items()}}

    def _generate_examples(self, n):
        for i in range(n):
            if i == self.dies_at:
                import os, signal

                os.kill(os.getpid(), signal.SIGKILL)
            yield i, {{"bytes": np.random.default_rng(i).integers(0, 256, 600, np.uint8)}}
"""


def source(folder: Path) -> str:
    return BUILDER.format(folder=str(folder), count=COUNT)


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> type[tfds.core.GeneratorBasedBuilder]:
    """A builder of records of noise, which do not compress: a byte of a file is a byte of one."""
    names: dict = {"__name__": "noise"}
    exec(source(tmp_path_factory.mktemp("builder")), names)
    return names["Noise"]


def decode(record: bytes) -> np.ndarray:
    features = tf_example_pb2.Example.FromString(record).features.feature
    return np.frombuffer(features["bytes"].bytes_list.value[0], np.uint8)


def expected(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, 600, np.uint8)


def read(builder, split: str = "train", rows=None, log: CorruptLog | None = None) -> np.ndarray:
    log = log or CorruptLog(0)
    return np.stack(open_records(builder, split, log, decode, rows).read())


def shard(builder, split: str = "train") -> Path:
    return next(Path(builder.data_path).glob(f"*{split}.array_record*"))


def test_it_is_built_once_and_says_so_and_in_its_order(noise, tmp_path, capfd, monkeypatch):
    total = sum(COUNT.values())
    monkeypatch.setattr(noise, "examples", total, raising=False)
    builder = prepare(noise, tmp_path)
    printed = capfd.readouterr()
    *lines, last = printed.out.splitlines()
    what = f"building data set noise/1.0.0 below {tmp_path}: examples "
    assert last.startswith(f"{what}{total}/{total}, took ") and printed.err == ""
    assert lines and all(line.startswith(what) for line in lines)
    for split, count in COUNT.items():
        assert np.array_equal(read(builder, split), [expected(i) for i in range(count)])
    before = shard(builder).stat().st_mtime_ns
    assert np.array_equal(read(prepare(noise, tmp_path), "test"), read(builder, "test"))
    assert shard(builder).stat().st_mtime_ns == before
    assert capfd.readouterr().out == ""


def test_two_at_once_build_once(noise, tmp_path, capfd):
    with ThreadPoolExecutor(2) as pool:
        builders = list(pool.map(lambda _: prepare(noise, tmp_path), range(2)))
    assert capfd.readouterr().out.count(", took ") == 1
    for builder in builders:
        assert len(read(builder)) == COUNT["train"]


def test_a_killed_build_leaves_nothing_that_is_trusted(noise, tmp_path):
    code = source(tmp_path) + (
        "\nimport sys\nfrom pathlib import Path\nfrom mm.data.built import prepare"
        "\nNoise.dies_at = 120\nprepare(Noise, Path(sys.argv[1]))"
    )
    cache = tmp_path / "cache"
    died = subprocess.run([sys.executable, "-c", code, str(cache)], check=False)
    assert died.returncode == -9
    assert list(cache.rglob("*incomplete*"))
    builder = prepare(noise, cache)
    assert len(read(builder)) == COUNT["train"]
    assert not list(cache.rglob("*incomplete*"))


def unreadable_after_flip(path: Path, offset: int) -> list[int]:
    """Which records array_record itself cannot read any more."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)
    found, reader = [], ArrayRecordDataSource(str(path))
    for i in range(len(reader)):
        try:
            reader[i]
        except RuntimeError:
            found.append(i)
    return found


def test_flipped_bytes_cost_one_record_each_which_is_named(noise, tmp_path, capsys):
    builder = prepare(noise, tmp_path)
    path = shard(builder)
    bad = sorted({r for at in (30_000, 90_000, 150_000) for r in unreadable_after_flip(path, at)})
    assert len(bad) == 3
    capsys.readouterr()
    log = CorruptLog(limit=3)
    rows = read(builder, log=log)
    for i in range(COUNT["train"]):
        assert np.array_equal(rows[i], expected(i + 1 if i in bad else i))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == log.count == 3
    for line, record in zip(lines, bad, strict=True):
        assert f"{path}, record {record}: unreadable (" in line
        assert "hash mismatch" in line


def test_a_replacement_never_comes_from_outside_of_the_split(noise, tmp_path):
    builder = prepare(noise, tmp_path)
    (bad,) = unreadable_after_flip(shard(builder), 90_000)
    rows = read(builder, rows=range(bad + 1), log=CorruptLog(limit=1))
    assert np.array_equal(rows[bad], expected(0))


def test_more_than_the_limit_stops(noise, tmp_path):
    builder = prepare(noise, tmp_path)
    for offset in (30_000, 90_000):
        unreadable_after_flip(shard(builder), offset)
    with pytest.raises(UserError, match="corrupt_limit=1"):
        read(builder, log=CorruptLog(limit=1))


@pytest.mark.parametrize("size", [0, 1000, 100_000])
def test_a_truncated_file_is_named_with_what_to_do(noise, tmp_path, size):
    builder = prepare(noise, tmp_path)
    path = shard(builder)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"cannot be opened .*delete it"):
        read(builder)


def test_a_file_of_another_length_is_named_with_what_to_do(noise, tmp_path):
    builder = prepare(noise, tmp_path)
    shard(builder).write_bytes(shard(builder, "test").read_bytes())
    with pytest.raises(UserError, match="train: 40 records where 300 were written"):
        read(builder)


def test_a_missing_file_is_named_with_what_to_do(noise, tmp_path):
    builder = prepare(noise, tmp_path)
    shard(builder).unlink()
    with pytest.raises(UserError, match=r"cannot be opened .*delete it"):
        read(builder)


def test_a_broken_builder_is_not_called_damage(tmp_path):
    def make(data_dir: str):
        raise ZeroDivisionError(data_dir)

    with pytest.raises(ZeroDivisionError):
        prepare(make, tmp_path)


def test_a_damaged_description_is_named_with_what_to_do(noise, tmp_path):
    builder = prepare(noise, tmp_path)
    (Path(builder.data_path) / "dataset_info.json").write_text('{"name": "no')
    with pytest.raises(UserError, match=r"cannot be opened .*delete it"):
        prepare(noise, tmp_path)
