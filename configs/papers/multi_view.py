"""Contrast of several views: MV-InfoNCE and MV-DHEL beside all pairs.

    python -m mm.papers run multi_view

Two and three noisy views of a latent of 6 dimensions.
"""

from data_pipelines.latent import LatentViews
from mm.config import Data, Experiment, Optim
from mm.evals.towers import Card, LeaveOneOut, TowerRetrieval
from mm.models.towers import Dense
from mm.objectives.contrastive.forms import AllPairs, MultiView
from mm.objectives.contrastive.nway import mv_dhel, mv_infonce
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks.towers import Towers

FORMS = {
    "pairs": AllPairs(target=same_example),
    "mv_infonce": MultiView(loss=mv_infonce),
    "mv_dhel": MultiView(loss=mv_dhel),
}
VIEWS = {"2": ("a", "b"), "3": ("a", "b", "c")}
PAPER = Paper(
    title="A Principled Framework for Multi-View Contrastive Learning (MV-InfoNCE and MV-DHEL)",
    numbers=(23,),
    row="7,8",
    status="M",
    formula="MV-InfoNCE: all pairs of views of an example are positives of one row, all pairs with other examples its negatives. "
    "MV-DHEL: negatives of the same view only, alignment of all pairs in one term.",
    expected="MV-InfoNCE within 0.01 of all pairs in R@1 at two views. MV-DHEL uses more dimensions: effective rank at least 1.8 "
    "times and uniformity lower by at least 0.4 than all pairs, which must not reach it; its retrieval of noisy views is worse.",
)


def get_config(arg: str = "mv_dhel-3") -> Experiment:
    """`FORM-VIEWS`."""
    name, number = arg.split("-")
    views = VIEWS[number]
    return Experiment(
        name=f"multi_view-{arg}",
        task=Towers(
            encoders={m: Dense(hidden=(128,)) for m in views}, width=16,
            objectives={name: (1.0, FORMS[name])}, scale=5.0, learned=False,
        ),
        data=Data(source=LatentViews(modalities=views, latent=6, noise=0.5, rows=(10_000, 500, 1000)), batch_size=256),
        optim=Optim(lr=1e-3, warmup=1, final=1.0, b2=0.999, weight_decay=0.0, clip_norm=0.0),
        evals=(Card(a="a", b="b"), TowerRetrieval(a="a", b="b"), LeaveOneOut()),
        steps=500,
        log_every=50,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """Every form at two and three views."""
    return {f"{f}-{n}": get_config(f"{f}-{n}") for f in FORMS for n in VIEWS}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    card = lambda arm, key: mean(found, arm, "card", key)
    r1 = {arm: mean(found, arm, "retrieval", "a->b r1") for arm in found}
    clauses = {
        "MV-InfoNCE within 0.01 R@1 of all pairs at two views": abs(
            r1["mv_infonce-2"] - r1["pairs-2"]
        )
        <= 0.01
    }
    for n in VIEWS:
        wide, plain = f"mv_dhel-{n}", f"pairs-{n}"
        clauses[f"{n} views: MV-DHEL 1.8 times the effective rank"] = card(wide, "effective_rank") >= 1.8 * card(plain, "effective_rank")  # fmt: skip
        clauses[f"{n} views: MV-DHEL's uniformity lower by 0.4"] = card(wide, "uniformity") <= card(plain, "uniformity") - 0.4  # fmt: skip
    return Verdict(
        clauses=clauses,
        figures={
            f"{a} {k}": spread(values(found, a, "card", k))
            for a in found
            for k in ("effective_rank", "uniformity")
        }
        | {f"{a} R@1": spread(values(found, a, "retrieval", "a->b r1")) for a in found}
        | {
            f"{a} leave-one-out R@1": spread(values(found, a, "leave_one_out", "r1")) for a in found
        },
    )
