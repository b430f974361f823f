"""The quickstart's experiment with 45 minutes instead of eight: the model that ships.

    python -m mm.main --config configs/digits.py                                        (runs/digits)
    python -m mm.main --config configs/digits.py --config.seed=1 --workdir runs/digits-1
    python -m mm.main --config configs/digits.py:smoke                                  the same in small

A wider trunk, a longer run; everything else is the quickstart's. Figures: docs/digits.md.
"""

from configs import quickstart
from mm.config import Experiment


def get_config(arg: str = "") -> Experiment:
    """The experiment; `smoke` as `arg` makes it small."""
    exp = quickstart.get_config(arg)
    exp.name = exp.name.replace("quickstart", "digits")
    if arg != "smoke":
        exp.task.model.width, exp.task.model.heads = 160, 5
        exp.steps, exp.eval_every, exp.save_every, exp.log_every = 10_000, 1000, 1000, 100
    return exp
