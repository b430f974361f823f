"""The quickstart with contrast of different weight: does it help or harm generation?

    python -m mm.main --config configs/contrast_sweep.py            (runs/contrast_sweep; the time of four quickstarts)
    python -m mm.main --config configs/contrast_sweep.py:smoke      the same in small

One folder per weight, and one table of their main figures (sweep.json). The loss holds the contrast at its weight, so it
differs between them by that alone; compare what is generated and retrieved, and `masked/...` on the page of two runs.
"""

import dataclasses
from collections.abc import Iterator

from configs import quickstart
from mm.config import Experiment

WEIGHTS = (0.0, 0.1, 0.3, 1.0)


def get_config(arg: str = "") -> Iterator[tuple[str, Experiment]]:
    """An experiment for each weight; `smoke` as `arg` makes them small."""
    for weight in WEIGHTS:
        exp = quickstart.get_config(arg)
        exp.task.contrast = dataclasses.replace(exp.task.contrast, weight=weight)
        yield f"contrast={weight}", exp
