"""A TFDS data set that is there is read without its code, and one that is not is never fetched."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from mm.data.form import Form
from mm.data.records import CorruptLog
from mm.data.tfds_source import Tfds
from mm.errors import UserError
from tests.own_data import COLOURS, RATE, SHAPES, draw, play

FEATURES = {"image": "picture", "audio": "sound", "text": "captions/text"}
SPLITS = {"train": "train", "validation": "rest[:50%]", "test": "rest[50%:]"}


def build(folder: Path, file_format: str = "array_record") -> None:
    class OwnShapes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = epath.Path(folder)

        def _info(self):
            f = tfds.features
            named = {
                "picture": f.Image(shape=(None, None, 3)),
                "sound": f.Tensor(shape=(None,), dtype=np.int16),
                "captions": f.Sequence({"text": f.Text()}),
                "kind": f.ClassLabel(names=["red", "blue"]),
            }
            return self.dataset_info_from_configs(features=f.FeaturesDict(named))

        def _split_generators(self, dl_manager):
            return {s: self._generate_examples(n) for s, n in (("train", 24), ("rest", 8))}

        def _generate_examples(self, n):
            rng = np.random.default_rng(n)
            for i in range(n):
                colour, shape = list(COLOURS)[i % 2], SHAPES[i // 2 % 2]
                png = io.BytesIO()
                draw(colour, shape, rng).save(png, "PNG")
                png.seek(0)
                wave = np.round(play(colour, shape, rng) * 20_000).astype(np.int16)
                texts = [{"text": f"a {colour} {shape}"}, {"text": f"{colour} thing"}][: i % 3]
                yield i, {"picture": png, "sound": wave, "captions": texts, "kind": colour}

    OwnShapes(data_dir=str(folder)).download_and_prepare(file_format=file_format)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    build(folder)
    del tfds.core.registered._DATASET_REGISTRY["own_shapes"]  # its code is not on this machine
    return folder


def source(folder: Path, **settings) -> Tfds:
    settings = {"features": dict(FEATURES), "splits": dict(SPLITS), "rate": RATE} | settings
    settings = {"form": Form(height=16, width=16), "label": "kind"} | settings
    return Tfds(name=settings.pop("name", "own_shapes"), data_dir=str(folder), **settings)


def opened(folder: Path, **settings) -> Tfds:
    made = source(folder, **settings)
    made.open(folder / "cache", CorruptLog(0))
    return made


def test_records_are_examples(prepared):
    data = opened(prepared)
    assert data.modalities == ("image", "audio", "text")
    sizes = {s: len(data.order(s, 0, 0)["group"]) for s in SPLITS}
    assert sizes == {"train": 24, "validation": 4, "test": 4}
    columns, order = data.columns("train"), data.order("train", 0, 0)
    assert (order["text"] < 0).sum() == 8  # every third has no caption
    for group, image, audio, text in zip(*(order[k] for k in ("group", "image", "audio", "text")), strict=True):  # fmt: skip
        colour = list(COLOURS)[group]
        pixels, wave = (
            columns["image"][np.array([image])][0],
            columns["audio"][np.array([audio])][0],
        )
        assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
        assert (pixels[8, 8, 0] > pixels[8, 8, 2]) == (colour == "red")
        assert wave.shape == (8000,) and abs(wave).max() == pytest.approx(0.9)
        assert (np.abs(np.fft.rfft(wave)).argmax() > 800) == (colour == "red")
        assert text < 0 or colour in columns["text"][np.array([text])][0]


def test_slices_do_not_share_records_and_marks_tell_them_apart(prepared):
    columns = [opened(prepared).columns(s)["audio"] for s in SPLITS]
    rows = np.concatenate([c[np.arange(len(c))] for c in columns])
    assert len(np.unique(rows, axis=0)) == 32
    other = opened(prepared, form=Form(height=16, width=16, peak=0.5)).columns("train")["audio"]
    assert len({c.fingerprint for c in [*columns, other]}) == 4
    assert opened(prepared).columns("train")["audio"].fingerprint == columns[0].fingerprint


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "mnist"}, "nothing is downloaded"),
        ({"name": "huggingface:nothing"}, "nothing is downloaded"),
        ({"name": "own_shapes:3.0.0"}, "cannot be opened"),
        ({"features": {"image": "pictures"}}, "no feature 'pictures'; did you mean 'picture'?"),
        ({"features": {"text": "captions/txt"}}, "no feature 'captions/txt'"),
        ({"features": {"smell": "picture"}}, "no modality 'smell'"),
        ({"splits": SPLITS | {"test": "tset"}}, "Unknown split 'tset'"),
        ({"splits": SPLITS | {"test": "rest[8:]"}}, "cannot be opened"),
        ({"splits": {"train": "train"}}, "what train, validation, test are"),
    ],
)
def test_what_is_not_there_is_one_line(prepared, settings, says):
    with pytest.raises(UserError) as e:
        opened(prepared, **settings)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_a_damaged_file_is_one_line(prepared, tmp_path):
    copy = Path(shutil.copytree(prepared, tmp_path / "copy"))
    for path in copy.rglob("*train.array_record*"):
        os.truncate(path, 100)
    with pytest.raises(UserError) as e:
        opened(copy)
    assert "\n" not in str(e.value)
