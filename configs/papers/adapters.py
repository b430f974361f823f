"""Adapters that begin as nothing: sixteen pictures of each of three colours, and three other colours are asked too.

    python -m mm.papers run adapters

Towers trained on sprites and captions in six colours. Then another look (faint, tinted, noisy): 16 pictures of each of three
base colours, told apart by their captions; asked about the base colours and about the three others. Trained further are all weights, or
factors of rank 4 beside the frozen kernels (LoRA). Prompts (MaPLe, MMRL) are not here.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from statistics import fmean
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_pipelines.sprites import (
    ATTRIBUTES,
    COLOURS,
    LEVELS,
    VALUES,
    WORDS,
    Combinations,
    caption,
    drawn_pictures,
    pixels,
)
from mm.config import Data, Experiment, Optim
from mm.models.adapters import adapted, low_rank
from mm.models.layers import unit
from mm.models.towers import Dense, Words
from mm.objectives.contrastive.forms import AllPairs
from mm.papers import Found, Paper, Verdict, spread, values
from mm.tasks import Run
from mm.tasks.towers import Towers

SIDE, SHOTS, STEPS, LEVEL = 16, 16, 200, 3
SIZES = tuple(len(VALUES[a]) if LEVELS[a] <= LEVEL else 1 for a in ATTRIBUTES)
BASE, NEW = (0, 1, 2), (3, 4, 5)  # colours
PARTS = ("base", "new", "harmonic")
RATES = {"full": (1e-4, 1e-3), "lora": (1e-3, 3e-3)}
PAPER = Paper(
    title="Adapter tuning of two towers: RS5M and GeoRSCLIP (LoRA), FineCLIPER",
    numbers=(134, 97),
    row="57",
    status="D/U",
    formula="Every kernel W is frozen and W + A B in its place, A normal, B zero at the start, both of rank 4; softmax cross-entropy of "
    "pictures over the base colours, each the mean embedding of its captions.",
    expected="embeddings before the first step are those without adapters to the bit, which factors that are both random must fail; after it the harmonic "
    "mean of accuracy among base colours and among new ones is above full finetuning's, which must fail to reach it.",
)


def look(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The other look of pictures float32[n, side, side, 3] from -1 to 1."""
    return (0.6 * pictures + [0.3, 0.0, -0.3] + 0.3 * rng.normal(size=pictures.shape)).astype(np.float32)  # fmt: skip


def examples(rng: np.random.Generator, colours: tuple[int, ...], each: int) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Pictures of the other look, so many of each colour, and their colours' places in `colours`."""
    has = np.stack([rng.integers(0, n, each * len(colours)) for n in SIZES], 1)
    label = np.tile(np.arange(len(colours)), each)
    has[:, ATTRIBUTES.index("colour")] = np.array(colours)[label]
    return look(pixels(drawn_pictures(has[:, None], SIDE, rng)), rng), label


def sentences() -> np.ndarray:
    """int32[colours, shapes x sizes, words]: all captions of each colour."""
    every = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), 1)
    of = lambda c: every[every[:, ATTRIBUTES.index("colour")] == c][:, None]
    return np.stack([np.stack([caption(x, LEVEL) for x in of(c)]) for c in range(len(COLOURS))])


def logits(task: Any, params: Any, image: jax.Array, words: jax.Array) -> jax.Array:
    """[pictures, colours]."""
    z = task.embedded(params, "caption", words.reshape(-1, words.shape[-1]))
    centres = unit(z.reshape(*words.shape[:2], -1).mean(1))
    return task.scale(params) * task.embedded(params, "image", image) @ centres.T


def scored(task: Any, params: Any, image: np.ndarray, words: np.ndarray) -> np.ndarray:
    """`logits` of many pictures."""
    return np.asarray(jax.jit(logits, static_argnums=0)(task, params, image, words))


@partial(jax.jit, static_argnums=(0, 1))
def finetuned(task: Any, kind: str, rate: float, params: Any, key: jax.Array, image: jax.Array, label: jax.Array, words: jax.Array) -> Any:  # fmt: skip
    """The parameters after `STEPS` steps on all examples, of all weights or of adapters."""
    start = params if kind == "full" else low_rank(params, 4, key)
    used = (lambda x: x) if kind == "full" else partial(adapted, params)
    optimizer = optax.adam(optax.cosine_decay_schedule(1.0, STEPS))

    def cost(x: Any) -> jax.Array:
        scores = logits(task, used(x), image, words)
        return optax.softmax_cross_entropy_with_integer_labels(scores, label).mean()

    def step(carry: Any, _: Any) -> Any:
        x, state = carry
        updates, state = optimizer.update(jax.grad(cost)(x), state)
        updates = jax.tree.map(lambda u: rate * u, updates)
        return (optax.apply_updates(x, updates), state), None

    return used(jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)[0][0])


def moved(task: Any, params: Any, key: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Largest change of embeddings by fresh adapters, and by factors that are both random."""
    fresh = low_rank(params, 4, key)
    drawn = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), fresh)
    embed = jax.jit(lambda p: task.embedded(p, "image", image))
    off = lambda adapters: jnp.abs(embed(adapted(params, adapters)) - embed(params)).max()
    return off(fresh), off(drawn)


@dataclasses.dataclass(kw_only=True, slots=True)
class FewShot:
    """Accuracy among base colours and among new ones of pictures of the other look, before and after finetuning.

    The learning rate is the better one of two on other pictures, of each way to finetune by itself.

    Attributes:
      draws: of the shots, over which figures are means. asked: pictures of each colour.
    """

    draws: int = 2
    asked: int = 300
    name: str = "few_shot"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        task, params, words = run.task, run.params, sentences()
        found: dict[str, list[float]] = {}
        rates: dict[str, float] = {}
        for draw in range(-1, self.draws):  # the first one chooses the rates
            rng = np.random.default_rng([run.data.source.seed, draw + 1, 97])
            key = jax.random.key(draw + 1)
            shots, label = examples(rng, BASE, SHOTS)
            tests = [(c, *examples(rng, c, self.asked)) for c in (BASE, NEW)]

            def accuracies(p: Any, tests: Any = tests) -> list[float]:
                right = [
                    float((scored(task, p, x, words[list(c)]).argmax(1) == y).mean())
                    for c, x, y in tests
                ]
                return [*right, 2 / sum(1 / max(r, 1e-9) for r in right)]

            def after(kind: str, rate: float, of: Any = (key, shots, label)) -> list[float]:
                return accuracies(finetuned(task, kind, rate, params, *of, words[list(BASE)]))

            if draw < 0:
                rates = {
                    k: max(some, key=lambda r, k=k: after(k, r)[-1]) for k, some in RATES.items()
                }
                continue
            off = moved(task, params, key, shots)
            figures = {"fresh adapters move": float(off[0]), "random factors move": float(off[1])}
            tuned = {k: after(k, r) for k, r in rates.items()}
            for kind, parts in ({"none": accuracies(params)} | tuned).items():
                figures |= {f"{kind} {n}": x for n, x in zip(PARTS, parts, strict=True)}
            for name, value in figures.items():
                found.setdefault(name, []).append(value)
        yield from ((name, fmean(x)) for name, x in found.items())
        yield from ((f"{kind} rate", rate) for kind, rate in rates.items())


def get_config(arg: str = "pretrained") -> Experiment:
    """One, of which both ways to finetune start."""
    return Experiment(
        name=f"adapters-{arg}",
        task=Towers(
            encoders={"image": Dense(hidden=(256,)), "caption": Words(vocabulary=len(WORDS), layers=0)}, width=32,
            objectives={"contrast": (1.0, AllPairs())},
        ),
        data=Data(source=Combinations(scaled=True, level=LEVEL, side=SIDE, rows=(10_000, 500, 500)), batch_size=64),
        optim=Optim(lr=1e-3, warmup=50, b2=0.98, weight_decay=0.01, clip_norm=0.0),
        evals=(FewShot(),),
        steps=500,
        log_every=100,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """See `get_config`."""
    return {"pretrained": get_config()}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    of = lambda figure: values(found, "pretrained", "few_shot", figure)
    return Verdict(
        clauses={
            "fresh adapters change nothing (exactly)": max(of("fresh adapters move")) == 0,
            "random factors do (1e-3)": min(of("random factors move")) >= 1e-3,
            "LoRA: harmonic mean above full finetuning's": fmean(of("lora harmonic")) > fmean(of("full harmonic")),
        },
        figures={f"{k}, {n}": spread(of(f"{k} {n}")) for k in ("none", *RATES) for n in PARTS},
    )  # fmt: skip
