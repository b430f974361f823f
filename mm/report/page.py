"""The page of one run: which sections, in which order, and what is said where something is missing."""

import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from etils.epath import Path

import mm
from mm import progress, workdir
from mm.errors import Newer
from mm.report import curves, settings, sheet, shown, tables
from mm.report.files import Damaged, RunFiles, read_run
from mm.report.markup import escape, note, number
from mm.report.style import STYLE

Why = Callable[[RunFiles], str]
"""Why a run has nothing for a section; "" = not every run has it."""


def _file(name: str, otherwise: str) -> Why:
    """It comes from a file of the run's folder."""
    return lambda run: f"{name} cannot be read" if name in run.damaged else otherwise


def _evaluator(name: str) -> Why:
    """It comes from the evaluator of this name."""

    def why(run: RunFiles) -> str:
        evals = run.settings.get("evals")
        names = [e.get("name") for e in evals or () if isinstance(e, dict)]
        if isinstance(evals, list) and name not in names:
            return f"config.evals has no evaluator {name!r}"
        if "results.json" in run.damaged:
            return "results.json cannot be read"
        if not run.results:
            return "evaluators run when training is over"
        return "asked for, but not in the folder: of another version, or removed; --mode=evaluate makes it anew"

    return why


_LOGGED = _file("metrics.jsonl", "no step has been logged")
_FINISHED = _file("results.json", "recorded when training is over")

SECTIONS: tuple[tuple[str, Callable[[RunFiles], str], Why], ...] = (
    ("Any to any", sheet.any_to_any, _evaluator("any_to_any")),
    ("Real, tokenized, generated", sheet.beside_real, _evaluator("any_to_any")),
    ("Generation", tables.generation, _evaluator("any_to_any")),
    ("Facts", tables.facts, lambda run: ""),
    ("Retrieval", tables.retrieval, _evaluator("retrieval")),
    ("Nearest neighbours", shown.neighbours, _evaluator("retrieval")),
    ("Map of embeddings", shown.embedding_map, _evaluator("retrieval")),
    ("Reconstructions", shown.reconstructions, _evaluator("tokenizer")),
    ("Tokenizers", tables.tokenizers, _evaluator("tokenizer")),
    ("Judges", tables.judges, _evaluator("judge")),
    ("Confusion", tables.confusion, lambda run: ""),
    ("Other figures", tables.others, lambda run: ""),
    ("Training", tables.training, _FINISHED),
    ("Curves", curves.losses, _LOGGED),
    ("Gradient cosines", curves.cosines, lambda run: "not logged; config.cosine_every=100 would log them"),
    ("Settings", settings.settings, _file("config.json", "there is no config.json")),
    ("Versions and machine", settings.machine, _FINISHED),
    ("All figures", tables.everything, _FINISHED),
)  # fmt: skip


def write_report(folder: Path) -> Path:
    """Writes `folder`/report/index.html (and any_to_any.png beside it) and returns its path."""
    run = read_run(folder)
    bodies, missing = [], {}
    for title, make, why in progress.track(SECTIONS, "writing the report"):
        if body := made(make, run):
            bodies.append((title, body))
        elif reason := why(run):
            missing.setdefault(reason, []).append(title)
    if missing:
        bodies.append(("Not on this page", _listed(missing)))
    said = made(headline, run) + made(notices, run)
    return write(folder / "report" / "index.html", named(run), said, bodies)


def write(path: Path, title: str, said: str, sections: Iterable[tuple[str, str]]) -> Path:
    """Writes a whole page, all or nothing.

    Args:
      said: HTML below the title.
      sections: title (plain) and HTML of each.
    """
    links = body = ""
    for heading, part in sections:
        mark = heading.lower().replace(" ", "-").replace(",", "")
        links += f'<a href="#{mark}">{heading}</a>'
        body += f'<h2 id="{mark}">{heading}</h2>{part}'
    workdir.write_text(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>{said}<nav>{links}</nav><main>{body}</main>"
        f"<footer>{note(f'Made by mm {mm.__version__} from the files of the run.')}</footer></html>\n",
    )
    return path


UNREADABLE = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, SyntaxError, OSError, EOFError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def made(make: Callable[..., str], *runs: RunFiles) -> str:
    """A section's body; a word where its files are damaged, or have a form that this version does not know."""
    try:
        return make(*runs)
    except Newer as e:
        return note(f"{escape(str(e))}.")
    except Damaged as e:
        return note(f"{escape(str(e))}. <code>--mode=evaluate</code> makes it anew.")
    except UNREADABLE as e:
        what = escape(f"{type(e).__name__}: {e}"[:120])
        return note(
            f"The files of this part are damaged, or have a form that mm {mm.__version__} does not read ({what})."
        )


def named(run: RunFiles) -> str:
    """The experiment's name and, where it says more, the folder's."""
    folder = run.folder.resolve().name
    return run.name if folder == run.name else f"{run.name}: {folder}"


def notices(run: RunFiles) -> str:
    """What a reader must know first: not finished, damaged, or written by another version."""
    steps = run.settings.get("steps")
    said = [escape(f"{wrong}.") for wrong in run.damaged.values()]
    if "results.json" in run.damaged:
        anew = "" if run.newer else " <code>--mode=evaluate</code> writes them anew."
        said.append(f"There are no figures below.{anew}")
    elif not run.results:
        of = f" of {steps:,}" if isinstance(steps, int) else ""
        logged = (
            f"step {run.step:,}{of} is the last that was logged"
            if run.step
            else f"no step{of} is logged"
        )
        said.append(
            f"This run is not finished ({logged}; there is no results.json): what follows is what there is so far. "
            "The command that started it continues it."
        )
    elif isinstance(steps, int) and run.train.get("steps", steps) != steps:
        trained = number(run.train["steps"])
        said.append(f"Evaluated after step {trained} of {steps:,}: this run is not finished.")
    wrote = run.config.get("version", (run.train.get("versions") or {}).get("mm"))
    by = f"mm {wrote}" if wrote else "a version of mm that does not say which"
    evaluated = run.train.get("evaluated_by", wrote)
    if run.config and evaluated != mm.__version__:
        said.append(
            f"Written by {escape(by)}; this page is made by mm {mm.__version__}, which may miss parts of it. "
            "<code>--mode=evaluate</code> writes results of this version."
        )
    elif run.config and wrote != evaluated:
        said.append(f"Trained by {escape(by)}, evaluated by mm {escape(str(evaluated))}.")
    return f'<div class="notice"><p>{"</p><p>".join(said)}</p></div>' if said else ""


def headline(run: RunFiles) -> str:
    """The main figure of each evaluator, and how long was trained."""
    tiles = ""
    for of, (value, count) in tables.main_figures(run.results).items():
        mean = f" <small>mean of {count}</small>" if count > 1 else ""
        word = escape(of.replace("_", " ").replace("/", ", "))
        tiles += f"<div><dt>{word}{mean}</dt><dd>{number(value)}</dd></div>"
    known = (("steps", "steps"), ("seconds", "s of training"), ("parameters", "parameters"))
    parts = [f"{number(run.train[k])} {word}" for k, word in known if run.train.get(k) is not None]
    figures = f'<dl class="main">{tiles}</dl>' if tiles else ""
    return (note(", ".join(parts)) if parts else "") + figures


def _listed(missing: dict[str, list[Any]]) -> str:
    rows = (
        f"<li>{' &middot; '.join(titles)}: {escape(why)}</li>" for why, titles in missing.items()
    )
    return f"<ul>{''.join(rows)}</ul>"
