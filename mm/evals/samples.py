"""What the report shows: a few unselected examples of every cell, as files that a person can open.

samples/samples.json               {"rows": [what `Samples.add` was told, and the files' names]}
samples/<source>/0.*               what was given
samples/<source>-to-<target>/0.*   what was made of it
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mm.evals.kinds import Kind, take


class Samples:
    """Collects the cells of one evaluation below `folder`, in the place of an earlier one's."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        shutil.rmtree(folder, ignore_errors=True)

    def add(
        self,
        source: tuple[Kind, Any, Any],
        target: tuple[Kind, Any, Any],
        index: np.ndarray,
        group: np.ndarray,
        recognised: np.ndarray,
    ) -> None:
        """Writes the examples `index` of one cell.

        Args:
          source, target: kind, its tokenizer, and all raw rows of the cell.
          group, recognised: int[n], what each row was to be, and what the judge took it for.
        """
        names = source[0].name, target[0].name
        self.rows.append(
            {
                "source": names[0],
                "target": names[1],
                "source_files": self._write(source, names[0], index),
                "files": self._write(target, f"{names[0]}-to-{names[1]}", index),
                "group": [int(g) for g in group[index]],
                "recognised": [int(r) for r in recognised[index]],
            }
        )

    def _write(self, side: tuple[Kind, Any, Any], name: str, index: np.ndarray) -> list[str]:
        _, tokenizer, raw = side
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        files = []
        for i, row in enumerate(take(raw, index)):
            path = Path(tokenizer.write_file(row, self.folder / name / str(i)))
            files.append(str(path.relative_to(self.folder)))
        return files

    def close(self) -> None:
        """Writes the table of what was added."""
        text = json.dumps({"rows": self.rows}, indent=1)
        (self.folder / "samples.json").write_text(text + "\n")
