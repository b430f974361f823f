"""What retrieval leaves to be looked at: some queries with their nearest rows, and embeddings for a map.

<folder>/neighbours.json   {"rows": [{direction, query, group, right, found, groups}]}, files below <folder>
<folder>/embeddings.npz    z/<kind> float16[n, E], group/<kind> int32[n]
"""

from typing import Any

import numpy as np
from etils.epath import Path

from mm import workdir
from mm.evals import kinds as k
from mm.evals.kinds import Kind
from mm.evals.samples import emptied, write_rows
from mm.tasks import Run

EXAMPLES = 3  # queries of a direction whose nearest row is right, and as many where it is wrong
NEAREST = 5
LOOKED_AT = 400  # queries in which they are looked for
MAPPED = 300  # rows of each kind


class Neighbours:
    """Collects what one evaluation shows below `folder`, in the place of an earlier one's."""

    def __init__(self, run: Run, folder: Path, split: str):
        self.run, self.folder, self.split = run, emptied(folder), split
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        parts: tuple[tuple[Kind, k.Rows], ...],
        query: np.ndarray,
        target: tuple[Kind, k.Rows],
        gallery: np.ndarray,
    ) -> None:
        """The first queries whose nearest row is right, and the first where it is wrong.

        Args:
          name: of the direction.
          parts: what the queries were made of; all of as many rows as `query`, in random order.
          query: float[q, E].
          target: the gallery's kind and rows. gallery: float[g, E].
        """
        group, groups = parts[0][1].group, target[1].group
        nearest = np.argsort(-(query[:LOOKED_AT] @ gallery.T), axis=1, kind="stable")[:, :NEAREST]
        right = groups[nearest[:, 0]] == group[: len(nearest)]
        for q in (*np.flatnonzero(right)[:EXAMPLES], *np.flatnonzero(~right)[:EXAMPLES]):
            asked = [self._write(kind, rows[np.array([q])])[0] for kind, rows in parts]
            found = target[1][nearest[q]]
            self.rows.append(
                {
                    "direction": name,
                    "query": asked,
                    "group": int(group[q]),
                    "right": bool(right[q]),
                    "found": self._write(target[0], found),
                    "groups": found.group.tolist(),
                }
            )

    def _write(self, kind: Kind, rows: k.Rows) -> list[str]:
        raw = k.read(self.run.data, self.split, kind, rows)
        tokenizer = k.tokenizer_of(self.run.data, kind)
        return write_rows(self.folder, kind.name, tokenizer, raw, [str(r) for r in rows.row])

    def close(self, embedded: dict[str, np.ndarray], groups: dict[str, np.ndarray]) -> None:
        """Writes the table of what was added, and the first embeddings of each kind."""
        workdir.write_json(self.folder / "neighbours.json", {"rows": self.rows})
        arrays: dict[str, Any] = {"format_version": np.int32(workdir.FORMAT_VERSION)}
        arrays |= {f"z/{n}": z[:MAPPED].astype(np.float16) for n, z in embedded.items()}
        arrays |= {f"group/{n}": g[:MAPPED].astype(np.int32) for n, g in groups.items()}
        with (self.folder / "embeddings.npz").open("wb") as f:
            np.savez_compressed(f, allow_pickle=False, **arrays)
