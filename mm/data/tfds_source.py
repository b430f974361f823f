"""Any data set that TFDS has prepared on this machine, read through `tfds.data_source`.

Nothing is downloaded: prepare it once where there is a network, as array_record, which is read
without TensorFlow:

    tfds.builder("NAME", data_dir="DIR").download_and_prepare(file_format="array_record")
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils.epath import Path
from PIL import Image

from mm.data.aligned import SPLITS, Aligned, AlignedSource
from mm.data.columns import LazyColumn, TextColumn, digest
from mm.data.form import Form
from mm.data.records import CorruptLog, Records
from mm.errors import UserError, nearest
from mm.paths import copied, is_local

KINDS = ("image", "audio", "text")


# No slots: what `open` finds is kept beside the settings, not among them.
@dataclasses.dataclass(kw_only=True)
class Tfds(AlignedSource):
    """Source of a prepared TFDS data set. See `mm.data.Source`; columns are those of `Folder`.

    A record is an example. Pictures and sounds are decoded when their rows are asked for; texts and
    labels are read when the source is opened.

    Attributes:
      name: as `tfds.data_source` takes it: "name", "name/config", "name:1.0.0".
      data_dir: the folder it was prepared in; one that lies elsewhere (gs://) is copied to the cache.
      features: modality (image, audio, text) -> which feature of the record; "/" goes into nested
        ones ("captions/text"). A sequence of texts is several captions of one example.
      label: the feature of an example's class; empty: each example is on its own.
      rate: samples per second of the audio feature, which TFDS does not say.
      splits: train, validation and test as TFDS names or slices them: "train[:90%]".
    """

    name: str
    data_dir: str
    features: dict[str, str]
    label: str = ""
    form: Form = dataclasses.field(default_factory=Form)
    rate: int = 16_000
    splits: dict[str, str] = dataclasses.field(default_factory=lambda: {s: s for s in SPLITS})

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.features)

    def validate(self) -> None:
        """Raises UserError naming a setting that makes no sense."""
        for name in self.features:
            if name not in KINDS:
                raise UserError(
                    f"config.data.source.features: no modality {name!r}{nearest(name, KINDS)}"
                )
        if not self.features or set(self.splits) != set(SPLITS):
            raise UserError(
                f"config.data.source: features={self.features}, splits={self.splits}: name one "
                f"feature at least, and what {', '.join(SPLITS)} are"
            )
        self.form.validate()

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Opens the three splits, and reads their texts and labels.

        Raises:
          UserError: the data set is not prepared below `data_dir`, or in a format that needs
            TensorFlow; no such split or feature.
        """
        self.validate()
        base = Path(self.data_dir).expanduser() / self.name.partition(":")[0]
        if is_local(base):
            self._folder = os.fspath(Path(self.data_dir).expanduser())
        else:  # array_record is read from a disk
            self._folder = os.fspath(cache / "tfds")
            copied(base, cache / "tfds" / self.name.partition(":")[0])
        info = self._info()
        for feature in (*self.features.values(), *([self.label] if self.label else [])):
            if _feature(info.features, feature) is None:
                raise UserError(
                    f"config.data.source: {self.name} has no feature {feature!r}"
                    f"{nearest(feature.split('/')[0], info.features)}"
                )
        self.licence = info.redistribution_info.license or "not said by the data set"
        self._splits = {split: self._open_split(split, info, corrupt) for split in SPLITS}

    def _info(self) -> Any:
        # Looked for here: TFDS asks the network about a data set that it does not find.
        base = Path(self._folder) / self.name.partition(":")[0]
        if not any("dataset_info.json" in names for _, _, names in base.walk()):
            raise UserError(
                f"{base}: holds no prepared TFDS data set, and nothing is downloaded; prepare it "
                f"where there is a network (tfds.builder({self.name!r}, data_dir=...)"
                '.download_and_prepare(file_format="array_record")), and name its data_dir in '
                "config.data.source.data_dir"
            )
        return self._tried(lambda: tfds.builder(self.name, data_dir=self._folder)).info

    def _source(self, split: str, info: Any, wanted: Sequence[str]) -> Any:
        """Random access to a split's records; pictures that are not wanted are not decoded."""
        tops = {w.split("/")[0] for w in wanted}
        skipped = {
            name: tfds.decode.SkipDecoding()
            for name, feature in info.features.items()
            if name not in tops and isinstance(feature, tfds.features.Image)
        }
        made = lambda: tfds.data_source(
            self.name,
            split=self.splits[split],
            data_dir=self._folder,
            decoders=skipped or None,
            download=False,
        )
        return self._tried(made)

    def _tried(self, make: Any) -> Any:
        try:
            return make()
        except NotImplementedError as e:
            raise UserError(
                f"{self.data_dir}: {self.name} is prepared in a format that needs TensorFlow; prepare "
                'it again with download_and_prepare(file_format="array_record")'
            ) from e
        # TFDS has no common class: an unknown version, split or slice each raise their own.
        except Exception as e:
            reason = " ".join(str(e).split())[:160]
            raise UserError(
                f"{self.data_dir}: {self.name} cannot be opened ({reason}); mend "
                "config.data.source.name or .splits, or prepare it anew"
            ) from e

    def _open_split(self, split: str, info: Any, corrupt: CorruptLog) -> Aligned:
        mark = digest(
            info.full_name, self.splits[split], str(info.splits.total_num_examples),
            *(str(s.shard_lengths) + str(s.num_bytes) for s in info.splits.values()),
            json.dumps(dataclasses.asdict(self.form)), str(self.rate),
        )  # fmt: skip
        read = [f for f in (self.features.get("text"), self.label) if f]
        source = self._source(split, info, read)
        records = self._records(split, source, corrupt, dict).read() if read else []
        n = len(source)
        each = {m: np.ones(n, np.int64) for m in self.features}
        columns: dict[str, Any] = {}
        for name, feature in self.features.items():
            if name == "text":
                texts = [_texts(_value(r, feature)) for r in records]
                each["text"] = np.array([len(t) for t in texts], np.int64)
                columns[name] = TextColumn([t for group in texts for t in group])
            else:
                rows = self._records(
                    split,
                    self._source(split, info, [feature]),
                    corrupt,
                    self._decode(name, feature),
                )
                rate = self.form.rate if name == "audio" else 0
                columns[name] = LazyColumn(rows, digest(mark, name, feature), rate=rate)
        group = np.arange(n, dtype=np.int32)
        if self.label:
            group = np.array([_value(r, self.label) for r in records], np.int32)
        return Aligned(columns=columns, count=each, group=group)

    def _records(self, split: str, source: Any, corrupt: CorruptLog, decode: Any) -> Records:
        where = f"{self.name} ({self.splits[split]})"
        return Records(source, corrupt, locate=lambda i: (where, i), decode=decode)

    def _decode(self, name: str, feature: str) -> Any:
        if name == "image":
            return lambda record: self.form.picture(_picture(_value(record, feature)))
        return lambda record: self.form.sound(_value(record, feature), self.rate, feature)


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1:] == (1,) else pixels)


def _feature(features: Any, path: str) -> Any:
    """The feature at a path, or None."""
    for part in path.split("/"):
        features = getattr(features, "feature", features)  # a sequence's own
        try:
            features = features[part]
        except (KeyError, TypeError):
            return None
    return features


def _value(record: Any, path: str) -> Any:
    for part in path.split("/"):
        record = record[part]
    return record


def _texts(value: Any) -> list[str]:
    """A text, or a sequence of them, as TFDS returns it -> strings on one line; empty ones left out."""
    values = [value] if isinstance(value, (bytes, str)) else list(value)
    texts = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return [joined for t in texts if (joined := " ".join(t.split()))]
