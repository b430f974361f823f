"""Bits whose pairs say nothing of each other, and whose whole says everything."""

import dataclasses
from typing import Any

import numpy as np

from mm.data.made import MadeSource


def every_value(bits: int) -> np.ndarray:
    """float32[2^bits, bits]."""
    return ((np.arange(2**bits)[:, None] >> np.arange(bits)) & 1).astype(np.float32)


@dataclasses.dataclass(kw_only=True)
class Xor(MadeSource):
    """a and b are fair bits; c is their exclusive or with probability p, one draw per row, else a.

    Attributes:
      missing: probability that a modality of a training or validation row is absent (test rows are whole).
    """

    bits: int = 5
    p: float = 1.0
    missing: float = 0.0
    modalities: tuple[str, ...] = ("a", "b", "c")

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, Any]:
        a, b = rng.integers(0, 2, (2, rows, self.bits))
        mixed = rng.random((rows, 1)) < self.p
        columns = {"a": a, "b": b, "c": np.where(mixed, a ^ b, a)}
        made: dict[str, Any] = {name: x.astype(np.float32) for name, x in columns.items()}
        if self.missing and split != "test":
            made["present"] = {name: rng.random(rows) >= self.missing for name in columns}
        return made

    def ceiling(self) -> float:
        """Accuracy of the best guess of b from a and c: c that differs from a gives b away, else all are as likely."""
        return (1 + (2**self.bits - 1) * self.p) / 2**self.bits


@dataclasses.dataclass(kw_only=True)
class Parity(MadeSource):
    """m0, m1, ... are one fair bit each, the last one the exclusive or of all others."""

    modalities: tuple[str, ...] = tuple(f"m{i}" for i in range(8))

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, np.ndarray]:
        free = rng.integers(0, 2, (rows, len(self.modalities) - 1))
        whole = np.concatenate([free, free.sum(1, keepdims=True) % 2], 1).astype(np.float32)
        return {name: whole[:, i : i + 1] for i, name in enumerate(self.modalities)}
