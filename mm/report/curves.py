"""What was logged, as small charts in SVG."""

import dataclasses
from collections.abc import Sequence

from mm.report.files import Curves, RunFiles
from mm.report.markup import escape, note

GROUP_COLOURS = (
    "#4e79a7", "#f28e2b", "#d64a4f", "#3aa69b", "#59a14f", "#c9a227", "#a26aa0", "#ff7f9d",
    "#9c755f", "#8a8f98",
)  # fmt: skip

Points = list[tuple[int, float]]


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """Points of one curve.

    Attributes:
      mark: `a` or `b` (the two line styles), or `dot`.
    """

    points: Points
    mark: str = "a"


def losses(run: RunFiles) -> str:
    """A chart for each loss term, metric and rate; dots are validation."""
    trained = [n for n in run.curves if not n.startswith(("validation/", "cosine/"))]
    trained = [n for n in trained if n != "skipped" or any(v != 0 for _, v in run.curves[n])]
    held = {n: run.curves.get(f"validation/{n}", []) for n in trained}
    charts = [chart(n, [Line(run.curves[n]), Line(held[n], "dot")]) for n in trained]
    known = {f"validation/{n}" for n in trained}
    alone = [n for n in run.curves if n.startswith("validation/") and n not in known]
    charts += [chart(n, [Line(run.curves[n], "dot")]) for n in alone]
    said = "By step. Lines: training, as logged. Dots: validation. The last of each stands in the title."
    said = note(said + _other_batches(run)) if any(held.values()) else note("By step, as logged.")
    return f'{said}<div class="charts">{"".join(charts)}</div>' if charts else ""


def _other_batches(run: RunFiles) -> str:
    """A word on terms that cannot be compared between training and validation."""
    trained = (run.settings.get("data") or {}).get("batch_size")
    named = [e for e in run.settings.get("evals") or () if e.get("name") == "validation"]
    sizes = {e["batch_size"] for e in named if "batch_size" in e} - {trained}
    if not (trained and sizes):
        return ""
    return (
        f" Batches are of {trained} examples in training, of {sizes.pop()} in validation: terms that compare the "
        "examples of a batch with each other, as contrast does, are larger in the larger one."
    )


def cosines(run: RunFiles) -> str:
    """Between the gradients of groups of loss terms, where they were logged."""
    logged = {n: p for n, p in run.curves.items() if n.startswith("cosine/")}
    charts = [chart(n.partition("/")[2], [Line(p)], bounds=(-1.0, 1.0)) for n, p in logged.items()]
    text = (
        "Cosine between the gradients of two groups of terms, as weighted in the loss: above 0 they pull the same "
        "way, below 0 against each other."
    )
    return f'{note(text)}<div class="charts">{"".join(charts)}</div>' if charts else ""


def overlaid(a: Curves, b: Curves) -> str:
    """The curves of two runs in the same charts; names that only one of them has stand alone."""
    names = [n for n in [*a, *(n for n in b if n not in a)] if n != "skipped"]
    charts = [chart(n, [Line(a.get(n, [])), Line(b.get(n, []), "b")]) for n in names]
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def chart(title: str, lines: Sequence[Line], bounds: tuple[float, float] | None = None) -> str:
    """One figure.

    Args:
      lines: at least one with points; steps begin at 0.
      bounds: of the values; None = those of the points.
    """
    wide, high, left, right, top, foot = 290, 160, 50, 8, 8, 22
    points = [p for line in lines for p in line.points]
    last = max(step for step, _ in points) or 1
    low, most = bounds or (min(v for _, v in points), max(v for _, v in points))
    if low == most:
        low, most = low - (abs(low) or 1) / 2, most + (abs(most) or 1) / 2

    def x(step: float) -> float:
        return round(left + step / last * (wide - left - right), 1)

    def y(value: float) -> float:
        return round(top + (most - value) / (most - low) * (high - top - foot), 1)

    body = ""
    for value in (low, (low + most) / 2, most):
        body += f'<path class="frame" d="M{left} {y(value)}H{wide - right}"/>'
        body += f'<text x="{left - 5}" y="{y(value) + 4}" text-anchor="end">{_short(value)}</text>'
    for step, anchor in ((0, "middle"), (last, "end")):
        body += f'<text x="{x(step)}" y="{high - 5}" text-anchor="{anchor}">{step:,}</text>'
    for line in lines:
        if line.mark == "dot" or len(line.points) == 1:
            dots = ((x(s), y(v)) for s, v in line.points)
            body += "".join(f'<circle class="dot" cx="{i}" cy="{j}" r="3"/>' for i, j in dots)
        elif line.points:
            path = " ".join(f"{x(s)},{y(v)}" for s, v in line.points)
            body += f'<polyline class="{line.mark}" points="{path}"/>'
    ends = ", ".join(f"{line.points[-1][1]:.3g}" for line in lines if line.points)
    name = escape(title)
    return (
        f"<figure><figcaption>{name} <small>last: {ends}</small></figcaption>"
        f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{name} by step">{body}</svg></figure>'
    )


def _short(value: float) -> str:
    """A value at an axis: few characters."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"
