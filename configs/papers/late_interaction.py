"""FILIP and late interaction: tokens that find each other bind attributes to objects.

    python -m mm.papers run late_interaction

Pictures of two sprites and their captions; asked: is "a red heart and a blue square" nearer to its picture than "a blue heart and a
red square"? The same two small transformers, contrasted by the mean of their tokens or token by token.
"""

from data_pipelines.sprites import WORDS, Sprites
from mm.config import Data, Experiment, Optim
from mm.evals.towers import Swapped, TowerRetrieval
from mm.models.towers import Patches, Words
from mm.objectives.contrastive.forms import AllPairs
from mm.objectives.contrastive.forms_with_needs import Late
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks.towers import Towers

ARMS = {
    "pooled": AllPairs(target=same_example),
    "max": Late(target=same_example),
    "softmax": Late(target=same_example, pool="softmax"),
}
PAPER = Paper(
    title="FILIP: Fine-grained Interactive Language-Image Pre-Training (with CiCo's softmax)",
    numbers=(26, 33, 83, 141),
    row="26",
    status="U",
    formula="Score of a picture and a caption: the mean over its patches of the best product with a word; of the caption and the "
    "picture the same the other way round; softmax cross-entropy of each.",
    expected="with token-wise scores the right caption beats the one with colours exchanged at least 10 points more often than with "
    "pooled vectors, which must stay near 0.5.",
    seeds=3,
)


def get_config(arg: str = "max") -> Experiment:
    """`pooled`, `max` or `softmax`."""
    return Experiment(
        name=f"late_interaction-{arg}",
        task=Towers(
            encoders={"image": Patches(side=8), "caption": Words(vocabulary=len(WORDS))},
            width=32, objectives={"contrast": (1.0, ARMS[arg])},
        ),
        data=Data(
            source=Sprites(level=3, objects=2, modalities=("image", "caption", "swapped")), batch_size=64,
        ),
        optim=Optim(lr=1e-3, warmup=50, b2=0.98, weight_decay=0.01, clip_norm=0.0),
        evals=(Swapped(a="image", b="caption", wrong="swapped", late=arg != "pooled"), TowerRetrieval(a="image", b="caption")),
        steps=300,
        log_every=50,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """See `ARMS`."""
    return {name: get_config(name) for name in ARMS}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    right = {a: mean(found, a, "swapped", "accuracy") for a in ARMS}
    return Verdict(
        clauses={
            "the best word: 10 points more than pooled": right["max"] >= right["pooled"] + 0.10,
            "softmax over words: 10 points more than pooled": right["softmax"]
            >= right["pooled"] + 0.10,
            "pooled fails (at most 0.65)": right["pooled"] <= 0.65,
        },
        figures={f"{a} swapped": spread(values(found, a, "swapped", "accuracy")) for a in ARMS},
    )
