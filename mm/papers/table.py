"""What is known of every paper, and docs/papers.md."""

from collections.abc import Iterator, Mapping
from typing import Any

from etils.epath import Path

from mm import parts, workdir
from mm.errors import UserError, nearest
from mm.papers import Paper

CONFIGS, RESULTS = Path("configs/papers"), Path("docs/results/papers")
PAGE = Path("docs/papers.md")
HEAD = """# Published systems, tried here

Each is a config in `configs/papers/` of a few lines; `python -m mm.papers run NAME` makes its section anew, `all` every one.
Data are toys or ship with mm: figures say whether a claim shows at this scale, not what the published systems reach. They
are means over seeds (standard deviation in brackets); every experiment has a baseline beside it that must fail. Rows are
those of the project's acceptance table; M: the bar was measured before by other code, D: exact by derivation, U: the bar is
a proposal of this project.
"""


def names() -> list[str]:
    """All papers that there are, by file."""
    return sorted(p.stem for p in CONFIGS.glob("*.py"))


def opened(name: str) -> Any:
    """A paper's file as a module. Raises UserError where there is none."""
    if name not in names():
        raise UserError(f"no paper {name!r} in {CONFIGS}{nearest(name, names())}")
    return parts.load_file(str(CONFIGS / f"{name}.py"))


def row(name: str) -> dict[str, Any]:
    """A paper and what is known of it; `verdict` is `not run` where nothing is."""
    paper: Paper = opened(name).PAPER
    path = RESULTS / f"{name}.json"
    kept = workdir.read_json(path) if path.exists() else {}
    about = {"name": name, "title": paper.title, "numbers": list(paper.numbers), "row": paper.row, "status": paper.status}  # fmt: skip
    return about | {"verdict": "not run", "clauses": {}, "figures": {}, "seconds": None} | kept


def figures(kept: Mapping[str, Any]) -> Iterator[str]:
    """A line per clause, and one with all figures."""
    for clause, came in kept["clauses"].items():
        yield f"{'yes' if came else 'NO '}  {clause}"
    yield ", ".join(f"{name} {_figure(value)}" for name, value in kept["figures"].items())


def _figure(value: Any) -> str:
    return f"{value[0]:.3g} ({value[1]:.2g})" if isinstance(value, list) else f"{value:.3g}"


def write() -> None:
    """Writes docs/papers.md from the files and what was kept."""
    rows = [row(name) for name in names()]
    lines = [HEAD, "| system | row | verdict | seeds | s |", "|---|---|---|---|---|"]
    lines += [f"| [{r['title']}](#{r['name']}) | {r['row']} {r['status']} | {r['verdict']} | {r.get('seeds', '')} | {r['seconds'] or ''} |" for r in rows]  # fmt: skip
    for r in rows:
        paper: Paper = opened(r["name"]).PAPER
        lines += ["", f"## {r['name']}", "", f"{paper.title} (row {paper.row}). {paper.formula}", "", f"Expected: {paper.expected}"]  # fmt: skip
        lines += ["", f"`python -m mm.papers run {r['name']}`: **{r['verdict']}**"]
        if r["clauses"]:
            machine = r["machine"]
            lines[-1] += f" ({r['seeds']} seeds, {r['seconds']:.0f} s, {r['date']}, {machine['cores']} cores, {machine['cpu']})"  # fmt: skip
            lines += ["", *(f"- {line}" for line in figures(r))]
    workdir.write_text(PAGE, "\n".join(lines) + "\n")
