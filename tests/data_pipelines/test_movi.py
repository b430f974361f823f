"""MOVi-A in its published form, made small here; and what is said where it cannot be had."""

import io
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from data_pipelines.movi import FOLDER, Movi
from mm.data.records import CorruptLog
from mm.errors import UserError
from tests.test_paths import bucket

__all__ = ["bucket"]  # a fixture: gs:// as a folder of this machine

H = W = 8
FRAMES = 3


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def example(seed: int) -> tuple[bytes, dict[str, np.ndarray]]:
    """A record as TFDS writes it, and what is in it."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (FRAMES, H, W, 3), np.uint8)
    instance = rng.integers(0, 4, (FRAMES, H, W)).astype(np.uint8)
    depth = rng.integers(0, 65536, (FRAMES, H, W)).astype(np.uint16)
    flow = rng.integers(0, 65536, (FRAMES, H, W, 2))
    record = tf_example_pb2.Example()
    put = record.features.feature
    put["video"].bytes_list.value.extend(png(f) for f in video)
    put["segmentations"].bytes_list.value.extend(png(f) for f in instance)
    put["depth"].bytes_list.value.extend(png(f) for f in depth)
    put["forward_flow"].int64_list.value.extend(flow.ravel().tolist())
    put["metadata/depth_range"].float_list.value.extend([2.0, 12.0])
    put["metadata/forward_flow_range"].float_list.value.extend([-3.0, 5.0])
    put["camera/sensor_width"].float_list.value.append(32.0)
    put["camera/focal_length"].float_list.value.append(35.0)
    held = {"video": video, "instance": instance[0], "depth": depth[0], "flow": flow[0]}
    return record.SerializeToString(), held


def write(path: Path, records: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    framed = (struct.pack("<QI", len(r), 0) + r + struct.pack("<I", 0) for r in records)
    path.write_bytes(b"".join(framed))


@pytest.fixture
def published(tmp_path) -> Path:
    write(tmp_path / FOLDER / "movi_a-train.tfrecord-00000-of-00002", [example(i)[0] for i in range(3)])  # fmt: skip
    write(tmp_path / FOLDER / "movi_a-train.tfrecord-00001-of-00002", [example(3)[0]])
    write(tmp_path / FOLDER / "movi_a-validation.tfrecord-00000-of-00001", [example(9)[0]])
    return tmp_path


def test_records_come_back_in_the_units_of_scenes(published):
    source = Movi(data_dir=str(published))
    source.open(published / "cache", CorruptLog(0))
    sizes = {s: len(source.columns(s)["rgb"]) for s in ("train", "validation", "test")}
    assert sizes == {"train": 2, "validation": 1, "test": 1}  # of the one shard
    for split, seed in {"train": 0, "validation": 2, "test": 9}.items():
        row = {n: c[np.array([0])][0] for n, c in source.columns(split).items()}
        held = example(seed)[1]
        assert np.array_equal(row["video"], held["video"])
        assert np.array_equal(row["rgb"], held["video"][0])
        assert np.array_equal(row["instance"], held["instance"])
        for y, x in ((0, 0), (3, 5), (7, 2)):
            away = held["depth"][y, x] / 65535 * 10 + 2
            ray = np.array([(x + 0.5 - 4) / 8 * 32 / 35, (y + 0.5 - 4) / 8 * 32 / 35, 1])
            assert row["depth"][y, x] == pytest.approx(away / np.linalg.norm(ray), rel=1e-5)
            down, right = held["flow"][y, x] / 65535 * 8 - 3
            assert row["flow"][y, x] == pytest.approx([right, down], abs=1e-5)
        assert {n: v.dtype.name for n, v in row.items()} == {
            "rgb": "uint8", "video": "uint8", "instance": "uint8", "depth": "float32", "flow": "float32",
        }  # fmt: skip


def test_all_shards_can_be_taken(published):
    source = Movi(data_dir=str(published), shards=0, modalities=("instance",))
    source.open(published / "cache", CorruptLog(0))
    assert len(source.columns("train")["instance"]) == 3
    row = source.columns("validation")["instance"][np.array([0])][0]
    assert np.array_equal(row, example(3)[1]["instance"])


def test_what_lies_in_a_bucket_is_copied_once(published, tmp_path, bucket):
    shutil.copytree(published / "movi_a", tmp_path / "far" / "kubric-public" / "tfds" / "movi_a")
    first = Movi(modalities=("rgb",))
    first.open(tmp_path / "cache", CorruptLog(0))
    assert np.array_equal(first.columns("test")["rgb"][np.array([0])][0], example(9)[1]["video"][0])
    copies = sorted((tmp_path / "cache" / "movi").rglob("*-of-*"))
    assert [p.name[:12] for p in copies] == ["movi_a-train", "movi_a-valid"]  # a shard of each
    copies[0].write_bytes(copies[1].read_bytes() * 2)  # stands for itself: it is not fetched again
    again = Movi(modalities=("rgb",))
    again.open(tmp_path / "cache", CorruptLog(0))
    assert len(again.columns("train")["rgb"]) == 1


def test_a_file_that_was_cut_off_is_named(published):
    path = published / FOLDER / "movi_a-train.tfrecord-00000-of-00002"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"00000-of-00002: ends within record 2 at byte"):
        Movi(data_dir=str(published)).open(published / "cache", CorruptLog(0))


def test_where_it_is_not_one_line_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError) as error:
        Movi(data_dir=str(tmp_path)).open(tmp_path / "cache", CorruptLog(0))
    said = str(error.value)
    assert "no files movi_a-train" in said and "copy it there" in said and "\n" not in said


def test_without_a_network_one_line_says_so(tmp_path):
    """A file system that nobody has here fails as gs:// does without gcsfs or a network."""
    with pytest.raises(UserError) as error:
        Movi(data_dir="s3://no-such-bucket-of-mm").open(tmp_path / "cache", CorruptLog(0))
    assert "cannot be reached" in str(error.value) and "\n" not in str(error.value)
