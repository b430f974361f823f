"""Two runs on one page: every figure, the curves one over the other, and what was asked for."""

from typing import Any

from etils.epath import Path

from mm import config
from mm.errors import UserError
from mm.report import curves
from mm.report.files import RunFiles, read_run
from mm.report.markup import direction, escape, folded, note, number, table
from mm.report.page import headline, made, named, notices, write
from mm.report.settings import show
from mm.report.tables import Figure, flat, is_number, shown


def write_comparison(a: Path, b: Path, out: Path) -> Path:
    """Writes the page that compares the runs in folders `a` and `b`, and returns its path.

    Raises:
      UserError: one of them is no run's folder, or `out` cannot be written.
    """
    runs = existing_run(a), existing_run(b)
    names = [named(run) for run in runs]
    if names[0] == names[1]:
        names = [str(run.folder) for run in runs]
    said = legend = ""
    for mark, title, run in zip("AB", map(escape, names), runs, strict=True):
        said += f"<h3>{mark}: {title}</h3>{made(headline, run)}{made(notices, run)}"
        legend += f'<span><i class="{mark.lower()}"></i>{mark}: {title}</span>'
    sections = (
        ("Figures", made(_figures, *runs)),
        ("Curves", f'<p class="legend">{legend}</p>{made(_curves, *runs)}'),
        ("Settings", made(_settings, *runs)),
        ("Versions and machine", made(_where, *runs)),
    )
    try:
        return write(out, f"{names[0]} and {names[1]}", said, sections)
    except OSError as e:
        raise UserError(f"--out {out}: cannot be written ({e.strerror}); name another file") from e


def existing_run(folder: Path) -> RunFiles:
    """A run's files, as far as they can be read. Raises UserError where `folder` holds no run."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the --workdir of a run")
    if (folder / "sweep.json").exists():
        runs = ", ".join(p.parent.name for p in sorted(folder.glob("*/config.json")))
        raise UserError(f"{folder}: holds a sweep; name one of its runs: {runs}")
    if not (folder / "config.json").exists():
        raise UserError(
            f"{folder}: holds no run (no config.json); name the --workdir of one that was started"
        )
    return read_run(folder)


def _figures(a: RunFiles, b: RunFiles) -> str:
    """The figures whose intervals lie apart, those that overlap, and all by evaluator; all but the first folded."""
    figures = flat(a.results), flat(b.results)
    pairs = {n: (figures[0].get(n, NONE), figures[1].get(n, NONE)) for f in figures for n in f}
    if not pairs:
        return note("Neither run has results yet.")
    judged = {name: pair for name, pair in pairs.items() if all(f.interval for f in pair)}
    apart = [name for name, pair in judged.items() if not overlap(*pair)]
    body = note(
        f"Of {len(judged)} figures with intervals in both runs, {len(apart)} lie apart: their 95% intervals do not "
        "overlap. Intervals are over test items, not over seeds; one run each says nothing of those."
    )
    body += table(HEAD, (_row(name, pairs[name]) for name in apart)) if apart else ""
    rest = (_row(name, pair) for name, pair in judged.items() if name not in apart)
    body += folded(f"{len(judged) - len(apart)} that overlap", table(HEAD, rest)) if judged else ""
    for part in dict.fromkeys(name.partition(".")[0] for name in pairs):
        own = {n: p for n, p in pairs.items() if n.startswith(f"{part}.") and not _recorded(n)}
        changed = sum(x.value != y.value for x, y in own.values())
        title = f"{escape(part)}: all {len(own)} figures, {changed} differ"
        of_part = (_row(name, pair, len(part) + 1) for name, pair in own.items())
        body += folded(title, table(HEAD, of_part)) if own else ""
    return body


NONE = Figure(None)
HEAD = ("", "B &minus; A", "A", "B")


def overlap(a: Figure, b: Figure) -> bool:
    """Whether the intervals of two figures have a point in common."""
    assert a.interval and b.interval
    return max(a.interval[0], b.interval[0]) <= min(a.interval[1], b.interval[1])


def _recorded(name: str) -> bool:
    """Versions and machine have a section of their own."""
    return name.startswith(("train.versions.", "train.machine."))


def _row(name: str, pair: tuple[Figure, Figure], skip: int = 0) -> tuple[str, str, str, str]:
    return direction(name[skip:]), _difference(*pair), shown(pair[0]), shown(pair[1])


def _difference(a: Figure, b: Figure) -> str:
    if not (is_number(a.value) and is_number(b.value)):
        return "" if a.value == b.value else "differs"
    change = b.value - a.value
    return "0" if change == 0 else f"{'+' if change > 0 else '&minus;'}{number(abs(change))}"


def _curves(a: RunFiles, b: RunFiles) -> str:
    return curves.overlaid(a.curves, b.curves) or note("Neither run has logged a step.")


def _settings(a: RunFiles, b: RunFiles) -> str:
    return _differences(a.settings, b.settings, "The settings are the same.")


def _where(a: RunFiles, b: RunFiles) -> str:
    parts = ("versions", "machine")
    here, there = ({part: run.train.get(part) for part in parts} for run in (a, b))
    return _differences(here, there, "They are the same.")


def _differences(a: Any, b: Any, none: str) -> str:
    rows = [
        (escape(path), show(old), show(new))
        for path, (old, new) in config.differences(a, b).items()
    ]
    return table(("", "A", "B"), rows, words=True) if rows else note(none)
