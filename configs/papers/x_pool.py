"""X-Pool, GLSCL and TEFAL: a caption picks the frames it speaks of, and the sounds.

    python -m mm.papers run x_pool

Videos of 8 frames (pictures of 8 x 8 pixels, each the sum of four of 48 patterns, and noise) with 8 sounds of the same kind. The
caption names the patterns of one frame and of one sound; the other seven are about something else.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mm.config import Data, Experiment, Optim
from mm.data.made import MadeSource
from mm.evals.ranks import ranked
from mm.evals.towers import embedded, rows_of
from mm.models.towers import Patches, Words
from mm.objectives.contrastive.forms_with_needs import Conditioned
from mm.objectives.contrastive.similarity import conditioned_scores
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run
from mm.tasks.towers import Towers

FRAMES, SIDE, SLOTS, VALUES = 8, 8, 4, 12
STREAMS = ("frames", "sounds")
PICK, AVERAGE = 0.1, 1e4  # temperatures; the second one is mean pooling
ARMS = {
    "mean": (STREAMS[:1], AVERAGE), "conditioned": (STREAMS[:1], PICK),
    "mean-sounds": (STREAMS, AVERAGE), "conditioned-sounds": (STREAMS, PICK),
}  # fmt: skip
PAPER = Paper(
    title="X-Pool, GLSCL (its pooling), and TEFAL",
    numbers=(47, 150, 24),
    row="28",
    status="U",
    formula="Each caption pools the frames of every video by the softmax of its products with them / temperature, and is compared "
    "with what it pooled; without projections. TEFAL: the same over sounds, added. Mean pooling: a temperature of 10,000.",
    expected="R@1 of videos by captions at least 20 points above mean pooling, which must fail (at most 0.30); sounds as a second "
    "stream that is conditioned add 5 points, and are 20 points above mean pooling of both.",
    seeds=3,
)


@dataclasses.dataclass(kw_only=True)
class Videos(MadeSource):
    """Columns: frames, sounds float32[8, 8 x 8] side by side, caption int32[8], 0 = no word.

    Attributes:
      noise: standard deviation, of a pattern's 1.
    """

    noise: float = 0.5
    rows: tuple[int, int, int] = (8000, 500, 500)
    modalities: tuple[str, ...] = (*STREAMS, "caption")

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, Any]:
        patterns = np.random.default_rng([self.seed, 99]).normal(
            size=(len(STREAMS), SLOTS, VALUES, SIDE, SIDE)
        )
        value = rng.integers(0, VALUES, (len(STREAMS), rows, FRAMES, SLOTS))
        named = rng.integers(0, FRAMES, (len(STREAMS), rows))
        slots, made, words = np.arange(SLOTS), {}, []
        for i, stream in enumerate(STREAMS):
            frames = patterns[i, slots, value[i]].sum(2)  # [rows, 8, side, side]
            frames += self.noise * rng.normal(size=frames.shape)
            made[stream] = frames.swapaxes(1, 2).reshape(rows, SIDE, -1).astype(np.float32)
            words.append(1 + (i * SLOTS + slots) * VALUES + value[i, np.arange(rows), named[i]])
        return made | {"caption": np.concatenate(words, 1).astype(np.int32)}


@dataclasses.dataclass(kw_only=True, slots=True)
class ConditionedRetrieval:
    """Recall at 1 of videos by captions, and back, with the scores that were trained."""

    temperature: float
    split: str = "test"
    name: str = "retrieval"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        *streams, caption = run.task.settings.encoders
        read = lambda n: run.task.embed_tokens(run.params, n, rows_of(run, n, self.split))
        query = embedded(run, caption, self.split)
        score = jax.jit(conditioned_scores, static_argnums=2)
        scores = np.asarray(score(query, [read(n) for n in streams], self.temperature))
        own, group = np.eye(len(scores), dtype=np.float32), np.arange(len(scores))
        for name, s in (("caption->video", scores), ("video->caption", scores.T)):
            yield f"{name} r1", float((ranked(s, own, group, group).first == 0).mean())


def get_config(arg: str = "conditioned") -> Experiment:
    """See `ARMS`."""
    streams, temperature = ARMS[arg]
    words = Words(vocabulary=1 + len(STREAMS) * SLOTS * VALUES, layers=0)
    return Experiment(
        name=f"x_pool-{arg}",
        task=Towers(
            encoders={n: Patches(side=SIDE, layers=0) for n in streams} | {"caption": words}, width=32,
            objectives={"contrast": (1.0, Conditioned(temperature=temperature, target=same_example))},
        ),
        data=Data(source=Videos(), batch_size=64),
        optim=Optim(lr=2e-3, warmup=50, b2=0.98, weight_decay=0.01, clip_norm=0.0),
        evals=(ConditionedRetrieval(temperature=temperature),),
        steps=600,
        log_every=100,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """See `ARMS`."""
    return {name: get_config(name) for name in ARMS}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    r1 = {a: mean(found, a, "retrieval", "caption->video r1") for a in ARMS}
    return Verdict(
        clauses={
            "frames: 20 points above mean pooling": r1["conditioned"] >= r1["mean"] + 0.20,
            "frames: mean pooling fails (at most 0.30)": r1["mean"] <= 0.30,
            "sounds add 5 points": r1["conditioned-sounds"] >= r1["conditioned"] + 0.05,
            "both: 20 points above mean pooling": r1["conditioned-sounds"]
            >= r1["mean-sounds"] + 0.20,
        },
        figures={
            f"{a} {way}": spread(values(found, a, "retrieval", f"{way} r1"))
            for a in ARMS
            for way in ("caption->video", "video->caption")
        },
    )
