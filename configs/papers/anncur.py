"""ANNCUR: exact scores of a query with a few anchors tell which items to score exactly.

    python -m mm.papers run anncur

Scores of a scorer that looks at both sides at once: tanh of a product of rank 10, and noise of 0.05. 500 training queries are
scored with all 5,000 items; 200 test queries with the anchors, and with the 100 items that look best by them. Reported beside
it, without a bar: a generative scorer, log p(caption | picture) of the model that ships with mm, 20 captions that are scored with
128 pictures of digits, and 8 that are asked.
"""

import functools
from typing import Any

import jax
import numpy as np

import mm
from data_pipelines.digit_assets import ASSETS, read_images, read_labels
from data_pipelines.digit_captions import Texts
from mm.evals.rescoring import by_anchors, rescored
from mm.papers import Found, Paper, Verdict, mean, spread, values

ANCHORS, BUDGET = (25, 50, 100, 200), 100
PICTURES, CAPTIONS, ASKED = 128, 28, 8  # of the generative scorer
FEW = 20  # its anchors, and the pictures that are rescored
PAPER = Paper(
    title="Efficient Nearest Neighbor Search for Cross-Encoder Models using Matrix Factorization",
    numbers=(32, 219),
    row="32",
    status="M",
    formula="Scores of a query with all items = its scores with the anchors x pseudo-inverse of the anchors' columns x the "
    "training queries' scores.",
    expected="recall of the best 10 at least 0.55 with 50 anchors and 100 rescored; as many random items must fail (0.03).",
)


def measure(seed: int) -> dict[str, Any]:
    """Recall at 10 after rescoring, by the number of anchors; and with as many random items."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(5000, 10))
    score = lambda q: np.tanh(q @ items.T / 10**0.5) + 0.05 * rng.normal(size=(len(q), len(items)))
    train, test = (score(rng.normal(size=(n, 10))) for n in (500, 200))
    out = {}
    for number in ANCHORS:
        anchors = rng.permutation(len(items))[:number]
        estimate = by_anchors(test[:, anchors], train, anchors)
        guess = rescored(rng.random(test.shape), test, BUDGET + number)
        out[f"{number} anchors"] = {
            "recall": share(rescored(estimate, test, BUDGET), test, 10),
            "random": share(guess, test, 10),
        }
    return out


@functools.cache
def likelihoods() -> np.ndarray:
    """log p(caption | picture) in nats, float32[CAPTIONS, PICTURES]; captions are of other test pictures."""
    model, images = mm.load(), read_images(ASSETS, "test")
    texts = Texts(images, read_labels(ASSETS)["test_labels"])
    captions = texts[2 * np.arange(PICTURES, PICTURES + CAPTIONS) + 1]
    caption, picture = np.divmod(np.arange(CAPTIONS * PICTURES), PICTURES)
    ids, length = model.tokens({"text": captions})["text"]
    text = ids[caption], length[caption]
    ids, length = model.tokens({"image": images[:PICTURES]})["image"]
    image = {"image": (ids[picture], length[picture])}
    found = model.task.score(model.params, image, "text", text, key=jax.random.key(0))
    return found.reshape(CAPTIONS, PICTURES)


def generative(seed: int) -> dict[str, Any]:
    """Recall of the 5 likeliest pictures after rescoring, and of as many random ones as were scored; drawn: who is asked, anchors."""
    rng, scores = np.random.default_rng(seed), likelihoods()
    order, anchors = rng.permutation(CAPTIONS), rng.permutation(PICTURES)[:FEW]
    test, train = scores[order[:ASKED]], scores[order[ASKED:]]
    estimate = by_anchors(test[:, anchors], train, anchors)
    guess = rescored(rng.random(test.shape), test, 2 * FEW)
    return {
        "likelihood": {
            "recall": share(rescored(estimate, test, FEW), test, 5),
            "random": share(guess, test, 5),
        }
    }


def share(picked: np.ndarray, exact: np.ndarray, k: int) -> float:
    """Mean share of the k best columns that are among the first k of those picked."""
    best = np.argsort(-exact, axis=1)[:, :k]
    return float(np.mean([len({*p[:k]} & {*b}) / k for p, b in zip(picked, best, strict=True)]))


def arms() -> dict[str, Any]:
    """None is trained."""
    return {"made": measure, "generative": generative}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    names = [f"{number} anchors" for number in ANCHORS]
    recall = {n: mean(found, "made", n, "recall") for n in names}
    return Verdict(
        clauses={
            "50 anchors: at least 0.55": recall["50 anchors"] >= 0.55,
            "random items fail (at most 0.1)": max(mean(found, "made", n, "random") for n in names)
            <= 0.1,
        },
        figures={
            f"{n} {k}": spread(values(found, "made", n, k))
            for n in names
            for k in ("recall", "random")
        }
        | {f"likelihood {k}": spread(values(found, "generative", "likelihood", k)) for k in ("recall", "random")},
    )  # fmt: skip
