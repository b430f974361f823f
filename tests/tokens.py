"""Data to be tokenized: the tiny pictures, tones and words, of which examples lack some; and a process that is killed."""

import dataclasses
import os
import signal
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mm.config import Data, Experiment
from mm.data.columns import ArrayColumn
from tests.fixtures import tiny

FIXTURE = Path(__file__).parent / "fixtures" / "format1.zip"


@dataclasses.dataclass(kw_only=True)
class Gappy(tiny.Tiny):
    """Every fifth example has no tone, every seventh no word.

    Attributes:
      spoilt: what is wrong with the training tones: a row that has a NaN; -1 = nothing.
    """

    spoilt: int = -1

    def columns(self, split: str) -> dict[str, Any]:
        found = super().columns(split)
        if split == "train" and self.spoilt >= 0:
            rows = found["tone"].rows.copy()
            rows[self.spoilt, 7] = np.nan
            found["tone"] = ArrayColumn(rows)
        return found

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        rows = dict(super().order(split, seed, epoch))
        n = len(rows["group"])
        for name, every in {"tone": 5, "word": 7}.items():
            if name in rows:
                rows[name] = np.where(np.arange(n) % every == 1, -1, rows[name])
        return rows


def unpacked(folder: Path) -> Path:
    """The fixture's tokenizers, in a folder."""
    zipfile.ZipFile(FIXTURE).extractall(folder)
    return folder / "format1" / "run"


def get_config(arg: str = "") -> Experiment:
    """All three modalities, in the tokenizers of the folder `arg`."""
    # Not in the order of the alphabet, which nothing may bring about.
    tokenizers = {n: f"{arg}/tokenizers/{n}.safetensors" for n in reversed(tiny.NAMES)}
    exp = tiny.model(dict(tokenizers), judge="")
    exp.data = Data(source=Gappy(), tokenizers=tokenizers, batch_size=8)
    exp.evals = exp.evals[:1]
    return exp


def die_at(renames: int) -> None:
    """This process is killed at its so-manieth renaming of a file, before it is done."""
    left = [renames]

    def hook(event: str, args: Any) -> None:
        if event == "os.rename" and str(args[0]).endswith(".partial"):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":  # N, and the arguments of mm.main
    from mm.main import main

    die_at(int(sys.argv.pop(1)))
    sys.exit(main())
