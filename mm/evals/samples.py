"""What the report shows: a few unselected examples of every cell, as files that a person can open.

samples/samples.json               {"rows": [what `Samples.add` was told, and the files' names]}
samples/<source>/0.*               what was given
samples/<source>-to-<target>/0.*   what was made of it
samples/<source>-to-<target>/real-0.*, tokenized-0.*
                                   the target's row in the same example, and that row through its tokenizer
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils.epath import Path

from mm import workdir
from mm.evals.kinds import Kind, take

Beside = tuple[np.ndarray, Any, Any]


def write_rows(
    folder: Path, name: str, tokenizer: Any, raw: Any, stems: Sequence[str] | None = None
) -> list[str]:
    """Writes raw rows as files of a person's formats below `folder`/`name`; their paths below `folder`.

    Args:
      stems: the files' names without their suffix; None = 0, 1, ...
    """
    (folder / name).mkdir(parents=True, exist_ok=True)
    stems = [str(i) for i in range(len(raw))] if stems is None else stems
    paths = (
        tokenizer.write_file(row, folder / name / stem)
        for row, stem in zip(raw, stems, strict=True)
    )
    return [str(Path(path).relative_to(folder)) for path in paths]


def emptied(folder: Path) -> Path:
    """The folder, without what an earlier evaluation left."""
    folder = Path(folder)
    folder.rmtree(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Samples:
    """Collects the cells of one evaluation below `folder`, in the place of an earlier one's."""

    def __init__(self, folder: Path):
        self.folder = emptied(folder)
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        source: tuple[Kind, Any, Any],
        target: tuple[Kind, Any, Any],
        index: np.ndarray,
        group: np.ndarray,
        recognised: np.ndarray,
        beside: Beside | None = None,
    ) -> None:
        """Writes the examples `index` of one cell.

        Args:
          source, target: kind, its tokenizer, and all raw rows of the cell.
          group, recognised: int[n], what each row was to be, and what the judge took it for.
          beside: places in `index`, and the real and tokenized rows for them.
        """
        names = source[0].name, target[0].name
        folder, into = self.folder, f"{names[0]}-to-{names[1]}"
        row: dict[str, Any] = {
            "source": names[0],
            "target": names[1],
            "source_files": write_rows(folder, names[0], source[1], take(source[2], index)),
            "files": write_rows(folder, into, target[1], take(target[2], index)),
            "group": [int(g) for g in group[index]],
            "recognised": [int(r) for r in recognised[index]],
        }
        if beside is not None:
            places, *both = beside
            for word, raw in zip(("real", "tokenized"), both, strict=True):
                files = write_rows(folder, into, target[1], raw, [f"{word}-{p}" for p in places])
                found = dict(zip(places.tolist(), files, strict=True))
                row[f"{word}_files"] = [found.get(p) for p in range(len(index))]
        self.rows.append(row)

    def close(self) -> None:
        """Writes the table of what was added."""
        workdir.write_json(self.folder / "samples.json", {"rows": self.rows})
