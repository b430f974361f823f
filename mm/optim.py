"""The optimizer: AdamW with warmup and cosine decay, clipped by the global norm."""

from typing import Any

import jax
import optax

from mm import config
from mm.sharding import path_name


def schedule(settings: config.Optim, steps: int) -> optax.Schedule:
    """Learning rate per step: linear warmup to `lr`, cosine decay to `final` * lr at `steps`."""
    # optax wants at least one step of decay, also of a run that is all warmup.
    return optax.warmup_cosine_decay_schedule(
        0.0,
        settings.lr,
        settings.warmup,
        max(steps, settings.warmup + 1),
        settings.lr * settings.final,
    )


def decays(params: Any) -> Any:
    """Which parameters weight decay pulls at: the kernels of linear layers (not embeddings, norms, biases)."""
    return jax.tree_util.tree_map_with_path(lambda p, _: path_name(p).endswith("kernel"), params)


def make_optimizer(settings: config.Optim, steps: int) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(
            schedule(settings, steps),
            b1=settings.b1,
            b2=settings.b2,
            weight_decay=settings.weight_decay,
            mask=decays,
        ),
    )
