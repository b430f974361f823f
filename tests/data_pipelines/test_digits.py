"""The source of digits: official splits, fair pairs by digit, and records that may be damaged."""

import copy
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource

from data_pipelines.digit_assets import ASSETS, read_images, read_labels, read_samples
from data_pipelines.digit_captions import DIGIT_WORDS, read_digit
from data_pipelines.digit_speech import LENGTH, PEAK
from data_pipelines.digits import SPLITS, Digits
from mm.data.records import CorruptLog
from mm.errors import UserError

LABELS = read_labels(ASSETS)
TAKES = {"train": range(10, 50), "validation": range(5, 10), "test": range(5)}


def recordings_of(takes) -> np.ndarray:
    """Numbers of the recordings with these takes, in their order."""
    return np.flatnonzero(np.isin(LABELS["index"], list(takes)))


def test_images_are_split_as_published(digits):
    train, test = read_images(ASSETS, "train"), read_images(ASSETS, "test")
    expected = {"train": train[:-5000], "validation": train[-5000:], "test": test}
    for split, images in expected.items():
        column = digits.columns(split)["image"]
        assert np.array_equal(column[np.arange(len(column))], images)


@pytest.mark.parametrize("split", SPLITS)
def test_recordings_are_split_by_take(digits, split):
    column, numbers = digits.columns(split)["speech"], recordings_of(TAKES[split])
    forms = 8 if split == "train" else 1
    assert len(column) == forms * len(numbers)
    samples, offsets = read_samples(ASSETS), LABELS["offsets"]
    for i in (0, 17, len(numbers) - 1):
        kept = samples[offsets[numbers[i]] : offsets[numbers[i] + 1]][:LENGTH].astype(float)
        row = column[np.array([i * forms])][0]
        np.testing.assert_allclose(row[: len(kept)], kept * PEAK / np.abs(kept).max(), atol=1e-5)
        assert not row[len(kept) :].any()


def test_how_many_recordings_are_cut_is_known(digits):
    long = np.diff(LABELS["offsets"]) > LENGTH
    assert digits.cut == {s: int(long[recordings_of(TAKES[s])].sum()) for s in SPLITS}
    assert sum(digits.cut.values()) == 20


def digit_of_rows(split: str, column: str) -> np.ndarray:
    """Which digit each row is, from the labels alone."""
    if column == "speech":
        digit = LABELS["digit"][recordings_of(TAKES[split])]
        return np.repeat(digit, 8 if split == "train" else 1)
    labels = LABELS["test_labels" if split == "test" else "train_labels"]
    labels = {"train": labels[:-5000], "validation": labels[-5000:], "test": labels}[split]
    return np.repeat(labels, 2) if column == "text" else labels


@pytest.mark.parametrize("split", SPLITS)
def test_an_epoch_has_every_image_once_with_speech_and_text_of_its_digit(digits, split):
    order = digits.order(split, seed=1, epoch=2)
    count = len(digits.columns(split)["image"])
    assert np.array_equal(np.sort(order["image"]), np.arange(count))
    assert np.array_equal(order["text"] // 2, order["image"])
    assert order["group"].dtype == np.int32
    for column in ("image", "speech", "text"):
        assert order[column].dtype == np.int64
        assert np.array_equal(digit_of_rows(split, column)[order[column]], order["group"])
    use = np.bincount(order["speech"], minlength=len(digits.columns(split)["speech"]))
    for digit in range(10):
        of_digit = use[digit_of_rows(split, "speech") == digit]
        assert of_digit.max() - of_digit.min() <= 1


def test_texts_say_their_digit(digits):
    rows = np.random.default_rng(0).integers(0, len(digits.columns("train")["text"]), 500)
    texts = digits.columns("train")["text"][rows]
    assert [read_digit(text) for text in texts] == digit_of_rows("train", "text")[rows].tolist()
    assert [text in DIGIT_WORDS for text in texts] == (rows % 2 == 0).tolist()


def test_training_order_is_a_function_of_seed_and_epoch(digits):
    def rows(seed: int, epoch: int) -> np.ndarray:
        order = digits.order("train", seed, epoch)
        return np.stack([order[name] for name in ("image", "speech", "text", "group")])

    assert np.array_equal(rows(3, 4), rows(3, 4))
    for other in (rows(4, 4), rows(3, 5), rows(4, 3)):
        assert other.shape == rows(3, 4).shape
        assert not np.array_equal(rows(3, 4), other)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_validation_and_test_are_fixed_and_half_captions(digits, split):
    order, other = digits.order(split, 0, 0), digits.order(split, 5, 6)
    assert all(np.array_equal(order[name], other[name]) for name in order)
    for digit in range(10):
        captions = order["text"][order["group"] == digit] % 2
        assert abs(captions.sum() - (1 - captions).sum()) <= 1
    # words and captions must not each have recordings of their own
    heard = [set(order["speech"][order["text"] % 2 == kind].tolist()) for kind in (0, 1)]
    assert len(heard[0] & heard[1]) > 250


def opened(cache: Path, **settings) -> Digits:
    source = Digits(**settings)
    source.open(cache, CorruptLog(0))
    return source


def changed(digits: Digits, **settings) -> Digits:
    """The open source with settings that only its order depends on."""
    source = copy.copy(digits)
    for name, value in settings.items():
        setattr(source, name, value)
    return source


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_captions_have_their_share_of_training(digits, share):
    order = changed(digits, caption_share=share).order("train", 0, 0)
    assert np.mean(order["text"] % 2) == pytest.approx(share, abs=0.01)


def test_speech_without_images_has_every_row_once(digits):
    order = changed(digits, modalities=("text", "speech")).order("train", 0, 0)
    assert list(order) == ["text", "speech", "group"]
    assert np.array_equal(np.sort(order["speech"]), np.arange(8 * 2400))
    assert np.array_equal(digit_of_rows("train", "speech")[order["speech"]], order["group"])
    assert np.array_equal(digit_of_rows("train", "text")[order["text"]], order["group"])


def test_speech_alone_and_text_alone(digits):
    order = changed(digits, modalities=("speech",)).order("test", 0, 0)
    assert list(order) == ["speech", "group"]
    assert np.array_equal(np.sort(order["speech"]), np.arange(300))
    order = changed(digits, modalities=("text",)).order("test", 0, 0)
    assert list(order) == ["text", "group"]
    assert np.array_equal(np.sort(order["text"] // 2), np.arange(10_000))


@pytest.mark.parametrize("modalities", [("text", "speech"), ("image",), ("speech",), ("text",)])
def test_only_the_named_modalities_are_columns(small_assets, tmp_path, modalities):
    source = opened(tmp_path, assets=str(small_assets), modalities=modalities, forms=2)
    for split in SPLITS:
        assert tuple(source.columns(split)) == modalities
        assert tuple(source.order(split, 0, 0)) == (*modalities, "group")
    built = {path.parent.parent.name for path in tmp_path.rglob("*train.array_record*")}
    assert built == {"recordings" if m == "speech" else "images" for m in modalities}


def test_a_held_out_speaker_is_heard_in_test_only(built):
    source = opened(built, modalities=("speech",), hold_out_speaker="theo", forms=1)
    theo = LABELS["speaker"] == 4
    assert len(source.columns("test")["speech"]) == 500
    assert len(source.columns("train")["speech"]) == 2000
    assert len(source.columns("validation")["speech"]) == 250
    everyone = opened(built, modalities=("speech",), forms=1)
    numbers = recordings_of(TAKES["train"])
    kept = everyone.columns("train")["speech"][np.flatnonzero(~theo[numbers])[:50]]
    assert np.array_equal(source.columns("train")["speech"][np.arange(50)], kept)
    order = source.order("test", 0, 0)
    assert np.array_equal(np.bincount(order["group"]), np.full(10, 50))


def test_rows_say_which_item_they_are_of_and_of_which_kind(digits):
    for split, forms in (("train", 8), ("test", 1)):
        for column, each in (("image", 1), ("text", 2), ("speech", forms)):
            rows = np.arange(len(digits.columns(split)[column]))
            assert np.array_equal(digits.items(split, column), rows // each)
            assert len(digits.kinds(split, column)) == len(rows)
    assert digits.kinds("train", "speech")[:9].tolist() == ["clean"] + ["augmented"] * 7 + ["clean"]
    assert set(digits.kinds("test", "speech")) == {"clean"}
    assert digits.kinds("test", "text")[:3].tolist() == ["word", "caption", "word"]


def test_fingerprints_tell_splits_and_settings_apart(built, digits):
    other = opened(built, forms=4, modalities=("speech",))
    marks = [c.fingerprint for split in SPLITS for c in digits.columns(split).values()]
    marks += [other.columns("train")["speech"].fingerprint]
    assert len(set(marks)) == 10
    again = opened(built, modalities=("speech",))
    assert again.columns("train")["speech"].fingerprint in marks


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"modalities": ("imge",)}, "did you mean 'image'"),
        ({"modalities": ()}, "at least one"),
        ({"modalities": ("text", "text")}, "none twice"),
        ({"forms": 0}, "forms=0"),
        ({"caption_share": 1.5}, "caption_share=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"hold_out_speaker": "teo"}, "did you mean 'theo'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_any_work(tmp_path, settings, said):
    with pytest.raises(UserError, match=said):
        Digits(**settings).open(tmp_path, CorruptLog(0))
    assert not list(tmp_path.iterdir())


def test_an_unknown_split_is_refused(digits):
    with pytest.raises(UserError, match="did you mean 'validation'"):
        digits.columns("validatoin")


def test_a_missing_asset_is_one_clear_line_and_nothing_is_built(small_assets, tmp_path):
    assets = tmp_path / "assets"
    assets.mkdir()
    for file in small_assets.iterdir():
        if file.name != "mnist_test.webp":
            (assets / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"^\S+mnist_test\.webp: cannot be read .*restore it"):
        Digits(assets=str(assets)).open(tmp_path / "cache", CorruptLog(0))
    assert not list((tmp_path / "cache").rglob("*.array_record*"))


def damage_record(path: Path, wanted: int) -> None:
    """Flips a byte inside record `wanted` of an array_record file: records lie in their order."""
    intact = path.read_bytes()
    low, high = 0, len(intact)
    while low < high:
        at = (low + high) // 2
        flipped = bytearray(intact)
        flipped[at] ^= 4
        path.write_bytes(flipped)
        found = first_unreadable(path, wanted + 2)
        if found == wanted:
            return
        low, high = (at + 1, high) if 0 <= found < wanted else (low, at)
    raise AssertionError(f"no byte of record {wanted} found")


def first_unreadable(path: Path, count: int) -> int:
    """The first of `count` records that cannot be read; `count` if all can."""
    reader = ArrayRecordDataSource(str(path))
    for i in range(count):
        try:
            reader[i]
        except RuntimeError:
            return i
    return count


def test_a_damaged_record_is_replaced_within_its_split(small_assets, tmp_path, capsys):
    intact = Digits(assets=str(small_assets), forms=1)
    intact.open(tmp_path, CorruptLog(0))
    images = next(p for p in tmp_path.rglob("digits-train*") if p.parent.parent.name == "images")
    damage_record(images, 69)  # the last training image; validation follows in the same file
    capsys.readouterr()
    log = CorruptLog(1)
    damaged = Digits(assets=str(small_assets), forms=1)
    damaged.open(tmp_path, log)
    assert log.count == 1
    assert f"{images}, record 69: unreadable" in capsys.readouterr().err
    columns = {name: source.columns("train") for name, source in (("ok", intact), ("no", damaged))}
    rows = np.arange(70)
    expected = columns["ok"]["image"][np.where(rows == 69, 0, rows)]
    assert np.array_equal(columns["no"]["image"][rows], expected)
    assert columns["no"]["text"][np.array([138])] == ["zero"]  # its label moves with it
    assert columns["no"]["image"].fingerprint != columns["ok"]["image"].fingerprint
    for split in ("validation", "test"):
        for name, column in intact.columns(split).items():
            assert damaged.columns(split)[name].fingerprint == column.fingerprint


def test_a_build_of_other_assets_is_not_read(small_assets, built, tmp_path):
    source = Digits(assets=str(small_assets), modalities=("speech",), forms=1)
    source.open(built, CorruptLog(0))
    assert len(source.columns("train")["speech"]) == 2 * 60
    assert source.cut["train"] + source.cut["validation"] + source.cut["test"] == 8
