"""What evaluators keep to be looked at: reconstructions, nearest neighbours, the map of embeddings."""

from typing import Any

import numpy as np

from mm.errors import refuse_newer
from mm.report.curves import GROUP_COLOURS
from mm.report.files import RunFiles, read_object
from mm.report.markup import escape, folded, note, percent, tile
from mm.workdir import FORMAT_VERSION


def reconstructions(run: RunFiles) -> str:
    """Real rows and, below each, what its tokens decode to."""
    body = ""
    for path in sorted(run.folder.glob("evals/*/reconstructions.json")):
        for name, kept in read_object(path).items():
            pairs = zip(kept["real"], kept["tokenized"], strict=True)
            tiles = "".join(
                f'<div class="row large">{tile(path.parent / real, "real")}{tile(path.parent / made, "tokenized")}</div>'
                for real, made in pairs
            )
            body += f'<h3>{escape(name)}</h3><div class="rows narrow">{tiles}</div>'
    return note("Unselected rows that no tokenizer was trained on.") + body if body else ""


def neighbours(run: RunFiles) -> str:
    """Per direction a few queries whose nearest row is right, and a few where it is wrong."""
    body, first = "", True
    for path in sorted(run.folder.glob("evals/*/neighbours.json")):
        directions: dict[str, list[dict[str, Any]]] = {}
        for row in read_object(path).get("rows", []):
            directions.setdefault(row["direction"], []).append(row)
        for name, rows in directions.items():
            lines = ""
            for right, title in ((True, "nearest is right"), (False, "nearest is wrong")):
                of_sort = [row for row in rows if row["right"] == right]
                lines += f"<h3>{title}{'' if of_sort else ': none'}</h3><div class='rows'>"
                lines += "".join(_found(path.parent, row) for row in of_sort) + "</div>"
            share = run.of(path.parent.name).get(name, {}).get("r1")
            said = "" if share is None else f" <small>(first right: {percent(share)}%)</small>"
            body += folded(f"{escape(name.replace('->', ' to '))}{said}", lines, opened=first)
            first = False
    text = (
        "The query, then its nearest rows of the other kind in the test gallery, nearest first. A red "
        "frame: of another group. Queries are the first of each sort in random order."
    )
    return note(text) + body if body else ""


def _found(folder: Any, row: dict[str, Any]) -> str:
    query = "".join(
        tile(folder / file, escape(str(row["group"])), player=False) for file in row["query"]
    )
    found = "".join(
        tile(folder / file, escape(str(group)), group != row["group"], player=False)
        for file, group in zip(row["found"], row["groups"], strict=True)
    )
    return f'<div class="row">{query}<span class="arrow">&rarr;</span>{found}</div>'


def embedding_map(run: RunFiles) -> str:
    """The embeddings of every kind in the plane of their first two principal components."""
    body = ""
    for path in sorted(run.folder.glob("evals/*/embeddings.npz")):
        with path.open("rb") as f, np.load(f, allow_pickle=False) as kept:
            written = int(kept["format_version"]) if "format_version" in kept.files else 1
            refuse_newer(path, written, FORMAT_VERSION)
            names = sorted({key.partition("/")[2] for key in kept.files if "/" in key})
            z = {name: kept[f"z/{name}"].astype(np.float64) for name in names}
            groups = {name: kept[f"group/{name}"] for name in names}
        kind = np.repeat(names, [len(z[name]) for name in names])
        plane, share = principal_plane(np.concatenate([z[n] for n in names]))
        legend = "".join(f"<span>{_dot(i)}{escape(n)}</span>" for i, n in enumerate(names))
        title = f"kinds, {percent(share)}% of the variance"
        panels = _panel(title, plane, kind, plane, f'<p class="legend">{legend}</p>')
        own, share = principal_plane(np.concatenate([z[n] - z[n].mean(0) for n in names]))
        panels += "".join(_panel(n, own[kind == n], groups[n], own) for n in names)
        body += note(
            "Test rows as the contrast sees them, in their first two principal components. First panel: where each kind "
            "lies. The others: each kind about its own mean, in one plane that they share "
            f"({percent(share)}% of what is left); colours and numbers are groups, a number stands at its group's "
            "mean. Where these panels agree, the kinds mean the same."
        )
        body += f'<div class="charts">{panels}</div>'
    return body


def principal_plane(z: np.ndarray) -> tuple[np.ndarray, float]:
    """float[n, 2], rows in their first two principal components, and the share of the variance there.

    Signs are fixed (the largest loading is positive), so that a page is a function of the rows.
    """
    centred = z - z.mean(0)
    _, s, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(1)])[:, None]
    return centred @ axes.T, float((s[:2] ** 2).sum() / max((s**2).sum(), 1e-30))


def _dot(i: int) -> str:
    return f'<i class="dot" style="background:{GROUP_COLOURS[i % len(GROUP_COLOURS)]}"></i>'


def _panel(
    title: str, plane: np.ndarray, group: np.ndarray, whole: np.ndarray, legend: str = ""
) -> str:
    """Points float[n, 2], coloured by group, in the frame of the points `whole`.

    Args:
      legend: HTML that names the groups; without it each has its name at its mean.
    """
    size, rim = 270, 14
    low, span = whole.min(0), np.maximum(np.ptp(whole, axis=0), 1e-9)
    xy = rim + (plane - low) / span * (size - 2 * rim)
    xy[:, 1] = size - xy[:, 1]
    dots = means = ""
    for i, g in enumerate(np.unique(group)):
        own = xy[group == g]
        # One path per group: a round cap on a line of no length is a dot.
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in own)
        colour = GROUP_COLOURS[i % len(GROUP_COLOURS)]
        dots += f'<path d="{path}" stroke="{colour}" stroke-width="4" stroke-linecap="round" opacity=".6"/>'
        name, (x, y) = escape(str(g)), own.mean(0)
        x = min(max(x, 6 * len(name)), size - 6 * len(name))  # long names stay inside
        if not legend:
            means += f'<text class="group" x="{x:.1f}" y="{y + 5:.1f}">{name}</text>'
    return (
        f"<figure><figcaption>{escape(title)} <small>{len(group):,} rows</small></figcaption>"
        f'<svg viewBox="0 0 {size} {size}" role="img" aria-label="map of {escape(title)}">'
        f'<rect class="frame" x=".5" y=".5" width="{size - 1}" height="{size - 1}"/>{dots}{means}</svg>{legend}</figure>'
    )
