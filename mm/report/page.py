"""The page of one run: which sections, in which order, and what is said where something is missing."""

from collections.abc import Callable
from pathlib import Path

import mm
from mm import workdir
from mm.report import curves, settings, sheet, shown, tables
from mm.report.files import RunFiles, read_run
from mm.report.markup import escape, note, number
from mm.report.style import STYLE

Section = tuple[str, Callable[[RunFiles], str], str]
"""Title, what makes its body ("" = the run has nothing for it), and what is missing then."""

SECTIONS: tuple[Section, ...] = (
    ("Any to any", sheet.any_to_any, "samples"),
    ("Real, tokenized, generated", sheet.beside_real, "real rows beside generated ones"),
    ("Generation", tables.generation, "generation figures"),
    ("Facts", tables.facts, "facts"),
    ("Retrieval", tables.retrieval, "retrieval figures"),
    ("Nearest neighbours", shown.neighbours, "nearest neighbours"),
    ("Map of embeddings", shown.embedding_map, "embeddings"),
    ("Reconstructions", shown.reconstructions, "reconstructions"),
    ("Tokenizers", tables.tokenizers, "tokenizers"),
    ("Judges", tables.judges, "judges"),
    ("Confusion", tables.confusion, "confusion of a judge"),
    ("Other figures", tables.others, "other figures"),
    ("Training", tables.training, "training figures"),
    ("Curves", curves.losses, "metrics"),
    ("Gradient cosines", curves.cosines, "gradient cosines (config.cosine_every logs them)"),
    ("Settings", settings.settings, "settings"),
    ("Versions and machine", settings.machine, "versions"),
    ("All figures", tables.everything, "figures at all"),
)


def write_report(folder: Path) -> Path:
    """Writes `folder`/report/index.html (and any_to_any.png beside it) and returns its path."""
    run = read_run(folder)
    body, missing, names = "", [], []
    for title, make, what in SECTIONS:
        part = made(make, run)
        if part:
            mark = title.lower().replace(" ", "-").replace(",", "")
            names.append(f'<a href="#{mark}">{title}</a>')
            body += f'<h2 id="{mark}">{title}</h2>{part}'
        else:
            missing.append(what)
    if missing:
        body += note(f"This run has no {'; no '.join(missing)}.")
    top = f"<h1>{escape(run.name)}</h1>{_headline(run)}{notices(run)}<nav>{''.join(names)}</nav>"
    return write(folder / "report" / "index.html", run.name, top + body)


def write(path: Path, title: str, body: str) -> Path:
    """Writes a whole page, all or nothing."""
    workdir.write_text(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style>{body}</html>\n",
    )
    return path


def made(make: Callable[[RunFiles], str], run: RunFiles) -> str:
    """A section's body; a word where its files have a form that this version does not know."""
    try:
        return make(run)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError) as e:
        what = escape(f"{type(e).__name__}: {e}"[:120])
        return note(
            f"The files of this part have a form that mm {mm.__version__} does not read ({what})."
        )


def notices(run: RunFiles) -> str:
    """What a reader must know first: not finished, or written by another version."""
    said, steps = [], run.settings.get("steps")
    if not run.results:
        done = f"step {run.step:,}" + (f" of {steps:,}" if isinstance(steps, int) else "")
        said.append(
            f"This run is not finished ({done} is the last that was logged; there is no results.json): "
            "what follows is what there is so far. The command that started it continues it."
        )
    elif isinstance(steps, int) and run.train.get("steps", steps) != steps:
        trained = number(run.train["steps"])
        said.append(f"Evaluated after step {trained} of {steps:,}: this run is not finished.")
    wrote = run.config.get("version", (run.train.get("versions") or {}).get("mm"))
    if run.config and wrote != mm.__version__:
        by = f"mm {wrote}" if wrote else "a version of mm that does not say which"
        said.append(
            f"Written by {escape(by)}; this page is made by mm {mm.__version__}, which may miss parts of it. "
            "<code>--mode=evaluate</code> writes results of this version."
        )
    return "".join(f'<p class="notice">{text}</p>' for text in said)


def _headline(run: RunFiles) -> str:
    known = (("steps", "steps"), ("seconds", "s of training"), ("parameters", "parameters"))
    parts = [f"{number(run.train[k])} {word}" for k, word in known if run.train.get(k) is not None]
    return note(", ".join(parts)) if parts else ""
