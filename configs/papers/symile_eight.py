"""Symile with eight modalities, and with missing ones.

    python -m mm.papers run symile_eight

Eight bits, the last the exclusive or of the seven others: any seven tell the eighth, fewer tell nothing. And three bits of
which each is absent from half of the training rows: what is absent is left out of the products.
"""

import dataclasses

from data_pipelines.xor import Parity, Xor
from mm.config import Data, Experiment, Optim
from mm.evals.towers import Pick
from mm.models.towers import Dense
from mm.objectives.contrastive.forms import Pairs, Symile
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, spread, values
from mm.tasks.towers import Towers

SOURCES = {
    "eight": (Parity(), ("m0", tuple(f"m{i}" for i in range(1, 8)))),
    "missing": (Xor(bits=1, missing=0.5), ("b", ("a", "c"))),
}
FORMS = ("symile", "pairs")
PAPER = Paper(
    title="Contrasting with Symile: eight modalities, and records with missing ones",
    numbers=(3,),
    row="2",
    status="M/U",
    formula="As `symile`; of a tuple the embeddings that exist are multiplied, and the scale grows with their number.",
    expected="at least 0.99 of eight-way tests in 5 of 5 seeds within 1,000 steps of 500 examples; at least 0.95 on whole "
    "test rows after training on rows with half of all bits absent; pairwise contrast must stay near 0.5.",
)


def get_config(arg: str = "symile-eight") -> Experiment:
    """`FORM-SOURCE`."""
    name, kind = arg.split("-")
    source, (target, given) = SOURCES[kind]
    asked = source.modalities.index(target)
    pairs = tuple((asked, source.modalities.index(other)) for other in given)
    forms = {"symile": (Symile(), 0.74), "pairs": (Pairs(of=pairs, target=same_example), 1 / 0.07)}
    form, scale = forms[name]
    return Experiment(
        name=f"symile-{arg}",
        task=Towers(
            encoders={m: Dense() for m in source.modalities}, width=16,
            objectives={name: (1.0, form)}, scale=scale,
        ),
        data=Data(source=dataclasses.replace(source), batch_size=500),
        optim=Optim(lr=0.1, warmup=1, final=1.0, b2=0.999, weight_decay=0.01, clip_norm=0.0),
        evals=(Pick(target=target, given=given, candidates=((0.0,), (1.0,))),),
        steps=800,
        log_every=100,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """Both forms on both sources."""
    return {f"{f}-{s}": get_config(f"{f}-{s}") for f in FORMS for s in SOURCES}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    accuracy = {arm: values(found, arm, "pick", "accuracy") for arm in found}
    return Verdict(
        clauses={
            "eight modalities: 0.99 in every seed": min(accuracy["symile-eight"]) >= 0.99,
            "missing modalities: 0.95 in every seed": min(accuracy["symile-missing"]) >= 0.95,
            "pairwise contrast fails": max(accuracy["pairs-eight"] + accuracy["pairs-missing"])
            <= 0.8,
        },
        figures={arm: spread(v) for arm, v in accuracy.items()},
    )
