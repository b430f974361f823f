"""ALIGN and improved baselines: the loss of a batch on eight devices is that of one, and augmentation is what few pairs lack.

    python -m mm.papers run improved_baselines

Pictures of two sprites and their captions, 1,000 pairs; who has the same caption is the same. Two small towers with or without
the recipe: pictures shifted, stretched and in other light, a tenth of the words forgotten, a weight decay of 0.1. Eight devices are
simulated in a program of their own, which this file is too.
"""

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines.sprites import WORDS, Sprites
from mm import config, sharding
from mm.config import Data, Experiment, Optim
from mm.evals.towers import TowerRetrieval
from mm.models.towers import Conv, Words
from mm.objectives.contrastive.augment import forgotten, moved
from mm.objectives.contrastive.forms import AllPairs
from mm.objectives.contrastive.forms_with_needs import Augmented
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import weighted
from mm.tasks.towers import Towers, TowersTask

DEVICES, ROWS = 8, 64
NAMES = ("image", "caption")
WAYS = ("image->caption r1", "caption->image r1")
PAPER = Paper(
    title="Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision (ALIGN), and Improved "
    "baselines for vision-language pre-training",
    numbers=(7, 35),
    row="9",
    status="D/U",
    formula="CLIP's loss with all negatives of a batch that is divided among devices; a recipe of image and text augmentation and "
    "regularisation around it.",
    expected="loss and gradients on eight devices within 1e-5 of one device's (of their length), which contrasts of each device's own rows must "
    "fail (off by 1% at least); with the recipe R@1 at least 5% (relative) above training without it, which must not reach it.",
)


def lit(key: jax.Array, pictures: jax.Array) -> jax.Array:
    """Pictures uint8 shifted and stretched a little, 0.8 to 1.25 times as bright."""
    move_key, light_key = jax.random.split(key)
    seen = moved(move_key, pictures, shift=0.06, zoom=0.1).astype(jnp.float32)
    light = jnp.exp(jax.random.uniform(light_key, (len(seen), 1, 1, 1), minval=-0.22, maxval=0.22))
    return jnp.clip(light * seen, 0, 255).round().astype(jnp.uint8)


ARMS = {"plain": (AllPairs(), 0.01), "recipe": (Augmented(form=AllPairs(), by={"image": lit, "caption": forgotten}), 0.1)}  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class Named(Sprites):
    """Two sprites; a group is a caption."""

    objects: int = 2
    rows: tuple[int, int, int] = (1000, 1000, 2000)

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, Any]:
        made = super().made(rng, rows, split)
        _, group = np.unique(made["caption"], axis=0, return_inverse=True)
        return made | {"group": group.reshape(-1)}


def get_config(arg: str = "recipe") -> Experiment:
    """`plain` or `recipe`."""
    form, decay = ARMS[arg]
    return Experiment(
        name=f"improved_baselines-{arg}",
        task=Towers(
            encoders={"image": Conv(channels=(16, 32, 64)), "caption": Words(vocabulary=len(WORDS), layers=1)},
            width=32, objectives={"contrast": (1.0, form)},
        ),
        data=Data(source=Named(), batch_size=ROWS),
        optim=Optim(lr=2e-3, warmup=50, b2=0.98, weight_decay=decay, clip_norm=0.0),
        evals=(TowerRetrieval(a="image", b="caption"),),
        steps=400,
        log_every=100,
    )  # fmt: skip


def differences(seed: int) -> dict[str, float]:
    """How far loss and gradient of a batch are from one device's, relative: on all devices, and of contrasts within each one's rows."""
    made = Named().made(np.random.default_rng(seed), ROWS, "train")
    batch = {n: made[n] for n in NAMES} | {"group": made["group"].astype(np.int32)}
    batch["present"] = {n: np.ones(ROWS, bool) for n in NAMES}
    task = TowersTask(get_config("plain").task, {n: made[n].shape[1:] for n in NAMES})
    params, _ = jax.jit(task.init)(jax.random.key(seed))
    key = jax.random.key(seed)

    def loss(params: Any, batch: Any) -> jax.Array:
        return weighted(task.loss(params, {}, batch, key)[0], task.weights)

    def parted(params: Any, batch: Any) -> jax.Array:
        parts = jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), batch)
        return jax.vmap(loss, (None, 0))(params, parts).mean()

    def both(function: Any, mesh: Mesh | None = None) -> tuple[float, np.ndarray]:
        placed = (params, batch)
        if mesh:
            whole = NamedSharding(mesh, PartitionSpec())
            placed = (jax.device_put(params, whole), sharding.put_batch(batch, mesh))
        with sharding.traced_on(mesh) if mesh else contextlib.nullcontext():
            value, grads = jax.jit(jax.value_and_grad(function))(*placed)
        return float(value), np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])

    mesh = sharding.make_mesh(config.Mesh(replica=DEVICES, fsdp=1, tensor=1), ROWS)
    value, grads = both(loss)
    off = lambda v, g: max(abs(v / value - 1), float(np.linalg.norm(g - grads) / np.linalg.norm(grads)))  # fmt: skip
    return {"all rows": off(*both(loss, mesh)), "own rows": off(*both(parted))}


@functools.cache
def on_devices() -> list[dict[str, float]]:
    """`differences` of every seed, by a program with so many simulated devices."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}", "JAX_PLATFORMS": "cpu"}  # fmt: skip
    command = [sys.executable, "-m", "configs.papers.improved_baselines"]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, check=True)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def divided(seed: int) -> dict[str, Any]:
    """One seed of `on_devices`."""
    return {"devices": on_devices()[seed]}


def arms() -> dict[str, Any]:
    """See `ARMS`, and the comparison of devices, which is not trained."""
    return {name: get_config(name) for name in ARMS} | {"divided": divided}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    r1 = {a: np.mean([mean(found, a, "retrieval", way) for way in WAYS]) for a in ARMS}
    off = {k: values(found, "divided", "devices", k) for k in ("all rows", "own rows")}
    return Verdict(
        clauses={
            "eight devices: loss and gradients within 1e-5": max(off["all rows"]) <= 1e-5,
            "each device's own rows are off by 1% at least": min(off["own rows"]) >= 0.01,
            "the recipe: R@1 5% higher": bool(r1["recipe"] >= 1.05 * r1["plain"]),
        },
        figures={f"{a} {way}": spread(values(found, a, "retrieval", way)) for a in ARMS for way in WAYS}
        | {"eight devices, off by (1e-6)": spread([1e6 * x for x in off["all rows"]]), "own rows, off by": spread(off["own rows"])},
    )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps([differences(seed) for seed in range(PAPER.seeds)]))
