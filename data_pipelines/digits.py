"""Handwritten, spoken and written digits: MNIST and FSDD, paired by the digit.

    python -m data_pipelines.digits --mnist mnist.npz --fsdd fsdd.npz --out data_pipelines/assets

makes the embedded assets; the TFDS data sets are built of them at first use. No image and recording
belong together by nature: an example pairs an image, a recording and a text of one digit, chosen
anew in every epoch. So `group` is the digit, and all examples of one digit are each other's
positives in the contrast.

Splits: test = MNIST's own and FSDD's takes 0-4; validation = MNIST's last 5,000 training images and
FSDD's takes 5-9; train = the rest. With a speaker held out, test has all recordings of that speaker
and of no other, train and validation have none.
"""

import argparse
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data_pipelines.digit_assets import (
    ASSETS,
    SPEAKERS,
    TEST_TAKES,
    manifest_hash,
    read_images,
    read_labels,
    read_samples,
    write_assets,
)
from data_pipelines.digit_captions import Texts
from data_pipelines.digit_images import Pictures
from data_pipelines.digit_speech import Waves
from mm.data import check_modalities
from mm.data.built import open_records, prepare
from mm.data.columns import ArrayColumn
from mm.data.pairing import halves, partners
from mm.data.records import CorruptLog
from mm.errors import UserError, nearest

MODALITIES = ("image", "speech", "text")
LICENCE = "MNIST: CC BY-SA 3.0; FSDD: CC BY-SA 4.0"
SPLITS = ("train", "validation", "test")
VALIDATION_IMAGES = 5000
VALIDATION_TAKES = 5
DISTORTED = 0.5  # share of an epoch's images that are not shown as they are, where they have forms


class DigitsBuilder(tfds.core.GeneratorBasedBuilder):
    """Both data sets as TFDS builds them: official splits `train` and `test`, original order."""

    name = "digits"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="images", description="MNIST: 28 x 28 grey, 0 = background."),
        tfds.core.BuilderConfig(
            name="recordings", description="FSDD: 8 kHz mono 16 bit, 6 voices."
        ),
    ]

    def __init__(self, *, assets: Path = ASSETS, **kwargs: Any):
        self.assets = assets
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # As bytes: the default is a list of numbers, each a Python object when it is written.
        tensor = functools.partial(tfds.features.Tensor, encoding="bytes")
        features: dict[str, Any] = {"label": np.int64, "index": np.int64}
        if self.builder_config.name == "images":
            features["image"] = tensor(shape=(28, 28), dtype=np.uint8)
        else:
            features |= {"samples": tensor(shape=(None,), dtype=np.int16), "take": np.int64}
            features["speaker"] = tfds.features.ClassLabel(names=list(SPEAKERS))
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # splits are ranges of the original order
            license=LICENCE,
        )

    @property
    def examples(self) -> int:
        """How many there are, both splits together."""
        labels = read_labels(self.assets)
        images = len(labels["train_labels"]) + len(labels["test_labels"])
        return images if self.builder_config.name == "images" else len(labels["digit"])

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images = self.builder_config.name == "images"
        return self._images(split) if images else self._recordings(split)

    def _images(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        labels = read_labels(self.assets)[f"{split}_labels"].tolist()
        for i, (image, label) in enumerate(
            zip(read_images(self.assets, split), labels, strict=True)
        ):
            yield i, {"image": image, "label": label, "index": i}

    def _recordings(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        samples, facts = read_samples(self.assets), read_labels(self.assets)
        for i in np.flatnonzero((facts["index"] < TEST_TAKES) == (split == "test")).tolist():
            example = {
                "samples": samples[facts["offsets"][i] : facts["offsets"][i + 1]],
                "index": i,
            }
            named = {"label": "digit", "take": "index", "speaker": "speaker"}
            yield i, example | {name: int(facts[key][i]) for name, key in named.items()}


def _features(record: bytes) -> Mapping[str, Any]:
    return tf_example_pb2.Example.FromString(record).features.feature


def decode_image(record: bytes) -> tuple[np.ndarray, int]:
    """A record of `images` -> uint8[28, 28], digit."""
    features = _features(record)
    pixels = np.frombuffer(features["image"].bytes_list.value[0], np.uint8)
    return pixels.reshape(28, 28), features["label"].int64_list.value[0]


def decode_recording(record: bytes) -> tuple[np.ndarray, int, int, int]:
    """A record of `recordings` -> int16[T] at 8 kHz, digit, speaker, number in the data set."""
    features = _features(record)
    samples = np.frombuffer(features["samples"].bytes_list.value[0], np.int16)
    return samples, *(features[name].int64_list.value[0] for name in ("label", "speaker", "index"))


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """One split, read.

    Attributes:
      columns: by modality. digit: per modality int32[rows], which digit each row is.
    """

    columns: dict[str, Any]
    digit: dict[str, np.ndarray]


# No slots: what `open` finds is kept beside the settings, not among them.
@dataclasses.dataclass(kw_only=True)
class Digits:
    """Source of images, speech and text, by the digit. See `mm.data.Source`.

    Columns: `image` uint8[n, 28, 28]; `speech` float32[n, 8000] at 8 kHz, every row's peak at 0.9,
    longer recordings cut (`cut` says how many), shorter ones followed by zeros; `text` strings, two
    rows per image: the digit's word, and a caption with facts measured from the image.

    Attributes:
      modalities: which columns there are. The first of image, speech, text that is named says what
        an example is.
      forms: rows of speech per training recording: one clean, the others with another speed (x 0.89
        .. 1.125), start (0 .. 0.1 s) and noise (20 .. 35 dB below). Validation and test have clean
        ones only.
      image_forms: likewise of images: one as it is, the others turned, sheared, scaled and shifted a little. Captions
        say what is measured in the form.
      caption_share: of the training examples whose text is a caption; half of them in validation
        and test.
      hold_out_speaker: one of FSDD's six, who is then heard in test only.
      seed: decides the augmented forms.
      assets: folder of the embedded data; None = the one that is shipped.
    """

    licence: ClassVar[str] = LICENCE
    modalities: tuple[str, ...] = MODALITIES
    forms: int = 8
    image_forms: int = 1
    caption_share: float = 0.5
    hold_out_speaker: str | None = None
    seed: int = 0
    assets: str | None = None

    def validate(self) -> None:
        """Raises UserError naming a setting that makes no sense."""
        check_modalities(self.modalities, MODALITIES)
        least = min(self.forms, self.image_forms)
        if least < 1 or not 0 <= self.caption_share <= 1 or self.seed < 0:
            found = f"forms={self.forms}, image_forms={self.image_forms}, caption_share={self.caption_share}, seed={self.seed}"
            raise UserError(
                f"config.data.source: {found}: forms >= 1, caption_share in 0..1, seed >= 0"
            )
        if self.hold_out_speaker not in (None, *SPEAKERS):
            found = f"config.data.source.hold_out_speaker={self.hold_out_speaker!r}"
            hint = nearest(str(self.hold_out_speaker), SPEAKERS)
            raise UserError(f"{found}: no such speaker{hint}")

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Builds what the modalities need below `cache`, at first use, and reads it: 75 MB in all.

        Raises:
          UserError: wrong settings, damaged assets, or too many unreadable records.
        """
        self.validate()
        assets = Path(self.assets) if self.assets else ASSETS
        folder = cache / f"digits-{manifest_hash(assets)}"  # other assets, another build
        make = functools.partial(DigitsBuilder, assets=assets)
        parts: dict[str, Opened] = {split: Opened({}, {}) for split in SPLITS}
        if {"image", "text"} & set(self.modalities):
            builder = prepare(functools.partial(make, config="images"), folder)
            self._open_images(builder, corrupt, parts)
        if "speech" in self.modalities:
            builder = prepare(functools.partial(make, config="recordings"), folder)
            self._open_speech(builder, corrupt, parts)
        self._splits = {
            split: Opened({m: part.columns[m] for m in self.modalities}, part.digit)
            for split, part in parts.items()
        }

    def _open_images(self, builder: Any, log: CorruptLog, parts: dict[str, Opened]) -> None:
        train = builder.info.splits["train"].num_examples - VALIDATION_IMAGES
        for split, official, rows in (
            ("train", "train", range(train)),
            ("validation", "train", range(train, train + VALIDATION_IMAGES)),
            ("test", "test", None),
        ):
            records = open_records(builder, official, log, decode_image, rows).read()
            images = np.stack([image for image, _ in records])
            forms = self._forms(split, "image")
            digit = np.repeat(np.array([label for _, label in records], np.int32), forms)
            if forms == 1:
                parts[split].columns.update(image=ArrayColumn(images), text=Texts(images, digit))
            else:
                pictures = Pictures(images, forms=forms, seed=self.seed)
                parts[split].columns.update(image=pictures, text=Texts(pictures, digit))
            parts[split].digit.update(image=digit, text=np.repeat(digit, 2))

    def _open_speech(self, builder: Any, log: CorruptLog, parts: dict[str, Opened]) -> None:
        total = builder.info.splits["train"].num_examples
        heard = VALIDATION_TAKES * 10 * len(SPEAKERS)  # recordings are sorted by take
        read = {}
        for split, official, rows in (
            ("train", "train", range(heard, total)),
            ("validation", "train", range(heard)),
            ("test", "test", None),
        ):
            read[split] = open_records(builder, official, log, decode_recording, rows).read()
        if self.hold_out_speaker:
            held = SPEAKERS.index(self.hold_out_speaker)
            out = [r for split in ("test", "validation", "train") for r in read[split]]
            read = {split: [r for r in read[split] if r[2] != held] for split in read}
            read["test"] = [r for r in out if r[2] == held]
        for split, records in read.items():
            column = Waves(
                [samples for samples, *_ in records],
                np.array([number for *_, number in records]),
                forms=self._forms(split, "speech"),
                seed=self.seed,
            )
            digit = np.array([digit for _, digit, *_ in records], np.int32)
            parts[split].columns["speech"] = column
            parts[split].digit["speech"] = np.repeat(digit, self._forms(split, "speech"))

    def _split(self, split: str) -> Opened:
        if split not in SPLITS:
            raise UserError(f"split {split!r}: digits have no such split{nearest(split, SPLITS)}")
        return self._splits[split]

    def columns(self, split: str) -> Mapping[str, Any]:
        """Raw columns by modality; see the class."""
        return self._split(split).columns

    @property
    def cut(self) -> dict[str, int]:
        """Per split, how many recordings were longer than the second that rows hold."""
        return {
            split: part.columns["speech"].cut
            for split, part in self._splits.items()
            if "speech" in part.columns
        }

    def items(self, split: str, column: str) -> np.ndarray:
        """int64[rows]: the image or recording that each row is, or says something about."""
        rows = np.arange(len(self._split(split).columns[column]))
        return rows // (
            2 * self._forms(split, "image") if column == "text" else self._forms(split, column)
        )

    def kinds(self, split: str, column: str) -> np.ndarray:
        """Strings [rows]: `clean` or `augmented` images and speech; `word` or `caption`."""
        names = ["word", "caption"]
        if column != "text":
            names = ["clean"] + ["augmented"] * (self._forms(split, column) - 1)
        return np.resize(names, len(self._split(split).columns[column]))

    def _forms(self, split: str, column: str) -> int:
        """Rows of each image or recording."""
        if split != "train":
            return 1
        return self.forms if column == "speech" else self.image_forms

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        """Which rows make the examples of one epoch; see `mm.data.Source`.

        Every image, in a form drawn anew (without images: every row of speech), is in one example. Speech of its digit
        comes from permutations of that digit's rows, so that rows are used equally often; texts are
        the image's own, or, without an image, those of some image of the digit.
        """
        digit, train = self._split(split).digit, split == "train"
        rng = np.random.default_rng([seed, epoch, 0] if train else [0, 0, 1 + SPLITS.index(split)])
        anchor = next(m for m in MODALITIES if m in self.modalities)
        forms = self._forms(split, "image") if anchor != "speech" else 1
        example = rng.permutation(len(digit["speech" if anchor == "speech" else "image"]) // forms)
        if forms > 1:
            form = rng.integers(1, forms, len(example)) * (rng.random(len(example)) < DISTORTED)
            example = example * forms + form
        if anchor == "speech":
            rows, group = {"speech": example}, digit["speech"][example]
            rows["image"] = partners(group, digit.get("image", group[:0]), rng)
        else:
            rows, group = {"image": example}, digit["image"][example]
            rows["speech"] = partners(group, digit.get("speech", group[:0]), rng)
        captions = rng.random(len(group)) < self.caption_share if train else halves(group, rng)
        rows["text"] = np.where(rows["image"] < 0, -1, 2 * rows["image"] + captions)
        return {m: rows[m] for m in self.modalities} | {"group": group}


def main() -> None:
    """Makes the embedded assets from the original arrays."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--mnist", type=Path, required=True, help="npz: train_images, train_labels, test_..."
    )
    parser.add_argument(
        "--fsdd", type=Path, required=True, help="npz: samples, offsets, digit, speaker, index, ..."
    )
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write")
    arguments = parser.parse_args()
    manifest = write_assets(arguments.mnist, arguments.fsdd, arguments.out)
    for name, file in manifest["files"].items():
        print(f"{name:20} {file['bytes']:>10,} bytes  sha256 {file['sha256']}")


if __name__ == "__main__":
    main()
