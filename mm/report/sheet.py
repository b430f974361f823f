"""Any to any: what was given and what was made of it, example by example."""

from typing import Any

from etils.epath import Path

from mm.evals import pictures
from mm.report.files import RunFiles, read_object
from mm.report.markup import escape, folded, note, percent, tile


def any_to_any(run: RunFiles) -> str:
    """A cell for every pair of kinds; the inputs on the diagonal. Writes report/any_to_any.png too."""
    folder = run.folder / "samples"
    samples = read_object(folder / "samples.json")
    if not samples.get("rows"):
        return ""
    (run.folder / "report").mkdir(parents=True, exist_ok=True)
    with (run.folder / "report" / "any_to_any.png").open("wb") as f:
        pictures.grid(samples, folder).save(f, "PNG")
    names = list(dict.fromkeys(row[side] for row in samples["rows"] for side in _SIDES))
    made = {(row["source"], row["target"]): row for row in samples["rows"]}
    given = {row["source"]: row for row in samples["rows"]}
    body = ""
    for source in names:
        for target in names:
            if source == target and source in given:
                body += _given(folder, given[source])
            elif (source, target) in made:
                figures = run.of("any_to_any").get(f"{source}->{target}", {})
                body += _made(folder, made[source, target], figures)
            else:
                title = f"{escape(source)} to {escape(target)}"
                body += f'<div class="cell"><h3>{title} <small>is not asked for</small></h3></div>'
    text = (
        "Unselected examples of the test split: outlined cells hold what was given, which is real; "
        "the others were generated from it, tile by tile along a row. Below a tile stands its group, "
        "and in a red frame what the judge took it for instead. Percent right are over all "
        "generations of the cell, not over these."
    )
    return note(text) + f'<div class="cells wide" style="--n:{len(names)}">{body}</div>'


_SIDES = ("source", "target")


def _given(folder: Path, row: dict[str, Any]) -> str:
    name = escape(row["source"])
    tiles = (
        tile(folder / file, escape(str(group)))
        for file, group in zip(row["source_files"], row["group"], strict=True)
    )
    return (
        f'<div class="cell given"><h3>{name} <small>given</small></h3>'
        f'<div class="tiles">{"".join(tiles)}</div></div>'
    )


def _made(folder: Path, row: dict[str, Any], figures: dict[str, Any]) -> str:
    title = f"{escape(row['source'])} to {escape(row['target'])}"
    share = figures.get("accuracy")
    right = "" if share is None else f" <small>{percent(share)}% right</small>"
    tiles = (
        tile(folder / file, read_as(group, found), group != found)
        for file, group, found in zip(row["files"], row["group"], row["recognised"], strict=True)
    )
    return (
        f'<div class="cell"><h3>{title}{right}</h3><div class="tiles">{"".join(tiles)}</div></div>'
    )


def read_as(group: Any, found: Any) -> str:
    """The group a row should show and, where it differs, the one it was taken for (-1 = none)."""
    if group == found:
        return escape(str(group))
    taken = "none" if found == -1 else escape(str(found))
    return f"{escape(str(group))} <b>&rarr; {taken}</b>"


def beside_real(run: RunFiles) -> str:
    """Per example: what was given, the real row of the same example, that row through its tokenizer, the generated."""
    folder = run.folder / "samples"
    body = ""
    for row in read_object(folder / "samples.json").get("rows", []):
        real, tokenized = row.get("real_files"), row.get("tokenized_files")
        if not real or not tokenized:
            continue
        columns = (row["source_files"], real, tokenized, row["files"], row["group"])
        lines = ""
        for source, *shown, group in zip(*columns, strict=True):
            first = tile(folder / source, f"given: {escape(str(group))}", player=False)
            tiles = (
                tile(folder / file, word)
                for file, word in zip(shown, ("real", "tokenized", "generated"), strict=True)
                if file is not None
            )
            lines += f'<div class="row large">{first}<span class="arrow">&rarr;</span>{"".join(tiles)}</div>'
        title = f"{escape(row['source'])} to {escape(row['target'])}"
        body += folded(title, f'<div class="rows">{lines}</div>', opened=not body)
    text = (
        "The real row belongs to the same test example as what was given; tokenized is that row, "
        "encoded and decoded: no model of the tokens can do better."
    )
    return note(text) + body if body else ""
