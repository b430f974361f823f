"""What evaluators keep to be looked at: reconstructions, nearest neighbours, the map of embeddings."""

from typing import Any

import numpy as np

from mm.report.curves import GROUP_COLOURS
from mm.report.files import RunFiles, read_object
from mm.report.markup import escape, folded, note, percent, tile


def reconstructions(run: RunFiles) -> str:
    """Real rows and, below each, what its tokens decode to."""
    body = ""
    for path in sorted(run.folder.glob("evals/*/reconstructions.json")):
        for name, kept in read_object(path).items():
            pairs = zip(kept["real"], kept["tokenized"], strict=True)
            tiles = "".join(
                f'<div class="row">{tile(path.parent / real, "real")}{tile(path.parent / made, "tokenized")}</div>'
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
        with np.load(path, allow_pickle=False) as kept:
            names = sorted({key.partition("/")[2] for key in kept.files})
            z = {name: kept[f"z/{name}"].astype(np.float64) for name in names}
            groups = {name: kept[f"group/{name}"] for name in names}
        plane, share = principal_plane(np.concatenate(list(z.values())))
        ends = np.cumsum([0, *map(len, z.values())])
        panels = [("all kinds", plane, np.concatenate(list(groups.values())))]
        panels += [
            (name, plane[a:b], groups[name])
            for name, a, b in zip(names, ends[:-1], ends[1:], strict=True)
        ]
        low, high = plane.min(0), plane.max(0)
        body += note(
            f"Test rows as the contrast sees them, in the first two principal components of all kinds "
            f"together ({percent(share)}% of the variance). Colours and numbers are groups; a number "
            "stands at its group's mean. Where the panels agree, kinds share one space."
        )
        body += f'<div class="charts">{"".join(_panel(*p, low, high) for p in panels)}</div>'
    return body


def principal_plane(z: np.ndarray) -> tuple[np.ndarray, float]:
    """float[n, 2], rows in their first two principal components, and the share of the variance there.

    Signs are fixed (the largest loading is positive), so that a page is a function of the rows.
    """
    centred = z - z.mean(0)
    _, s, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(1)])[:, None]
    return centred @ axes.T, float((s[:2] ** 2).sum() / max((s**2).sum(), 1e-30))


def _panel(
    name: str, plane: np.ndarray, group: np.ndarray, low: np.ndarray, high: np.ndarray
) -> str:
    size, rim = 270, 12
    span = np.maximum(high - low, 1e-9)
    xy = rim + (plane - low) / span * (size - 2 * rim)
    xy[:, 1] = size - xy[:, 1]
    dots = means = ""
    for i, g in enumerate(np.unique(group)):
        own = xy[group == g]
        # One path per group: a round cap on a line of no length is a dot.
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in own)
        colour = GROUP_COLOURS[i % len(GROUP_COLOURS)]
        dots += f'<path d="{path}" stroke="{colour}" stroke-width="4" stroke-linecap="round" opacity=".6"/>'
        x, y = own.mean(0)
        means += f'<text class="group" x="{x:.1f}" y="{y + 5:.1f}">{escape(str(g))}</text>'
    return (
        f"<figure><figcaption>{escape(name)} ({len(group):,})</figcaption>"
        f'<svg viewBox="0 0 {size} {size}" role="img" aria-label="map of {escape(name)}">'
        f'<rect class="frame" x=".5" y=".5" width="{size - 1}" height="{size - 1}"/>{dots}{means}</svg></figure>'
    )
