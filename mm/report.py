"""The page that shows what a run has learned: one HTML file without scripts or outside references.

It is built from the files of the run's folder alone, so that it can be built again; what a run has
not (a tokenizer's run has no pictures) is left out with a word.
"""

import base64
import html
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from mm.evals import pictures

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#141820;max-width:1280px;margin:2rem auto;
padding:0 1rem} h1{font-size:1.7rem;margin-bottom:.2rem} h2{font-size:1.2rem;margin:2.4rem 0 .4rem}
p.note,small{color:#5a6372} p.note{margin:.2rem 0 .8rem;max-width:60rem} .scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums} th{text-align:left}
th,td{padding:.25rem .7rem;border-bottom:1px solid #e4e7ec;vertical-align:top;white-space:nowrap}
td.n{text-align:right} .grid td,.grid th{padding:.5rem} .grid td.given{background:#f4f6f9}
.tiles{display:flex;flex-wrap:wrap;gap:5px;width:346px;white-space:normal}
.tile{width:60px;border:2px solid transparent;border-radius:4px;font-size:11px;line-height:1.25}
.tile.wrong{border-color:#d64032} .tile img{width:60px;height:60px;display:block}
.tile audio{width:60px;height:24px} .charts{display:flex;flex-wrap:wrap;gap:1.2rem}
pre{background:#f4f6f9;padding:1rem;overflow-x:auto;font-size:12px}
svg text{font:11px system-ui;fill:#5a6372}
"""


def write_report(folder: Path) -> Path:
    """Writes `folder`/report/index.html (and any_to_any.png beside it) and returns its path.

    Reads results.json, config.json, metrics.jsonl and samples/ where they are there and readable.
    """
    results, settings = _json(folder / "results.json"), _json(folder / "config.json")
    settings = settings.get("experiment", settings)
    known = ("any_to_any", "retrieval", "judge", "tokenizer", "train")
    others = {k: v for k, v in results.items() if k not in known}
    (folder / "report").mkdir(parents=True, exist_ok=True)
    name = html.escape(str(settings.get("name", folder.name)))
    sections = (
        ("Any to any", _grid(folder), "samples"),
        ("Generation", _generation(results.get("any_to_any", {})), "generation figures"),
        ("Facts", _facts(results.get("any_to_any", {})), "facts"),
        ("Retrieval", _retrieval(results.get("retrieval", {})), "retrieval figures"),
        ("Judges", _plain(results.get("judge", {})), "judges"),
        ("Tokenizers", _plain(results.get("tokenizer", {})), "tokenizers"),
        ("Other figures", _listed(others), "other figures"),
        (
            "Training",
            _listed(results.get("train", {})),
            "training figures",
        ),
        ("Losses", _curves(folder / "metrics.jsonl"), "metrics"),
    )
    missing = [what for _, body, what in sections if not body]
    body = "".join(f"<h2>{title}</h2>{text}" for title, text, _ in sections if text)
    if missing:
        body += f'<p class="note">This run has no {", ".join(missing)}.</p>'
    shown = html.escape(json.dumps(settings, indent=1))
    body += f"<h2>Settings</h2><details><summary>config.json</summary><pre>{shown}</pre></details>"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style><h1>{name}</h1>{_headline(results)}{body}</html>\n"
    )
    path = folder / "report" / "index.html"
    path.write_text(page)
    return path


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where there is none: a report shows what there is."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _headline(results: dict[str, Any]) -> str:
    train = results.get("train", {})
    known = (("steps", "steps"), ("seconds", "s of training"), ("parameters", "parameters"))
    parts = [f"{_number(train[k])} {word}" for k, word in known if train.get(k) is not None]
    return f'<p class="note">{", ".join(parts)}</p>' if parts else ""


def _grid(folder: Path) -> str:
    samples = _json(folder / "samples" / "samples.json")
    if not samples.get("rows"):
        return ""
    sheet = pictures.grid(samples, folder / "samples")
    sheet.save(folder / "report" / "any_to_any.png")
    table = pictures.cells(samples)
    names = list(dict.fromkeys(name for pair in table for name in pair))
    head = "".join(f"<th>to {html.escape(n)}</th>" for n in names)
    rows = ""
    for source in names:
        rows += f"<tr><th>from {html.escape(source)}</th>"
        for target in names:
            files, right = table.get((source, target), ([], []))
            tiles = "".join(
                _tile(folder / "samples" / f, ok) for f, ok in zip(files, right, strict=True)
            )
            mark = ' class="given"' if source == target else ""
            rows += f'<td{mark}><div class="tiles">{tiles or "&ndash;"}</div></td>'
        rows += "</tr>"
    note = (
        "Unselected examples of the test split. Each row starts from the inputs on the diagonal, "
        "which are real; the other cells were generated from them, tile by tile. A red frame: the "
        "judge recognises something else."
    )
    return (
        f'<p class="note">{note}</p><div class="scroll"><table class="grid">'
        f"<tr><th></th>{head}</tr>{rows}</table></div>"
    )


def _tile(path: Path, right: bool) -> str:
    mark = "tile" if right else "tile wrong"
    try:
        if path.suffix in pictures.PICTURES:
            body = f'<img alt="" src="{_png(Image.open(path))}">'
        elif path.suffix in pictures.SOUNDS:
            picture = pictures.spectrogram(pictures.waveform(path))
            sound = _data(path.read_bytes(), "audio/" + path.suffix[1:])
            body = f'<img alt="" src="{_png(picture)}"><audio controls src="{sound}"></audio>'
        else:
            body = html.escape(path.read_text())
    except (OSError, RuntimeError):  # a file that was moved or cut: the page stands without it
        body = "(unreadable)"
    return f'<div class="{mark}">{body}</div>'


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return _data(buffer.getvalue(), "image/png")


def _number(value: Any) -> str:
    """Integers with separators, floats with the digits that matter."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "&ndash;"}[value]
    if isinstance(value, list):
        return "[" + ", ".join(map(_number, value)) + "]"
    if isinstance(value, int) or (isinstance(value, float) and abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.3g}" if isinstance(value, float) else html.escape(str(value))


def _percent(value: float | None, interval: Any = None) -> str:
    if value is None:
        return "&ndash;"
    between = " <small>[{:.1f}, {:.1f}]</small>".format(*(100 * x for x in interval or (0, 0)))
    return f"{100 * value:.1f}{between if interval else ''}"


def _beside(cell: dict[str, Any], *figures: str) -> str:
    """The first of `figures` that the cell has, and the same one of real data."""
    figure = next((f for f in figures if f in cell), figures[0])
    return f"{_number(cell.get(figure))} <small>/ {_number(cell.get(figure + '_real'))}</small>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], note: str = "") -> str:
    """The first cell of a row is its name; the others are numbers, already as HTML."""
    top = "".join(f"<th>{h}</th>" for h in head)
    body = ""
    for first, *rest in rows:
        body += f"<tr><td>{first}</td>" + "".join(f'<td class="n">{c}</td>' for c in rest) + "</tr>"
    text = f'<p class="note">{note}</p>' if note else ""
    return f'{text}<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def _generation(cells: dict[str, Any]) -> str:
    rows = []
    for name, cell in cells.items():
        sorts = ", ".join(cell[k] for k in ("source_rows", "target_rows") if cell.get(k))
        row = [f"{html.escape(name)} <small>{html.escape(sorts)}</small>"]
        row += [_percent(cell["accuracy"], cell["interval"]), _number(cell["inputs"])]
        row += [_beside(cell, "coverage"), _beside(cell, "diversity")]
        row += [_beside(cell, "frechet", "total_variation")]
        row += [_beside(cell, "nearest_train", "in_training")]
        for b in cell.get("baselines", {}).values():
            row.append(f"{_percent(b['accuracy'])} <small>cov. {_number(b['coverage'])}</small>")
        rows.append(row)
    head = ("", "accuracy % [95%]", "inputs", "coverage", "diversity", "Fr&eacute;chet", "nearest")
    note = (
        "After the stroke: real training rows in the place of the generated ones. Intervals are "
        "clustered by distinct input. Fr&eacute;chet distance and distance to the nearest training "
        "row are in principal components; of texts, they are total variation and the share that "
        "occurs in training. The last two columns answer without a model, by a training row of "
        "the class that nearest neighbours (of a text: a reader) take the input for."
    )
    return _table((*head, "class mean's row", "random row of class"), rows, note) if rows else ""


def _facts(cells: dict[str, Any]) -> str:
    rows = []
    for name, facts in ((n, c["facts"]) for n, c in cells.items() if "facts" in c):
        for fact, f in facts["each"].items():
            right = _percent(f["accuracy"], f["interval"])
            rows.append((html.escape(f"{name}: {fact}"), right, _percent(f["most_frequent"])))
        mean = _percent(facts["mean"], facts["interval"])
        rows.append((html.escape(f"{name}: mean"), mean, _percent(facts["mean_most_frequent"])))
    note = "What a text states against what is measured, fact by fact."
    return _table(("", "right % [95%]", "commonest value %"), rows, note) if rows else ""


def _retrieval(cells: dict[str, Any]) -> str:
    rows = []
    for name, cell in ((n, c) for n, c in cells.items() if "map" in c):
        chance = cell["chance"]
        row = [html.escape(name), _percent(cell["map"], cell["interval"]), _percent(chance["map"])]
        for k in ("r1", "r5", "r10"):
            row.append(f"{_percent(cell[k])} <small>/ {_percent(chance[k])}</small>")
        rows.append([*row, _number(cell["queries"]), _number(cell["gallery"])])
    head = ("", "mAP % [95%]", "by chance", "R@1", "R@5", "R@10", "queries", "gallery")
    return _table(head, rows, "After the stroke: a random ranking.") if rows else ""


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested figures side by side, their names joined by dots."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key in value for k, v in _flat(value[key], f"{name}.{key}").items()}


def _plain(cells: dict[str, Any]) -> str:
    """A table of named rows of figures, whatever they are."""
    cells = {k: v for k, v in cells.items() if isinstance(v, dict) and v}
    columns = list(dict.fromkeys(c for v in cells.values() for c in v))
    rows = [
        (html.escape(k), *(_number(v[c]) if c in v else "" for c in columns))
        for k, v in cells.items()
    ]
    return _table(("", *map(html.escape, columns)), rows) if rows else ""


def _listed(figures: dict[str, Any]) -> str:
    """Figures one below the other."""
    rows = [(html.escape(k[1:]), _number(v)) for k, v in _flat(figures).items()]
    return _table(("", ""), rows) if rows else ""


def _curves(path: Path) -> str:
    """A small chart for each term that is logged, with its validation values if there are any."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            values = json.loads(line)
            step = values.pop("step")
        except (ValueError, KeyError, AttributeError):  # the last line of a killed run may be cut
            continue
        for name, value in values.items():
            if value is not None and math.isfinite(value):
                series.setdefault(name, []).append((step, value))
    trained = [n for n in series if not n.startswith("validation/") and len(series[n]) > 1]
    charts = [_chart(n, series[n], series.get(f"validation/{n}", [])) for n in trained]
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _chart(name: str, train: list[tuple[int, float]], held: list[tuple[int, float]]) -> str:
    wide, high, left, top = 290, 150, 34, 22
    steps, values = zip(*train, *held, strict=True)
    low, span = min(values), (max(values) - min(values)) or 1.0

    def place(point: tuple[int, float]) -> tuple[float, float]:
        x = left + point[0] / max(steps) * (wide - left - 4)
        return round(x, 1), round(top + (1 - (point[1] - low) / span) * (high - top - 18), 1)

    curve = " ".join(f"{x},{y}" for x, y in map(place, train))
    dots = [f'<circle cx="{x}" cy="{y}" r="2.5" fill="#d64032"/>' for x, y in map(place, held)]
    title = html.escape(name) + (" (dots: validation)" if held else "")
    return (
        f'<svg width="{wide}" height="{high}" role="img"><text x="{left}" y="12">{title}</text>'
        f'<polyline fill="none" stroke="#3465a4" stroke-width="1.5" points="{curve}"/>'
        f'{"".join(dots)}<text x="0" y="{top + 6}">{max(values):.3g}</text>'
        f'<text x="0" y="{high - 18}">{low:.3g}</text>'
        f'<text x="{wide}" y="{high - 3}" text-anchor="end">step {max(steps)}</text></svg>'
    )
