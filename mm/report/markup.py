"""Figures, tables and tiles as HTML. Strings that come in as values are escaped here, once."""

import base64
import html
import io
import re
from collections.abc import Iterable
from typing import Any

import soundfile
from etils.epath import Path
from PIL import Image

from mm.evals import pictures

SIDE = 112  # pixels of a tile's picture: twice what it is shown at

escape = html.escape


def direction(name: str) -> str:
    """A result's name, `a->b.figure`, so that it may break where it should."""
    return re.sub(r"([./+_])", r"\1<wbr>", escape(name).replace("-&gt;", " &rarr; "))


def note(text: str) -> str:
    """A paragraph that explains; `text` is HTML."""
    return f'<p class="note">{text}</p>'


def number(value: Any) -> str:
    """Integers with separators, floats with the digits that matter."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "&ndash;"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(number, value)) + "]"
    if isinstance(value, int) or (isinstance(value, float) and abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.3g}" if isinstance(value, float) else escape(str(value))


def percent(value: float | None, interval: Any = None) -> str:
    """A share as percent, with its interval."""
    if value is None:
        return "&ndash;"
    between = " <small>[{:.1f}, {:.1f}]</small>".format(*(100 * x for x in interval or (0, 0)))
    return f"{100 * value:.1f}{between if interval else ''}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]], words: bool = False) -> str:
    """A table that scrolls where it is too wide. The first cell of a row is its name; cells are HTML.

    Args:
      words: the other cells are words, not numbers.
    """
    kind = "long" if words else "n"
    first, *others = head
    top = f"<th>{first}</th>" + "".join(f'<th class="{kind}">{h}</th>' for h in others)
    body = ""
    for first, *rest in rows:
        cells = "".join(f'<td class="{kind}">{c}</td>' for c in rest)
        body += f"<tr><td>{first}</td>{cells}</tr>"
    # What scrolls can be reached by keyboard.
    return f'<div class="scroll" tabindex="0"><table><tr>{top}</tr>{body}</table></div>'


def folded(title: str, body: str, opened: bool = False) -> str:
    """A part that is opened by a click, without scripts."""
    mark = " open" if opened else ""
    return f"<details{mark}><summary>{title}</summary>{body}</details>"


def tile(path: Path, caption: str = "", wrong: bool = False, player: bool = True) -> str:
    """A sample's file: a picture, a sound's spectrogram (and a player), an array's greys, or words.

    Args:
      caption: HTML below it.
      wrong: framed.
    """
    try:
        body = _content(path, player)
    except (OSError, RuntimeError, ValueError, SyntaxError):  # moved, cut: the page stands without
        body = "<p>(unreadable)</p>"
    below = f'<p class="said">{caption}</p>' if caption else ""
    return f'<div class="{"tile wrong" if wrong else "tile"}">{body}{below}</div>'


def _content(path: Path, player: bool) -> str:
    name = escape(f"{path.parent.name.replace('-to-', ' to ')} {path.stem}")
    if path.suffix in pictures.PICTURES:
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            return f'<img alt="{name}" src="{picture_data(picture)}">'
    if path.suffix in pictures.SOUNDS:
        seen = picture_data(pictures.spectrogram(pictures.waveform(path)))
        # Narrower than its controls: what is cut off is the far end, not the button that plays.
        audio = f'<audio controls aria-label="{name}" src="{sound_data(path)}"></audio>'
        sound = f'<div class="player">{audio}</div>' if player else ""
        return f'<img class="ink" alt="spectrogram of {name}" src="{seen}">{sound}'
    if path.suffix == pictures.ARRAY:
        seen = picture_data(pictures.greys(path, SIDE))
        return f'<img class="ink" alt="array {name}" src="{seen}">'
    return f"<p>{escape(pictures.words(path))}</p>"


def picture_data(picture: Image.Image) -> str:
    """A small copy as a data URI."""
    small = picture.convert("L" if picture.mode in ("L", "1") else "RGB")
    if max(small.size) > SIDE:
        small = small.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85, method=4)
    return _data(buffer.getvalue(), "image/webp")


def sound_data(path: Path) -> str:
    """The same samples as FLAC, half as large as a WAV, as a data URI."""
    samples, rate = soundfile.read(io.BytesIO(path.read_bytes()), dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return _data(buffer.getvalue(), "audio/flac")


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
