"""Examples that lack modalities, as real collections do: `config.data.missing`."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mm.errors import UserError

KINDS = ("random", "group")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Every part of a training example is absent with this probability; one of each example stays.

    Attributes:
      share: mean probability. by: `random`, alike for all, or `group`: it grows linearly from the first group to the last, from
        max(0, 2 share - 1) to min(1, 2 share), so that what is missing depends on what the example is.
    """

    share: float
    by: str = "random"

    def validate(self) -> None:
        if not 0 <= self.share < 1 or self.by not in KINDS:
            raise UserError(
                f"config.data.missing: share={self.share}, by={self.by!r}: 0 <= share < 1, and {' or '.join(KINDS)}"
            )

    def dropped(
        self, rows: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Rows of examples as `mm.data.Source.order` gives them, -1 where absent; what was absent stays so."""
        group = np.asarray(rows["group"])
        names = [n for n in rows if n != "group"]
        probability = np.full(len(group), self.share)
        if self.by == "group":
            kinds, place = np.unique(group, return_inverse=True)
            low, high = max(0.0, 2 * self.share - 1), min(1.0, 2 * self.share)
            probability = low + (high - low) * place / max(len(kinds) - 1, 1)
        there = np.stack([rows[n] >= 0 for n in names], 1)
        draw = np.where(there, rng.random(there.shape), -1.0)
        kept = there & ((draw >= probability[:, None]) | (draw == draw.max(1, keepdims=True)))
        return {n: np.where(kept[:, i], rows[n], -1) for i, n in enumerate(names)} | {"group": rows["group"]}  # fmt: skip
