"""Pictures of users: read safely, and brought to the form of small centred training images."""

import contextlib
import dataclasses
import warnings

import numpy as np
from etils.epath import Path
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from mm.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
LARGEST = 64_000_000  # pixels that are decoded; a small file can claim far more
WORKING = 512  # longest side that framing works on; more adds time and no ink
FAINTEST = 12.0  # of 255: a picture whose ink stands out less is called blank
SOLID = 0.2  # of full ink: what belongs to a stroke, and not to its soft edge
ENLARGED, LARGE = 8, 512  # times at most, and no further than so many pixels


@dataclasses.dataclass(kw_only=True, slots=True)
class Framing:
    """How training images look: light ink on dark, in a box, centred by mass. Part of an artefact's config.

    Attributes:
      box: longest side of the ink in pixels; 0 where pictures are no drawings: the middle of the picture is
        taken as it is (see `fitted`).
      stroke: thinnest mean stroke, as a share of the longest side of the ink; thinner ones are thickened,
        or a pen's line on a big sheet would vanish when it is scaled down.
    """

    box: int = 20
    stroke: float = 0.11


def existing_file(path: Path | str, give: str) -> Path:
    """The path of a file that has contents.

    Args:
      give: what is wanted, for the message: "a PNG or JPEG".

    Raises:
      UserError: no such file, or an empty one.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    if path.stat().length == 0:
        raise UserError(f"{path}: the file is empty (0 bytes); give {give}")
    return path


def read_picture(path: Path) -> np.ndarray:
    """Any picture file -> grey float32[h, w] in 0..255, upright, longest side at most 512.

    Transparent places become what contrasts with the opaque ones.

    Raises:
      UserError: see `open_picture`.
    """
    return _grey(open_picture(path))


def open_picture(path: Path, *, decode: bool = True) -> Image.Image:
    """Any picture file, upright, a large JPEG scaled down to 512 pixels or a little more.

    Args:
      decode: False reads the header alone, and leaves the picture as it lies.

    Raises:
      UserError: no such file, empty, not a picture, damaged, or of absurd size.
    """
    path = existing_file(path, "a PNG or JPEG")
    try:
        with contextlib.ExitStack() as stack, warnings.catch_warnings():
            # sizes are checked here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(stack.enter_context(path.open("rb")), formats=FORMATS)
            if image.width * image.height > LARGEST:
                raise UserError(
                    f"{path}: {image.width} x {image.height} pixels, more than {LARGEST:,}; give a smaller picture"
                )
            if not decode:
                return image
            image.draft("RGB", (WORKING, WORKING))
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as e:
        raise UserError(
            f"{path}: not a picture that can be read ({', '.join(FORMATS)}); convert it to PNG"
        ) from e
    except Image.DecompressionBombError as e:
        raise UserError(
            f"{path}: claims more than {LARGEST:,} pixels; give a smaller picture"
        ) from e
    except (OSError, SyntaxError, ValueError) as e:  # Pillow on damaged files
        raise UserError(f"{path}: a damaged picture ({e}); export it again as PNG") from e


def fitted(image: Image.Image, shape: tuple[int, int], channels: int) -> np.ndarray:
    """Any mode of Pillow -> uint8[H, W], or [H, W, 3]: scaled to cover `shape` (H, W), the middle cut out.

    Transparent places become white.
    """
    image = _eight_bit(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BICUBIC))


def _eight_bit(image: Image.Image) -> Image.Image:
    """More than 8 bits are stretched to all of 8, for nothing says what full scale is."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    wide = np.asarray(image, np.float32)
    span = max(float(wide.max() - wide.min()), 1e-9)
    return Image.fromarray(((wide - wide.min()) * (255 / span)).astype(np.uint8))


def _grey(image: Image.Image) -> np.ndarray:
    """Any mode of Pillow -> float32[h, w] in 0..255."""
    image, alpha = _eight_bit(image), None
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    grey = image.convert("L")
    grey.thumbnail((WORKING, WORKING), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32)
    if alpha is None:
        return values
    alpha.thumbnail((WORKING, WORKING), Image.Resampling.BOX)
    cover = np.asarray(alpha, np.float32) / 255
    light = (values * cover).sum() > 127.5 * cover.sum()
    return values * cover + (0.0 if light else 255.0) * (1 - cover)


def frame(grey: np.ndarray, shape: tuple[int, int], framing: Framing, path: Path) -> np.ndarray:
    """A grey picture of one drawn thing -> uint8[H, W] in the form of the training data.

    Args:
      grey: float32[h, w] in 0..255, dark on light or light on dark, with any margins.
      shape: (H, W).
      path: for messages.

    Raises:
      UserError: nothing is drawn on it.
    """
    ink = _cropped(_ink(grey, path))
    ink = _cropped(_thickened(ink, framing.stroke * max(ink.shape)))
    scale = framing.box / max(ink.shape)
    size = (max(round(ink.shape[1] * scale), 1), max(round(ink.shape[0] * scale), 1))
    small = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC)).clip(0)
    small = (small / max(float(small.max()), 1e-9)).clip(0, 1)
    return np.round(_centred(small, *shape) * 255).astype(np.uint8)


def _ink(grey: np.ndarray, path: Path) -> np.ndarray:
    """How much ink lies where, float32[h, w] in [0, 1]: what differs from the paper in the direction in which
    more differs; faint noise and specks are dropped.
    """
    paper, noise = _paper(grey)
    difference = grey - paper
    darker = np.square(difference.clip(max=0)).sum() > np.square(difference.clip(0)).sum()
    # dark ink takes a share of the light that falls on it, so that it counts the same in a shadow
    ink = (-difference * (255 / paper.clip(1)) if darker else difference).clip(0, 255)
    peak = float(np.median(ink[ink > 0.5 * ink.max()])) if ink.max() > 0 else 0.0
    if peak >= FAINTEST:
        floor = min(max(3 * noise / peak, 0.02), 0.5)
        ink = _without_specks(((ink / peak - floor) / (1 - floor)).clip(0, 1))
    if peak < FAINTEST or ink.max() <= SOLID:
        raise UserError(
            f"{path}: the picture is blank, nothing stands out from its background; draw something on it"
        )
    return ink.astype(np.float32)


def _paper(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """The background, float32[h, w], and the standard deviation of its noise, both from the picture's border.

    It is a plane, for light falls off across a photograph. What is far from the border's median is ink that
    touches it.
    """
    h, w = grey.shape
    edge = max(min(h, w) // 16, 1)
    border = np.ones((h, w), bool)
    border[edge : h - edge, edge : w - edge] = False
    border &= np.abs(grey - np.median(grey[border])) <= 40
    if min(h, w) < 8 or border.sum() < 8:
        return np.full_like(grey, np.median(grey)), 0.0
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    terms = np.stack([np.ones_like(x), x / w, y / h], -1)
    paper = terms @ np.linalg.lstsq(terms[border], grey[border], rcond=None)[0]
    return paper, float(np.std((grey - paper)[border]))


def _without_specks(ink: np.ndarray) -> np.ndarray:
    """Removes what is apart from all strokes and small: dust, and the noise that is left."""
    parts = np.zeros(ink.shape, np.int32)
    ndimage.label(ink > SOLID, np.ones((3, 3)), output=parts)
    mass = np.bincount(parts.ravel(), ink.ravel())
    mass[0] = 0
    strokes = np.isin(parts, np.flatnonzero(mass >= 0.03 * mass.max())) & (parts > 0)
    return np.where(ndimage.binary_dilation(strokes, iterations=2), ink, 0)  # with their soft edges


def _cropped(ink: np.ndarray) -> np.ndarray:
    """What lies within the outermost strokes."""
    rows, cols = np.flatnonzero(ink.max(1) > SOLID), np.flatnonzero(ink.max(0) > SOLID)
    return ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def _thickened(ink: np.ndarray, thinnest: float) -> np.ndarray:
    """Strokes at least `thinnest` pixels wide on average; wide enough ones are left alone."""
    inside = np.pad(ink, 1) > 0.5
    if not inside.any():
        return ink
    # across a stroke t pixels wide, the distance to the first pixel outside averages t / 4 + 1 / 2
    distance = np.asarray(ndimage.distance_transform_edt(inside))
    missing = (thinnest - (4 * float(distance[inside].mean()) - 2)) / 2
    if missing < 0.5:
        return ink
    ink = np.pad(ink, round(missing) + 2)
    outside = np.asarray(ndimage.distance_transform_edt(ink <= 0.5))
    return np.maximum(ink, (missing + 1 - outside).clip(0, 1)).astype(np.float32)


def _centred(small: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pastes `small` so that its centre of mass is at pixel (height / 2, width / 2), from 0, as far as it fits."""
    mass = small.sum()
    cy = float(small.sum(1) @ np.arange(small.shape[0]) / mass)
    cx = float(small.sum(0) @ np.arange(small.shape[1]) / mass)
    top = int(np.clip(round(height / 2 - cy), 0, height - small.shape[0]))
    left = int(np.clip(round(width / 2 - cx), 0, width - small.shape[1]))
    out = np.zeros((height, width), np.float32)
    out[top : top + small.shape[0], left : left + small.shape[1]] = small
    return out


def is_picture(array: np.ndarray) -> bool:
    """Whether it is uint8[H, W], or [H, W, 3]."""
    return array.dtype == np.uint8 and (
        array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    )


def write_picture(raw: np.ndarray, stem: Path) -> Path:
    """uint8[H, W], or [H, W, 3] -> `stem`.png, small ones up to eight times as large with soft edges.

    Returns:
      its path.

    Raises:
      UserError: it is no picture.
    """
    raw = np.asarray(raw)
    if not is_picture(raw):
        raise UserError(
            f"{stem}: a picture is uint8[H, W] or [H, W, 3], not {raw.dtype}{list(raw.shape)}; mend what makes it"
        )
    stem = Path(stem)
    path = stem.with_name(stem.name + ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    times = max(min(ENLARGED, LARGE // max(raw.shape[:2])), 1)
    size = (raw.shape[1] * times, raw.shape[0] * times)
    with path.open("wb") as f:
        Image.fromarray(raw).resize(size, Image.Resampling.BICUBIC).save(f, "PNG")
    return path
