"""Symile: contrast by multilinear inner products sees what no pair of modalities shows.

    python -m mm.papers run symile
    python -m mm.main --config configs/papers/symile.py:symile-1.0

Data: a and b are five fair bits, c is their exclusive or with probability p (one draw per row), else a. Asked: b among all 32,
from a and c. No two of the three say anything of each other, so pairwise contrast stays at chance, 1/32; who uses all three
gets (1 + 31 p) / 32. (The rate decays: held constant it kept embeddings moving, and p = 0.5 came to 0.49 of 0.516.)
"""

from data_pipelines.xor import Xor, every_value
from mm.config import Data, Experiment, Optim
from mm.evals.towers import Pick
from mm.models.towers import Dense
from mm.objectives.contrastive.forms import AllPairs, Gram, Symile
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks.towers import Towers

PROBABILITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
FORMS = {
    "symile": (Symile(), 0.74),
    "pairs": (AllPairs(target=same_example), 1 / 0.07),
    "gram": (Gram(target=same_example, smoothing=0.0), 1 / 0.07),
}
CANDIDATES = tuple(map(tuple, every_value(5).tolist()))
PAPER = Paper(
    title="Contrasting with Symile: Simple Model-Agnostic Representation Learning for Unlimited Modalities",
    numbers=(3,),
    row="1",
    status="M",
    formula="The score of a tuple is scale x the sum over features of the product of all its embeddings; softmax "
    "cross-entropy, each modality in turn against tuples of the others that were permuted on their own.",
    expected="accuracy at least 0.97 of the ceiling at p >= 0.5, at p = 0 within 0.02 of chance (1/32); pairwise contrast "
    "must fail, with at most 0.06 everywhere. GRAM's volumes see a part of it.",
)


def get_config(arg: str = "symile-1.0") -> Experiment:
    """`FORM-P`."""
    name, p = arg.split("-")
    form, scale = FORMS[name]
    return Experiment(
        name=f"symile-{arg}",
        task=Towers(
            encoders={m: Dense() for m in ("a", "b", "c")}, width=16,
            objectives={name: (1.0, form)}, scale=scale,
        ),
        data=Data(source=Xor(p=float(p)), batch_size=400),
        optim=Optim(lr=0.1, warmup=1, b2=0.999, weight_decay=0.01, clip_norm=0.0),
        evals=(Pick(target="b", given=("a", "c"), candidates=CANDIDATES),),
        steps=500,
        log_every=50,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """Symile and all pairs at every p, GRAM where there is nothing but the exclusive or."""
    names = [f"{form}-{p}" for form in ("symile", "pairs") for p in PROBABILITIES]
    return {name: get_config(name) for name in (*names, "gram-1.0")}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    accuracy = {arm: mean(found, arm, "pick", "accuracy") for arm in found}
    return Verdict(
        clauses={
            f"p = {p}: at least 0.97 of the ceiling, {ceiling(p):.3f}": accuracy[f"symile-{p}"]
            >= 0.97 * ceiling(p)
            for p in PROBABILITIES[2:]
        }
        | {
            "p = 0: chance": abs(accuracy["symile-0.0"] - ceiling(0)) <= 0.02,
            "pairwise contrast fails at every p": all(
                accuracy[f"pairs-{p}"] <= 0.06 for p in PROBABILITIES
            ),
            "GRAM at p = 1 at most 0.2": accuracy["gram-1.0"] <= 0.2,
        },
        figures={arm: spread(values(found, arm, "pick", "accuracy")) for arm in found},
    )


def ceiling(p: float) -> float:
    """See `Xor.ceiling`."""
    return Xor(p=p).ceiling()
