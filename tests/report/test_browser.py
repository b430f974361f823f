"""Pages in a real browser: nothing is cut off at 1280 and 400 px, in light and dark; pictures and sounds are read."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from mm.report import write_report
from mm.report.compare import write_comparison

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH"),
]
# Blink's numbers for prefers-color-scheme.
SCHEMES = {"light": 1, "dark": 0}
# Appended to a copy of a page that a frame of some width shows: tells the frame's page what the browser made of it.
PROBE = """<script>addEventListener('load', () => {
  const all = s => [...document.querySelectorAll(s)];
  all('details').forEach(d => d.open = true);
  const beyond = all('body *').filter(e => !e.closest('.scroll, .player, .rows, pre, svg')
    && e.getBoundingClientRect().right > innerWidth + 1);
  // Whoever comes by keyboard reaches every player and every table that scrolls; a focus on what is cut off of a
  // player does not move its button away.
  const reached = e => { e.focus(); return document.activeElement === e; };
  const moved = e => { e.scrollLeft = 50; return e.scrollLeft; };
  const deaf = all('audio').filter(a => !reached(a) || moved(a.closest('.player')));
  const stuck = all('.scroll').filter(e => !reached(e));
  const asked = performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:'));
  setTimeout(() => parent.postMessage(JSON.stringify({inner: innerWidth,
    unreached: deaf.length + stuck.length, outside: asked.length,
    width: document.documentElement.scrollWidth, beyond: beyond.map(e => e.outerHTML.slice(0, 80)),
    broken: all('img').filter(i => !i.naturalWidth).length,
    silent: all('audio').filter(a => a.error || !(a.duration > 0)).length}), '*'), 3000)
})</script>"""
# A window is never narrower than 500 px; a frame is.
FRAME = """<!doctype html><title></title><script>onmessage = e => {document.title = e.data}</script>
<iframe width=%d height=900 style="border:0" src="%s"></iframe>"""


def browse(page: Path, home: Path, *flags: str) -> str:
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        f"--user-data-dir={home}", *flags, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def pages(folder: Path) -> list[Path]:
    other = folder / "other"
    shutil.copytree(folder, other)
    return [write_report(folder), write_comparison(folder, other, folder / "compare.html")]


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_off_and_all_is_read(folder, tmp_path_factory, width):
    home = tmp_path_factory.mktemp("home")
    for page in pages(folder):
        copy, frame = (page.with_suffix(f".{name}.html") for name in ("copy", "frame"))
        copy.write_text(page.read_text() + PROBE)
        frame.write_text(FRAME % (width, copy.name))
        flags = ("--window-size=1400,1000", "--dump-dom", "--virtual-time-budget=15000")
        said = re.search("<title>(.*?)</title>", browse(frame, home, *flags), re.S)[1]
        found = json.loads(html.unescape(said))
        assert found["inner"] == width and found["width"] <= width, found
        assert found["unreached"] == found["outside"] == 0, found
        assert found["beyond"] == [] and found["broken"] == 0 and found["silent"] == 0, found


@pytest.mark.parametrize("scheme", list(SCHEMES))
@pytest.mark.parametrize("width", [1280, 400])
def test_screenshots_are_light_and_dark(folder, tmp_path_factory, scheme, width):
    home = tmp_path_factory.mktemp("home")
    for page in pages(folder):
        picture = page.with_name(f"{page.stem}-{width}-{scheme}.png")
        flags = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
        browse(page, home, flags, f"--window-size={width},4000", f"--screenshot={picture}")
        with Image.open(picture) as seen:
            assert seen.size == (width, 4000)
            paper, shades = seen.convert("L").getpixel((2, 2)), seen.convert("L").histogram()
        assert paper > 200 if scheme == "light" else paper < 50
        ink = sum(shades[:100] if scheme == "light" else shades[160:])
        assert ink > 3000, "words are to be seen"
