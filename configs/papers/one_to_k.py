"""1-to-K: a picture and its K translations in one loss, so that no language is left behind.

    python -m mm.papers run one_to_k

Five views of a latent of 10 dimensions: an image, and a text in each of four languages; one text tower, told of the language
by a vector. Rival ways to train it: one language per image, drawn 85 : 5 : 5 : 5; the first language as a pivot; a pair loss
per language.
"""

import dataclasses

import numpy as np

from data_pipelines.latent import LatentViews
from mm.config import Data, Experiment, Optim
from mm.evals.towers import Languages
from mm.models.towers import Dense, Tied
from mm.objectives.contrastive.forms import OneToK, Pairs
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks.towers import Towers

TEXTS = ("t0", "t1", "t2", "t3")
DRAWN = (0.85, 0.05, 0.05, 0.05)
ALL = tuple((0, k) for k in range(1, 5))
ARMS = {
    "one language": Pairs(of=ALL, target=same_example),
    "pivot": Pairs(of=((0, 1), (1, 2), (1, 3), (1, 4)), target=same_example),
    "K pair losses": Pairs(of=ALL, target=same_example),
    "1-to-K": OneToK(),
}
NAMES = {name.replace(" ", "_"): name for name in ARMS}
PAPER = Paper(
    title="Improving the Consistency in Cross-Lingual Cross-Modal Retrieval with 1-to-K Contrastive Learning",
    numbers=(16, 120),
    row="17",
    status="M",
    formula="Image to text: - 1/K sum over its K texts of log p among all texts in all languages; text to image: one of all images.",
    expected="rank variance at most 0.25 times that of one language per image, which must fail, and worst language 5 points higher; equal to K "
    "pair losses within noise: the gain comes from equal exposure, not from the loss.",
)


@dataclasses.dataclass(kw_only=True)
class Translations(LatentViews):
    """See the module. one: of each training row a single text is there, drawn by `DRAWN`."""

    one: bool = False
    latent: int = 10
    modalities: tuple[str, ...] = ("image", *TEXTS)

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, np.ndarray]:
        made = LatentViews.made(self, rng, rows, split)
        if self.one and split != "test":
            drawn = rng.choice(len(TEXTS), size=rows, p=DRAWN)
            made["present"] = {name: drawn == k for k, name in enumerate(TEXTS)}
        return made


def get_config(arg: str = "1-to-K") -> Experiment:
    """An arm."""
    arg = NAMES.get(arg, arg)
    encoders = {"image": Dense(hidden=(128,)), "t0": Dense(hidden=(128,))} | {
        t: Tied(to="t0") for t in TEXTS[1:]
    }
    return Experiment(
        name=f"one_to_k-{arg}".replace(" ", "_"),
        task=Towers(encoders=encoders, width=16, objectives={"contrast": (1.0, ARMS[arg])}),
        data=Data(source=Translations(one=arg == "one language", rows=(10_000, 500, 1000)), batch_size=256),
        optim=Optim(lr=1e-3, warmup=1, final=1.0, b2=0.999, weight_decay=0.0, clip_norm=0.0),
        evals=(Languages(image="image", texts=TEXTS),),
        steps=500,
        log_every=50,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """See `ARMS`."""
    return {name: get_config(name) for name in NAMES}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    mrv, worst = (
        {NAMES[a]: mean(found, a, "languages", k) for a in found} for k in ("mrv", "worst")
    )
    return Verdict(
        clauses={
            "rank variance at most 0.25 times": mrv["1-to-K"] <= 0.25 * mrv["one language"],
            "worst language 5 points higher": worst["1-to-K"] >= worst["one language"] + 0.05,
            "equal to K pair losses within 2 points": abs(worst["1-to-K"] - worst["K pair losses"])
            <= 0.02,
        },
        figures={
            f"{NAMES[a]} {k}": spread(values(found, a, "languages", k))
            for a in found
            for k in ("mrv", "worst", "mean")
        },
    )
