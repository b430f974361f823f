"""SLAP and BYOL: each tower predicts what a slow teacher makes of both modalities; no negatives, so batches may be small.

    python -m mm.papers run slap

Two noisy views of a latent of 16 dimensions, embeddings of 16; 1,000 steps. The gradient of a batch is compared with the mean of
those of its eight parts.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.latent import LatentViews
from mm.config import Data, Experiment, Optim
from mm.evals.ranks import ranked
from mm.evals.towers import Card, TowerRetrieval, rows_of
from mm.models.towers import Dense
from mm.objectives.contrastive.forms import AllPairs
from mm.objectives.contrastive.forms_with_needs import Predicted
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run, weighted
from mm.tasks.towers import Towers, TowersTask

WIDTH, PARTS = 16, 8
VIEWS = ("x", "y")
HEAD = Dense(hidden=(64,))
ARMS = {"slap": (Predicted(), 0.99, HEAD), "no-predictor": (Predicted(), 0.99, None), "infonce": (AllPairs(target=same_example), 0.0, None)}  # fmt: skip
PAPER = Paper(
    title="SLAP: Siamese Language-Audio Pretraining Without Negative Samples (BYOL between modalities)",
    numbers=(42,),
    row="20",
    status="D/U",
    formula="2 - 2 cos(predictor of a modality's embedding, embedding of a modality by a moving average of the encoders), over all "
    "pairs of modalities, a modality with itself too; no negatives.",
    expected="gradients of eight parts average to the whole's (1e-6 of its length), InfoNCE's must not; effective rank of embeddings "
    "at least half their width after 1,000 steps. Retrieval, and training without a predictor, are reported.",
)


@dataclasses.dataclass(kw_only=True, slots=True)
class ByPrediction:
    """Recall at 1 of y's teacher embeddings by what x's predictor makes of x."""

    name: str = "by_prediction"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        task, group = run.task, np.arange(len(rows_of(run, "x")))
        z = np.stack([task.embed(run.params, m, rows_of(run, m)) for m in VIEWS])
        held = run.params | run.buffers.get("teacher", {})
        known = task.embed(held, "y", rows_of(run, "y"))
        asked = np.asarray(task.predicted(run.params, z))[0]
        yield "r1", float((ranked(asked, known, group, group).first == 0).mean())


def get_config(arg: str = "slap") -> Experiment:
    """`slap`, `no-predictor` or `infonce`."""
    form, teacher, predictor = ARMS[arg]
    return Experiment(
        name=f"slap-{arg}",
        task=Towers(
            encoders={m: Dense(hidden=(128,)) for m in VIEWS}, width=WIDTH,
            objectives={"contrast": (1.0, form)}, scale=10.0, learned=False,
            teacher=teacher, predictor=predictor,
        ),
        data=Data(source=LatentViews(latent=16, noise=0.3, rows=(10_000, 500, 1000)), batch_size=128),
        optim=Optim(lr=2e-3, warmup=50, b2=0.999, weight_decay=0.0, clip_norm=0.0),
        evals=(Card(a="x", b="y"), TowerRetrieval(a="x", b="y"), ByPrediction()),
        steps=1000,
        log_every=100,
    )  # fmt: skip


def accumulated(seed: int) -> dict[str, Any]:
    """Length of (mean gradient of eight parts - gradient of the whole) / length of the whole's."""
    rng, out = np.random.default_rng(seed), {}
    batch = {m: rng.normal(size=(64, 32)).astype(np.float32) for m in VIEWS}
    batch |= {"group": np.arange(64, dtype=np.int32), "present": {m: np.ones(64, bool) for m in VIEWS}}  # fmt: skip
    for arm in ("slap", "infonce"):
        task = TowersTask(get_config(arm).task, dict.fromkeys(VIEWS, (32,)))
        params, buffers = task.init(jax.random.key(seed))
        buffers = jax.tree.map(lambda x: 0.9 * x, buffers)

        def loss(p: Any, b: Any, task: Any = task, buffers: Any = buffers) -> jax.Array:
            return weighted(task.loss(p, buffers, b, jax.random.key(0))[0], task.weights)

        def flat(b: Any, loss: Any = loss, params: Any = params) -> jax.Array:
            return jnp.concatenate([g.ravel() for g in jax.tree.leaves(jax.grad(loss)(params, b))])

        parts = jax.tree.map(lambda x: x.reshape(PARTS, -1, *x.shape[1:]), batch)
        whole, summed = jax.jit(lambda b, p, f=flat: (f(b), jax.vmap(f)(p).mean(0)))(batch, parts)
        out[arm] = float(jnp.linalg.norm(summed - whole) / jnp.linalg.norm(whole))
    return {"gradient": out}


def arms() -> dict[str, Any]:
    """See `ARMS`, and the comparison of gradients, which is not trained."""
    return {name: get_config(name) for name in ARMS} | {"accumulated": accumulated}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    rank = mean(found, "slap", "card", "effective_rank")
    off = {a: values(found, "accumulated", "gradient", a) for a in ("slap", "infonce")}
    return Verdict(
        clauses={
            "eight parts have the whole's gradient (1e-6)": max(off["slap"]) <= 1e-6,
            "InfoNCE's do not (off by 1% at least)": min(off["infonce"]) >= 0.01,
            "effective rank at least half the width": rank >= WIDTH / 2,
        },
        figures={
            f"{a} {k}": spread(values(found, a, "card", k))
            for a in ARMS
            for k in ("effective_rank", "uniformity", "gap")
        }
        | {f"{a} R@1": spread(values(found, a, "retrieval", "x->y r1")) for a in ARMS}
        | {"slap R@1 by predictions": spread(values(found, "slap", "by_prediction", "r1"))}
        | {"gradient off, InfoNCE": spread(off["infonce"]), "gradient off, SLAP (1e-6)": spread([1e6 * x for x in off["slap"]])},
    )  # fmt: skip
