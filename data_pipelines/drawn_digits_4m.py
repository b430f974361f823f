"""Handwritten digits for a model of 4M's: pictures as its pixels, and the digit as a new modality of one token.

Pictures are those of `data_pipelines.digits`, scaled to what the model reads.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from etils.epath import Path
from PIL import Image

from data_pipelines.digits import Digits
from mm.data.batches import TokenTable
from mm.data.random_tokens import Tokens
from mm.data.records import CorruptLog
from mm.data.tokens_4m import Tokens4M, nothing
from mm.objectives.masking_4m import pixels
from mm.tokenizers.files import fitted
from mm.tokenizers.given import Pixels


def _label() -> dict[str, Tokens]:
    return {"label": Tokens(vocabulary=10, length=1)}


@dataclasses.dataclass(kw_only=True)
class DrawnDigits4M(Tokens4M):
    """See `mm.data.TokenSource`.

    Attributes:
      pictures: of each split, which are held as pixels: at 224 x 224 a picture takes 0.6 MB.
    """

    added: dict[str, Tokens] = dataclasses.field(default_factory=_label)
    pictures: dict[str, int] = dataclasses.field(
        default_factory={"train": 512, "validation": 128, "test": 128}.copy
    )

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Reads the pictures; see `Digits.open`."""
        self._digits = Digits(modalities=("image",))
        self._digits.open(cache, corrupt)
        self._tables: dict[str, dict[str, TokenTable]] = {}

    def tokens(self, split: str) -> dict[str, TokenTable]:
        """The split's first pictures, and what they show."""
        if split not in self._tables:
            space, rows = self.space, self._digits.order(split, 0, 0)
            name, count = pixels(space), self.pictures[split]
            take = Pixels(space[name])
            greys = self._digits.columns(split)["image"][rows["image"][:count]]
            coloured = [fitted(Image.fromarray(grey), take.shape, 3) for grey in greys]
            label = rows["group"][:count, None].astype(np.int32)
            here = {
                name: TokenTable(*take.encode(np.stack(coloured))),
                "label": TokenTable(label, np.ones(len(label), np.int32)),
            }
            self._tables[split] = {m.name: here.get(m.name) or nothing(m) for m in space.modalities}
        return self._tables[split]

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        label = self.tokens(split)["label"].ids[:, 0]
        rows = np.arange(len(label))
        if split == "train":
            rows = np.random.default_rng((seed, epoch)).permutation(rows)
        found = dict.fromkeys(self.space.names, np.full_like(rows, -1))
        return found | {pixels(self.space): rows, "label": rows, "group": label[rows]}
