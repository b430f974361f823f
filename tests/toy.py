"""A small task and data set for tests of the loop: linear regression, with failures on demand."""

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TRUE = np.arange(1.0, 5.0, dtype=np.float32)


class Column:
    fingerprint = "toy"

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.rows[index]


@dataclasses.dataclass(kw_only=True, slots=True)
class Toy:
    """Random points; `group` is the row. Row `broken` of the training points holds a NaN (-1: none; -2: all do)."""

    rows: int = 64
    broken: int = -1
    modalities: tuple[str, ...] = ("x",)

    def open(self, cache: Path, corrupt: Any) -> None:
        """Nothing to build."""

    def columns(self, split: str) -> dict[str, Column]:
        seed = ("train", "validation", "test").index(split)
        points = np.random.default_rng(seed).normal(size=(self.rows, 4)).astype(np.float32)
        if split == "train" and self.broken != -1:
            points[self.broken if self.broken >= 0 else slice(None)] = np.nan
        return {"x": Column(points)}

    def order(self, split: str, seed: int, epoch: int) -> dict[str, np.ndarray]:
        order = np.arange(self.rows)
        if split == "train":
            order = np.random.default_rng((seed, epoch)).permutation(order)
        return {"x": order, "group": order.astype(np.int32)}


def order_of(rows: jax.Array) -> jax.Array:
    """A number that tells which rows a batch has and in which order; exact, however they are summed up."""
    return (rows * (jnp.arange(len(rows)) % 13 + 1)).sum().astype(jnp.float32)


@dataclasses.dataclass(kw_only=True, slots=True)
class Regress:
    """Fits w to x . TRUE under noise drawn from the step's key."""

    noise: float = 0.1
    outputs: int = 1
    scales: tuple[float, ...] = (1.0,)

    def build(self, data: Any) -> "RegressTask":
        return RegressTask(self)


class RegressTask:
    weights = {"fit/square": 1.0, "decay/size": 1e-4}

    def __init__(self, settings: Regress):
        self.settings = settings

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        kernel = jax.random.normal(key, (4, self.settings.outputs))
        return {"layer": {"kernel": kernel}}, {"seen": jnp.zeros((), jnp.int32)}

    def loss(
        self, params: Any, buffers: Any, batch: Any, key: jax.Array
    ) -> tuple[dict[str, Any], Any]:
        x = batch["x"]
        y = x @ TRUE + self.settings.noise * jax.random.normal(key, (x.shape[0],))
        w = params["layer"]["kernel"]
        square = jnp.square(x @ w[:, 0] - y).sum()
        terms = {
            "fit/square": (square, jnp.asarray(float(x.shape[0]))),
            "decay/size": (jnp.square(w).sum(), jnp.ones(())),
            "order": (order_of(batch["group"]), jnp.ones(())),
        }
        return terms, {"seen": buffers["seen"] + 1}

    def export(self, params: Any, buffers: Any, folder: Path) -> None:
        """No artefact."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Error:
    """Distance to the true weights; can send this process a signal, as a scheduler would.

    Attributes:
      signal_at: the step; 0 = never. hold: seconds to take before it, after: and behind it.
    """

    signal_at: int = 0
    signal_number: int = signal.SIGTERM
    hold: float = 0.0
    after: float = 0.0
    name: str = "error"
    when: str = "interval"

    def run(self, run: Any) -> Any:
        yield (
            "distance",
            float(np.abs(np.asarray(run.params["layer"]["kernel"])[:, 0] - TRUE).max()),
        )
        time.sleep(self.hold)
        if self.signal_at and int(run.buffers["seen"]) == self.signal_at:
            os.kill(os.getpid(), self.signal_number)
            time.sleep(self.after)
            yield "awaited", 1.0
