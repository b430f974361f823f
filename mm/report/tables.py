"""Every figure of results.json, with its interval and what it is to be compared with."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any

from mm.report.files import RunFiles, read_object
from mm.report.markup import direction, escape, folded, note, number, percent, table

KNOWN = ("any_to_any", "retrieval", "judge", "tokenizer", "train")
FIRST = ("accuracy", "map", "loss", "unexplained", "exact", "real")  # what an evaluator is for
MAIN = ("accuracy", "map", "mean")  # the figures that a plain `interval` beside them belongs to


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95% interval, if it has one."""

    value: Any
    interval: tuple[float, float] | None = None


def flat(results: Any, name: str = "") -> dict[str, Figure]:
    """Nested results as named figures, names joined by dots; intervals go to what they are of."""
    found: dict[str, Figure] = {}
    for key, value in results.items():
        path = f"{name}.{key}" if name else str(key)
        if isinstance(value, dict):
            found |= flat(value, path)
        elif key != "interval" and not key.endswith("_interval"):
            interval = results.get(f"{key}_interval")
            if interval is None and key in MAIN:
                interval = results.get("interval")
            found[path] = Figure(value, tuple(interval) if interval else None)
    return found


def main_figures(results: Mapping[str, Any]) -> dict[str, tuple[float, int]]:
    """Of each evaluator its main figure (`FIRST`, or else its first one): "evaluator/figure" -> (mean, of how many)."""
    main: dict[str, tuple[float, int]] = {}
    for name, figures in results.items():
        if name == "train" or not isinstance(figures, dict):
            continue
        cells = [v for v in figures.values() if isinstance(v, dict)] or [figures]
        known = dict.fromkeys(k for cell in cells for k, v in cell.items() if is_number(v))
        first = next((k for k in (*FIRST, *known) if k in known), None)
        values = [cell[first] for cell in cells if is_number(cell.get(first))]
        if first is not None:
            main[f"{name}/{first}"] = statistics.fmean(values), len(values)
    return main


def is_number(value: Any) -> bool:
    """Whether it is one; yes and no are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def generation(run: RunFiles) -> str:
    """Of every pair: right, varied, new; beside real rows and two baselines."""
    rows = []
    for name, cell in run.of("any_to_any").items():
        sorts = ", ".join(cell[k] for k in ("source_rows", "target_rows") if cell.get(k))
        row = [f"{direction(name)} <small>{escape(sorts)}</small>"]
        row += [percent(cell["accuracy"], cell["interval"]), number(cell["inputs"])]
        row += [_beside(cell, "coverage"), _beside(cell, "diversity")]
        row += [_beside(cell, "frechet", "total_variation")]
        row += [_beside(cell, "nearest_train", "in_training")]
        for b in cell.get("baselines", {}).values():
            coverage = f"<br><small>coverage {number(b['coverage'])}</small>"
            row.append(percent(b["accuracy"], b.get("interval")) + coverage)
        rows.append(row)
    head = ("", "right % [95%]", "inputs", "coverage", "diversity", "Fr&eacute;chet", "nearest")
    text = (
        "After the stroke: real training rows in the place of the generated ones. Intervals are "
        "clustered by distinct input. Fr&eacute;chet distance and distance to the nearest training "
        "row are in principal components; of texts, they are total variation and the share that "
        "occurs in training. The last two columns answer without a model, by a training row of "
        "the class that nearest neighbours (of a text: a reader) take the input for."
    )
    if not rows:
        return ""
    return note(text) + table((*head, "class mean's row", "random row of class"), rows)


def facts(run: RunFiles) -> str:
    """What generated rows state, fact by fact."""
    cells, rows = run.of("any_to_any"), []
    for name, found in ((n, c["facts"]) for n, c in cells.items() if "facts" in c):
        for fact, f in found["each"].items():
            right = percent(f["accuracy"], f["interval"])
            rows.append((direction(f"{name}: {fact}"), right, percent(f["most_frequent"])))
        mean = percent(found["mean"], found["interval"])
        rows.append((direction(f"{name}: mean"), mean, percent(found["mean_most_frequent"])))
    text = "What a text states against what is measured, fact by fact."
    head = ("", "right % [95%]", "commonest value %")
    return note(text) + table(head, rows) if rows else ""


def retrieval(run: RunFiles) -> str:
    """Of every direction: mean average precision and recall, beside a random ranking."""
    rows = []
    for name, cell in ((n, c) for n, c in run.of("retrieval").items() if "map" in c):
        chance = cell["chance"]
        row = [direction(name), percent(cell["map"], cell["interval"]), percent(chance["map"])]
        for k in ("r1", "r5", "r10"):
            row.append(f"{percent(cell[k])} <small>/ {percent(chance[k])}</small>")
        rows.append([*row, number(cell["queries"]), number(cell["gallery"])])
    head = ("", "mAP % [95%]", "by chance", "R@1", "R@5", "R@10", "queries", "gallery")
    return note("After the stroke: a random ranking.") + table(head, rows) if rows else ""


def judges(run: RunFiles) -> str:
    """What the judges of a run get right."""
    text = (
        "How often the judges are right on real test rows, as they are and through the tokenizer: "
        "the second is what a perfect model of the tokens would reach."
    )
    cells = {k: v for k, v in run.of("judge").items() if isinstance(v, dict) and v}
    rows = []
    for name, cell in cells.items():
        shares = (percent(cell.get(k), cell.get(f"{k}_interval")) for k in ("real", "tokenized"))
        rows.append((escape(name), *shares, number(cell.get("items"))))
    head = ("", "real % [95%]", "tokenized % [95%]", "items")
    return note(text) + table(head, rows) if rows else ""


def confusion(run: RunFiles) -> str:
    """What a judge that was trained takes for what."""
    body = ""
    for path in sorted(run.folder.glob("evals/*/confusion.json")):
        counts = read_object(path)["counts"]
        names = [str(i) for i in range(len(counts))]
        rows = [
            (
                name,
                *(
                    f"<b>{n:,}</b>" if i == j else (f"{n:,}" if n else "")
                    for j, n in enumerate(row)
                ),
            )
            for i, (name, row) in enumerate(zip(names, counts, strict=True))
        ]
        body += f"<h3>{escape(path.parent.name)}</h3>{table(('', *names), rows)}"
    return note("A line for each group, a column for each answer.") + body if body else ""


def tokenizers(run: RunFiles) -> str:
    """What the tokenizers lose, and how evenly they use their codes."""
    text = (
        "Usage is the share of the codebook that occurs, perplexity how many codes would occur as evenly; mse and "
        "psnr_db are of the raw values, unexplained is the error's share of the variance in the features that are "
        "compared; exact: how many come back as they were."
    )
    found = _plain(run.of("tokenizer"))
    return note(text) + found if found else ""


def others(run: RunFiles) -> str:
    """Results that no other section knows, and those of a known name but a plain form."""
    rest = {k: v for k, v in run.results.items() if k not in KNOWN}
    plain = {k: v for k, v in run.of("judge").items() if not isinstance(v, dict)}
    return listed(rest | ({"judge": plain} if plain else {}))


def training(run: RunFiles) -> str:
    """Steps, time, speed, size."""
    apart = ("versions", "machine")  # have a section of their own
    return listed({k: v for k, v in run.train.items() if k not in apart})


def everything(run: RunFiles) -> str:
    """All of results.json, one figure a line, unrounded."""
    rows = []
    for name, figure in flat(run.results).items():
        between = "" if figure.interval is None else number(list(figure.interval))
        exact = f"{figure.value:.6g}" if isinstance(figure.value, float) else number(figure.value)
        rows.append((direction(name), exact, between))
    body = table(("", "value", "95% interval"), rows)
    return folded(f"{len(rows)} figures of results.json", body) if rows else ""


def listed(figures: dict[str, Any]) -> str:
    """Figures one below the other, with intervals."""
    found = flat(figures)
    rows = [(direction(name), shown(figure)) for name, figure in found.items()]
    between = any(figure.interval for figure in found.values())
    return table(("", "value [95%]" if between else "value"), rows) if rows else ""


def shown(figure: Figure) -> str:
    """A cell: the value, and its interval."""
    between = f" <small>{number(list(figure.interval))}</small>" if figure.interval else ""
    return number(figure.value) + between


def _beside(cell: dict[str, Any], *figures: str) -> str:
    """The first of `figures` that the cell has, and the same one of real data."""
    figure = next((f for f in figures if f in cell), figures[0])
    return f"{number(cell.get(figure))} <small>/ {number(cell.get(figure + '_real'))}</small>"


def _plain(cells: dict[str, Any]) -> str:
    """A table of named rows of figures, whatever they are."""
    cells = {k: v for k, v in cells.items() if isinstance(v, dict) and v}
    columns = list(dict.fromkeys(c for v in cells.values() for c in v))
    rows = [
        (escape(k), *(number(v[c]) if c in v else "" for c in columns)) for k, v in cells.items()
    ]
    return table(("", *map(escape, columns)), rows) if rows else ""
