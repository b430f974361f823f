"""Do contrast and generation help or hurt each other? Twelve arms, five paired seeds: docs/joint.md.

    python -m mm.main --config configs/joint_study.py:trials --workdir runs/joint_study/trials      4 trials of each arm
    python -m mm.main --config configs/joint_study.py:seed0 --workdir runs/joint_study/seed0        ... seed4
    python -m mm.main --config configs/joint_study.py:missing0 --workdir runs/joint_study/missing0   ... missing2
    python -m mm.papers joint runs/joint_study                                                      the page
    python -m mm.main --config configs/joint_study.py:smoke --workdir runs/joint_study/smoke        one small run of each

Digits, small enough for three minutes on one core. Of one seed all arms start from the same weights and see the same batches.
Contrast runs through the whole encoder, so that both halves share all of it, but for the arms `K=1` and `K=2`. Every arm has
four trials of 400 steps, on seed 0, judged on validation data: most try the learning rate, the two arms with a
setting of their own try that (two-stage: when contrast takes over; dream: its weight). `missing`: one of the joint arms trained on
examples of which parts are absent. What docs/results/joint/ has is not run again.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from configs import quickstart
from configs.quickstart import IMAGE, SPEECH, WORD
from mm.config import Experiment
from mm.data.missing import KINDS, Missing
from mm.errors import UserError
from mm.evals.any_to_any import AnyToAny
from mm.evals.representation import Cards, LinearProbe
from mm.evals.retrieval import Retrieval
from mm.evals.validation import ValidationLoss
from mm.generate.sampling import Sampler
from mm.objectives.masking import Warmup

STEPS = 1000
SEEDS = 5
WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
RATES = (3e-3, 6e-3, 1.2e-2, 2.4e-2)
ARMS = ("masked", "contrast", *(f"joint-{w}" for w in WEIGHTS), "two-stage", "K=1", "K=2", "dream")
LONGER = ("masked-flops", "contrast-flops", "two-stage-flops")
"""Arms with one objective at a time, trained until they have cost as much as the joint ones."""
OWN = {"two-stage": (0.25, 0.5, 0.75, 0.9), "dream": (0.005, 0.05, 0.3, 1.0)}
"""Share of the steps before contrast takes over; weight of contrast."""
MISSING = (0.2, 0.5, 0.8)
BEST = ("joint-0.3", RATES[2])
"""The arm, and its rate, whose modalities go missing: the best of the trials."""
CHOSEN: dict[str, float] = {
    **{
        "masked": 0.012,
        "contrast": 0.006,
        "joint-0.003": 0.006,
        "joint-0.01": 0.006,
        "joint-0.03": 0.006,
        "joint-0.1": 0.006,
    },
    **{
        "joint-0.3": 0.012,
        "joint-1.0": 0.012,
        "two-stage": 0.5,
        "K=1": 0.012,
        "K=2": 0.012,
        "dream": 1.0,
    },
}
"""What the trials chose: a learning rate, or a value of `OWN`."""


def get_config(arg: str = "smoke") -> Iterator[tuple[str, Experiment]]:
    """`trials`, `seedN`, `missingN`, or `smoke`; `seed0/1of2` is the first half of its arms.

    Raises:
      UserError: all of it was run.
    """
    sweep, _, part = arg.partition("/")
    number, _, parts = (part or "1of1").partition("of")
    kept = Path("docs/results/joint") / f"{sweep}.json"
    done = json.loads(kept.read_text()) if kept.exists() else {}
    wanted = dict(every(sweep))
    arms = [n for n in wanted if not n.endswith("-first")]
    mine = {n for n in arms[int(number) - 1 :: int(parts)] if n not in done}
    if not mine:
        raise UserError(
            f"configs/joint_study.py:{arg}: all is in {kept}; delete it to run it again"
        )
    yield from ((n, exp) for n, exp in wanted.items() if n.removesuffix("-first") in mine)


def every(arg: str) -> Iterator[tuple[str, Experiment]]:
    """All runs of a sweep."""
    if arg == "trials":
        for i, name in itertools.product(range(len(RATES)), ARMS):
            value = OWN.get(name, RATES)[i]
            yield from runs(name, value, 0, 400, "validation", f"-{value}")
    elif arg.startswith("missing"):
        for by, share in (("random", 0.0), *itertools.product(KINDS, MISSING)):
            exp = experiment(*BEST, int(arg.removeprefix("missing")), STEPS, "test")
            exp.name = f"missing-{by}-{share}" if share else "missing-none"
            exp.data.missing = Missing(share=share, by=by) if share else None
            yield exp.name, exp
    elif arg == "smoke":
        for name in ARMS:
            yield from runs(name, OWN.get(name, RATES)[2], 0, 20, "validation")
    else:
        for name in (*ARMS, *LONGER):
            arm = name.removesuffix("-flops")
            steps = STEPS if name in ARMS else round(STEPS * cost("joint-0.1") / cost(arm))
            value = CHOSEN.get(arm, OWN.get(arm, RATES)[1])
            yield from runs(
                arm, value, int(arg.removeprefix("seed")), steps, "test", name[len(arm) :]
            )


def runs(
    arm: str, value: float, seed: int, steps: int, split: str, suffix: str = ""
) -> Iterator[tuple[str, Experiment]]:
    """An arm's run, with its rate or own setting; of `two-stage` two runs."""
    name = arm + suffix
    exp = experiment(arm, value, seed, steps, split)
    if arm == "two-stage":
        first = experiment("masked", RATES[1], seed, round(steps * value), split)
        yield f"{name}-first", dataclasses.replace(first, name=f"{name}-first", evals=())
        exp.steps -= first.steps
        exp.init = f"{name}-first"
    yield name, exp


def experiment(arm: str, value: float, seed: int, steps: int, split: str) -> Experiment:
    """See `runs`."""
    exp = quickstart.get_config()
    exp.name, exp.seed, exp.steps = arm, seed, steps
    exp.eval_every, exp.save_every, exp.log_every, exp.keep = 0, 250, 20, 1
    exp.cosine_every = 50 if split == "test" else 0
    exp.task.model = dataclasses.replace(exp.task.model, width=64, heads=2, embed_layers=3)
    exp.task.samplers = {
        "image": Sampler(steps=8, temperature=0.5),
        "speech": Sampler(steps=8, temperature=0.6),
        "text": Sampler(temperature=0.0),
    }
    kinds = (IMAGE, SPEECH, WORD)
    exp.evals = (
        ValidationLoss(),
        AnyToAny(
            kinds=kinds,
            count=1000 if split == "test" else 300,
            train_rows=1000,
            samples=0,
            split=split,
        ),
        Retrieval(kinds=kinds, fused=False, split=split),
        LinearProbe(kinds=(IMAGE, SPEECH), split=split),
        Cards(kinds=kinds, split=split),
    )
    exp.optim.lr = RATES[1] if arm in OWN else value
    contrast = exp.task.contrast
    contrast.weight = 0.1
    if arm == "masked":
        contrast.weight = 0.0
    elif arm in ("contrast", "two-stage"):
        exp.task.masked, contrast.weight = 0.0, 1.0
    elif arm.startswith("joint-"):
        contrast.weight = float(arm.removeprefix("joint-"))
    elif arm.startswith("K="):
        exp.task.model.embed_layers = int(arm.removeprefix("K="))
    elif arm == "dream":
        exp.task.masking.warmup = Warmup(steps=steps * 3 // 4)
        contrast.weight = value
    return exp


def cost(arm: str) -> float:
    """FLOPs of a step's forward pass."""
    from mm import tokenizers
    from mm.tasks.joint import JointTask

    exp = experiment(arm, RATES[1], 0, STEPS, "test")
    space = tokenizers.space_of(tokenizers.load_all(exp.data.tokenizers))
    return sum(JointTask(exp.task, space).flops(exp.data.batch_size).values())
