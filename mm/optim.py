"""The optimizer: AdamW or Muon, with warmup and cosine decay, clipped by the global norm."""

import re
from collections.abc import Hashable
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from mm import config
from mm.errors import UserError
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


def matrices(params: Any) -> Any:
    """Which axes of a parameter are a matrix from inputs to outputs: the last two of every kernel (any
    before them count blocks), None for what is no kernel."""
    axes = lambda p: MuonDimensionNumbers(p.ndim - 2, p.ndim - 1)
    return jax.tree.map(lambda p, d: axes(p) if d else None, params, decays(params))


def make_optimizer(settings: config.Optim, steps: int) -> optax.GradientTransformation:
    """Raises UserError for a `kind` that does not exist."""
    rate = schedule(settings, steps)
    if settings.kind == "adamw":
        made = optax.adamw(
            rate, b1=settings.b1, b2=settings.b2, weight_decay=settings.weight_decay, mask=decays
        )
    elif settings.kind == "muon":
        made = muon(
            rate, beta=settings.momentum, ns_steps=settings.newton_schulz, weight_decay=settings.weight_decay,
            adam_b1=settings.b1, adam_b2=settings.b2, muon_weight_dimension_numbers=matrices,
            consistent_rms=0.2,
        )  # fmt: skip
    else:
        raise UserError(f"config.optim.kind={settings.kind!r}: use adamw or muon")
    if settings.clip_norm:
        made = optax.chain(optax.clip_by_global_norm(settings.clip_norm), made)
    if not settings.frozen:
        return made
    kinds: dict[Hashable, Any] = {"trained": made, "frozen": optax.set_to_zero()}
    return optax.multi_transform(kinds, lambda params: frozen(settings.frozen, params))


def frozen(pattern: str, params: Any) -> Any:
    """`frozen` where the path of a parameter has the pattern, `trained` elsewhere.

    Raises:
      UserError: no regular expression, or one that leaves all, or none, of them to be trained.
    """
    try:
        found = re.compile(pattern)
    except re.error as e:
        raise UserError(f"config.optim.frozen={pattern!r}: no regular expression ({e})") from e
    label = lambda path, _: "frozen" if found.search(path_name(path)) else "trained"
    labels = jax.tree_util.tree_map_with_path(label, params)
    if len(kinds := {*jax.tree.leaves(labels)}) == 1:
        said = (
            "leaves nothing to be trained" if "frozen" in kinds else "is the path of no parameter"
        )
        raise UserError(f"config.optim.frozen={pattern!r}: {said}; change it, or leave it out")
    return labels
