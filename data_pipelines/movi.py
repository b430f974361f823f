"""MOVi-A: real renderings of falling objects that look like `data_pipelines.scenes`, in the same modalities and units.

    Movi(shards=4)                                   # from Google's public bucket: extra `gcs`, and a network
    Movi(data_dir="/data/tfds", shards=4)            # from a copy: /data/tfds/movi_a/128x128/1.0.0/*

The files are those of TFDS's data set movi_a (Greff et al. 2022, Kubric). TFDS itself reads them with TensorFlow only, so
their records are parsed here: TFRecord, and array_record where a copy was converted. The published set is large: `shards`
says how many files of a split are taken. Read so far: files of the same form, made by the tests; never the bucket.

Source of what the features mean: google-research/kubric, challenges/movi/movi_a.py.
"""

import dataclasses
import io
import os
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils.epath import Path
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from mm import progress
from mm.data import check_modalities
from mm.data.aligned import Aligned, AlignedSource
from mm.data.columns import LazyColumn, digest
from mm.data.records import CorruptLog, Records
from mm.errors import UserError
from mm.paths import is_local

BUCKET = "gs://kubric-public/tfds"
FOLDER = "movi_a/128x128/1.0.0"


class TfRecords:
    """Random access to the records of TFRecord files on this machine."""

    def __init__(self, paths: list[Path]):
        """Reads where records begin. Raises UserError: a file that ends within a record."""
        self.places: list[tuple[Path, int, int]] = []
        for path in paths:
            size, at = path.stat().length, 0
            with open(path, "rb") as file:
                while at < size:
                    head = file.read(12)  # the length, and a checksum of it
                    length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else size
                    if at + 16 + length > size:
                        raise UserError(
                            f"{path}: ends within record {len(self.places)} at byte {at}; copy it again"
                        )
                    self.places.append((path, at + 12, length))
                    at += 16 + length
                    file.seek(at)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> bytes:
        path, at, length = self.places[index]
        with open(path, "rb") as file:
            file.seek(at)
            return file.read(length)


Features = Mapping[str, Any]


def features(record: bytes) -> Features:
    """A serialized tf.Example -> its features."""
    return tf_example_pb2.Example.FromString(record).features.feature


def _png(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def _floats(found: Features, name: str) -> np.ndarray:
    return np.array(found[name].float_list.value, np.float32)


def rgb(found: Features) -> np.ndarray:
    """uint8[H, W, 3], frame 0."""
    return _png(found["video"].bytes_list.value[0])


def video(found: Features) -> np.ndarray:
    """uint8[24, H, W, 3]."""
    return np.stack([_png(frame) for frame in found["video"].bytes_list.value])


def instance(found: Features) -> np.ndarray:
    """uint8[H, W], frame 0: 0, or the object from 1."""
    return _png(found["segmentations"].bytes_list.value[0]).astype(np.uint8)


def depth(found: Features) -> np.ndarray:
    """float32[H, W], frame 0: metres forward. Published is the distance along each pixel's ray."""
    low, high = _floats(found, "metadata/depth_range")
    away = _png(found["depth"].bytes_list.value[0]).astype(np.float32) / 65535 * (high - low) + low
    height, width = away.shape
    pixel = (
        _floats(found, "camera/sensor_width")[0] / _floats(found, "camera/focal_length")[0] / width
    )
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = (x - width / 2) * pixel, (y - height / 2) * pixel
    return (away / np.sqrt(x * x + y * y + 1)).astype(np.float32)


def flow(found: Features) -> np.ndarray:
    """float32[H, W, 2], frame 0 to 1: pixels to the right and down. Published is rows before columns."""
    height, width = rgb(found).shape[:2]
    low, high = _floats(found, "metadata/forward_flow_range")
    size = height * width * 2
    first = np.array(found["forward_flow"].int64_list.value[:size], np.float32)
    return (first / 65535 * (high - low) + low).reshape(height, width, 2)[..., ::-1].copy()


DECODE: dict[str, Callable[[Features], np.ndarray]] = {
    "rgb": rgb, "depth": depth, "instance": instance, "flow": flow, "video": video,
}  # fmt: skip


# No slots: what `open` finds is kept beside the settings, not among them.
@dataclasses.dataclass(kw_only=True)
class Movi(AlignedSource):
    """Source of MOVi-A. See `mm.data.Source`; modalities are as in docs/scenes.md, videos have 24 frames.

    test is the published validation split; validation is the last twentieth of what is taken of train.

    Attributes:
      data_dir: the folder that holds movi_a/128x128/1.0.0; what lies elsewhere (gs://) is copied to the cache.
      folder: below it; movi_a/256x256/1.0.0 is larger.
      shards: files of each split that are taken, 0 = all.
    """

    data_dir: str = BUCKET
    folder: str = FOLDER
    modalities: tuple[str, ...] = tuple(DECODE)
    shards: int = 1

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Finds the files, copies them where they are elsewhere, and reads where their records are.

        Raises:
          UserError: there is no network, no such folder, no file of a split, or a damaged one.
        """
        check_modalities(self.modalities, tuple(DECODE))
        train = self._records("train", Path(cache))
        test = self._records("validation", Path(cache))
        cut = len(train) - max(1, len(train) // 20)
        if cut < 1:
            raise UserError(f"{self.data_dir}: one record of train; take more `shards`")
        parts = {
            "train": (train, range(cut)),
            "validation": (train, range(cut, len(train))),
            "test": (test, range(len(test))),
        }
        self._splits = {s: self._aligned(s, *part, corrupt) for s, part in parts.items()}

    def _aligned(self, split: str, source: Any, rows: range, corrupt: CorruptLog) -> Aligned:
        where = f"{self.folder} ({split})"
        columns = {}
        for name in self.modalities:
            records = Records(
                source,
                corrupt,
                locate=lambda i: (where, i),
                decode=lambda record, name=name: DECODE[name](features(record)),
                rows=rows,
            )
            columns[name] = LazyColumn(records, digest(self.folder, str(self.shards), split, name, str(len(rows))))  # fmt: skip
        count = {m: np.ones(len(rows), np.int64) for m in self.modalities}
        return Aligned(columns=columns, count=count, group=np.arange(len(rows), dtype=np.int32))

    def _records(self, split: str, cache: Path) -> Any:
        paths = self._local(self._files(split), cache / "movi" / self.folder)
        if ".array_record" in paths[0].name:
            return ArrayRecordDataSource([os.fspath(p) for p in paths])
        return TfRecords(paths)

    def _files(self, split: str) -> list[Path]:
        """The files of a published split, as many as are taken."""
        what = f"{self.data_dir}/{self.folder}"
        hint = (
            "copy it there (gsutil -m cp -r gs://kubric-public/tfds/movi_a/128x128 DIR/movi_a/), and "
            "name DIR in config.data.source.data_dir; or read the bucket: extra `gcs`, and a network"
        )
        try:
            found = sorted(Path(what).expanduser().glob(f"movi_a-{split}.*-of-*"))
        # gcsfs, aiohttp and etils have no common class for "no network", "no access", "no gcsfs".
        except Exception as e:
            reason = " ".join(str(e).split())[:120] or type(e).__name__
            raise UserError(f"{what}: cannot be reached ({reason}); {hint}") from e
        if not found:
            raise UserError(f"{what}: no files movi_a-{split}.*; {hint}")
        return found[: self.shards or None]

    def _local(self, paths: list[Path], folder: Path) -> list[Path]:
        if is_local(self.data_dir):
            return paths
        folder.mkdir(parents=True, exist_ok=True)
        for path in progress.track(paths, f"copying {self.folder}"):
            if not (folder / path.name).exists():
                part = path.copy(folder / f"{path.name}.partial", overwrite=True)
                part.rename(folder / path.name)
        return [folder / p.name for p in paths]
