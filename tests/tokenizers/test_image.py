"""The image tokenizer: its windows, the shipped weights, and users' pictures, whole and broken."""

import dataclasses
import io
import struct
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mm import artefact, tokenizers
from mm.errors import UserError
from mm.tokenizers import autoencoder, files, quantizers
from mm.tokenizers.image import ImageAutoencoder, windows
from mm.tokenizers.quantizers import VectorQuantizer

SHIPPED = Path(__file__).parents[2] / "tokenizers" / "image.safetensors"


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.load(str(SHIPPED), "picture")


def drawn(
    side: int = 280, width: int = 28, lines=((70, 60), (200, 60), (110, 220)), shift=(0, 0)
) -> np.ndarray:
    """A seven, light on dark, with soft edges: uint8[side, side]."""
    image = Image.new("L", (side, side))
    points = [(x * side // 280 + shift[0], y * side // 280 + shift[1]) for x, y in lines]
    ImageDraw.Draw(image).line(points, fill=255, width=width * side // 280, joint="curve")
    return np.asarray(image)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def framed(path: Path) -> np.ndarray:
    return files.frame(files.read_picture(path), (28, 28), files.Framing(), path)


def mse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a / 255.0 - b / 255.0).mean())


@pytest.mark.parametrize(("patch", "margin"), [(2, 0), (2, 1), (3, 2)])
def test_windows_against_a_slow_reference(patch, margin):
    x = np.random.default_rng(0).random((2, 6, 12)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin)))
    side = patch + 2 * margin
    cells = [
        padded[:, i * patch : i * patch + side, j * patch : j * patch + side].reshape(2, -1)
        for i in range(6 // patch)
        for j in range(12 // patch)
    ]
    np.testing.assert_array_equal(windows(jnp.asarray(x), patch, margin), np.stack(cells, 1))


def test_shipped_weights_say_what_they_are(tokenizer):
    assert tokenizer.modality.size == 16 and tokenizer.modality.vocabulary.size == 256
    assert {"data", "licence", "steps", "validation"} <= set(tokenizer.card)
    assert tokenizer.card["validation"]["usage"] > 0.9
    assert SHIPPED.stat().st_size < 3_000_000


def test_a_drawing_survives_the_codes(tokenizer, tmp_path):
    seven = framed(save(tmp_path / "a.png", drawn()))
    ids, length = tokenizer.encode(seven[None])
    assert ids.shape == (1, 16) and ids.dtype == np.int32 and length.tolist() == [16]
    decoded = tokenizer.decode(ids, length)[0]
    assert decoded.dtype == np.uint8 and mse(decoded, seven) < 0.02 < mse(
        np.zeros_like(seven), seven
    )


def test_codes_are_local(tokenizer):
    """A change in one corner leaves the codes of the opposite half as they are."""
    image = np.random.default_rng(0).integers(0, 255, (1, 28, 28)).astype(np.uint8)
    other = image.copy()
    other[:, :4, :4] = 255 - other[:, :4, :4]
    same = (tokenizer.encode(image)[0] == tokenizer.encode(other)[0]).reshape(4, 4)
    assert same[:, 1:].all() and same[1:].all()


def test_rows_do_not_depend_on_their_company(tokenizer):
    """Chunks are padded to few sizes; neither that nor the neighbours may show."""
    rows = np.random.default_rng(0).integers(0, 255, (300, 28, 28)).astype(np.uint8)
    together = tokenizer.encode(rows)[0]
    assert (
        tokenizer.encode(rows[:5])[0] == together[:5]
    ).mean() > 0.97  # sums in another order: rare ties
    back = tokenizer.decode(together)
    np.testing.assert_allclose(back[7:8].astype(int), tokenizer.decode(together[7:8]), atol=1)


@given(st.integers(0, 4), st.integers(-(2**31), 2**31 - 1))
@settings(max_examples=10)
def test_any_ids_decode(tokenizer, rows, value):
    out = tokenizer.decode(np.full((rows, 16), value))
    assert out.shape == (rows, 28, 28) and out.dtype == np.uint8


def test_wrong_arrays_are_refused(tokenizer):
    with pytest.raises(ValueError, match="uint8"):
        tokenizer.encode(np.zeros((2, 28, 28), np.float32))


def test_written_pictures_read_back(tokenizer, tmp_path):
    seven = framed(save(tmp_path / "a.png", drawn()))
    path = tokenizer.write_file(seven, tmp_path / "out" / "v1.0")
    assert path.name == "v1.0.png" and Image.open(path).size == (224, 224)
    assert mse(tokenizer.read_file(path), seven) < 0.005


def test_the_form_of_the_training_data(tmp_path):
    out = framed(save(tmp_path / "a.png", drawn(shift=(40, -30))))
    assert out.shape == (28, 28) and out.dtype == np.uint8 and out.max() == 255
    y, x = np.nonzero(out > 50)
    assert max(np.ptp(y), np.ptp(x)) + 1 in (19, 20, 21)
    grid = np.arange(28)
    assert abs((out.sum(1) @ grid) / out.sum() - 14) <= 0.6
    assert abs((out.sum(0) @ grid) / out.sum() - 14) <= 0.6


def variants(pixels: np.ndarray) -> dict[str, tuple[Image.Image, str, dict]]:
    """The same drawing as people have it."""
    big, h = Image.new("L", (600, 900), 0), pixels.shape[0]
    big.paste(Image.fromarray(pixels), (250, 80))
    paper = 255 - pixels
    light = np.linspace(0.6, 1, h)[:, None] * np.linspace(1, 0.75, h)
    noise = np.random.default_rng(0).normal(0, 4, (h, h))
    clear = np.stack([np.zeros_like(pixels)] * 3 + [pixels], -1)
    red = np.stack([np.full_like(pixels, 230), paper * 0.9, paper * 0.9], -1).astype(np.uint8)
    return {
        "dark on light": (Image.fromarray(paper), "png", {}),
        "jpeg": (Image.fromarray(paper), "jpg", {"quality": 40}),
        "off centre on a big sheet": (big, "png", {}),
        "photographed": (
            Image.fromarray((paper * 0.7 * light + 40 + noise).clip(0, 255).astype(np.uint8)),
            "jpg",
            {},
        ),
        "red pen": (Image.fromarray(red), "png", {}),
        "black on transparent": (Image.fromarray(clear), "png", {}),
        "white on transparent": (Image.fromarray(clear | np.uint8([255, 255, 255, 0])), "png", {}),
        "palette": (Image.fromarray(paper).convert("P"), "gif", {}),
        "one bit": (Image.fromarray(paper).convert("1"), "png", {}),
        "sixteen bit": (Image.fromarray(pixels.astype(np.uint16) * 16), "png", {}),
        "cmyk": (Image.fromarray(paper).convert("CMYK"), "jpg", {}),
        "turned by its exif": (Image.fromarray(np.rot90(paper)), "jpg", {"exif": _turned()}),
    }


SHIFTS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise to view
    return exif


@pytest.mark.parametrize("name", variants(drawn()))
def test_however_it_was_drawn(name, tmp_path):
    image, kind, options = variants(drawn())[name]
    image.save(tmp_path / f"a.{kind}", **options)
    expected = framed(save(tmp_path / "plain.png", drawn()))
    # what is scaled down from elsewhere may land half a pixel aside
    assert (
        min(mse(np.roll(framed(tmp_path / f"a.{kind}"), s, (0, 1)), expected) for s in SHIFTS)
        < 0.01
    )


def test_a_pen_line_becomes_a_stroke(tmp_path):
    pen = framed(save(tmp_path / "pen.png", 255 - drawn(width=5)))
    brush = framed(save(tmp_path / "brush.png", 255 - drawn(width=24)))
    assert pen.max() == 255 and 0.5 < pen.sum() / brush.sum() < 1.2


def test_dust_does_not_count(tmp_path):
    dusty = drawn().copy()
    dusty[270:273, 5:8] = 255
    expected = framed(save(tmp_path / "a.png", drawn()))
    assert mse(framed(save(tmp_path / "b.png", dusty)), expected) < 0.005


def bomb() -> bytes:
    """A PNG of 100 bytes that claims 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


BROKEN = {
    "empty": (b"", "0 bytes"),
    "text": (b"seven", "not a picture"),
    "cut": (png(drawn())[:-200], "damaged"),
    "bomb": (bomb(), "more than"),
    "blank": (png(np.full((40, 40), 200, np.uint8)), "blank"),
    "faint": (png(np.pad(np.full((9, 9), 204, np.uint8), 9, constant_values=200)), "blank"),
    "one pixel": (png(np.zeros((1, 1), np.uint8)), "blank"),
}


def test_whole_pictures_in_colour_cover_the_row_and_keep_their_middle(tmp_path):
    pixels = np.zeros((40, 100, 4), np.uint8)
    pixels[:, 30:70] = (200, 30, 90, 255)  # the middle square; what is transparent becomes white
    image = files.open_picture(save(tmp_path / "wide.png", pixels))
    row = files.fitted(image, (20, 20), 3)
    assert row.dtype == np.uint8 and (np.abs(row.astype(int) - (200, 30, 90)) <= 20).all()
    assert (row[:, 2:-2] == (200, 30, 90)).all()  # at the edges the filter sees what is beyond
    assert (files.fitted(image, (20, 50), 3)[:, 1] == 255).all()
    assert files.fitted(image, (20, 20), 1).shape == (20, 20)


def test_a_colour_tokenizer_takes_and_gives_colour(tmp_path):
    network = ImageAutoencoder(
        height=16, width=24, channels=3, patch=8, hidden=16, dense=16, framing=files.Framing(box=0)
    )
    network.validate()
    quantizer = VectorQuantizer(codes=8, width=network.latent)
    params = nnx.to_pure_dict(nnx.state(network.build(nnx.Rngs(0))))
    arrays = autoencoder.flatten(params, quantizer.init(jax.random.key(0)), "float16")
    config = {
        "network": dataclasses.asdict(network),
        "quantizer": quantizers.to_json(quantizer),
    }
    artefact.write(tmp_path / "a.safetensors", "image", config, arrays, {})
    made = tokenizers.load(str(tmp_path / "a.safetensors"), "picture")
    rows = np.random.default_rng(0).integers(0, 255, (5, 16, 24, 3), np.uint8)
    ids, _ = made.encode(rows)
    decoded = made.decode(ids)
    assert ids.shape == (5, 6) and decoded.shape == rows.shape and decoded.dtype == np.uint8
    smooth = np.stack(
        [np.add.outer(np.arange(16), np.arange(24)) * s for s in (1, 3, 6)], -1
    ).astype(np.uint8)
    written = made.write_file(smooth, tmp_path / "row")
    assert mse(made.read_file(written), smooth) < 1e-3
    with pytest.raises(ValueError, match="uint8"):
        made.encode(rows[..., 0])
    with pytest.raises(UserError, match="box=0"):
        ImageAutoencoder(channels=3).validate()


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures_are_one_line(name, tmp_path):
    content, said = BROKEN[name]
    path = tmp_path / "user.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        framed(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_picture(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        files.read_picture(tmp_path / "no.png")


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8), st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_are_read_or_refused(tmp_path, at, junk, as_jpeg):
    out = io.BytesIO()
    Image.fromarray(drawn(side=56)).save(out, "JPEG" if as_jpeg else "PNG")
    content = bytearray(out.getvalue())
    content[at % len(content) : at % len(content) + len(junk)] = junk
    path = tmp_path / "user.png"
    path.write_bytes(content)
    try:
        result = framed(path)
    except UserError:
        return
    assert result.shape == (28, 28) and result.dtype == np.uint8


@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_pixels_are_framed_or_blank(tmp_path, h, w, random):
    pixels = np.array([random.choice([0, 0, 0, 90, 255]) for _ in range(h * w)], np.uint8).reshape(
        h, w
    )
    try:
        out = framed(save(tmp_path / "a.png", pixels))
    except UserError as e:
        assert "blank" in str(e)
        return
    assert out.shape == (28, 28) and out.max() > 0
