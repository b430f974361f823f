"""Slices of Cloud TPU: what they are called, how many hosts they have, what a chip holds and computes.

Sources: Google's documentation of Cloud TPU (versions, runtime versions, GKE node labels), read in November 2026; memory
is what the TPU compiler says of a program that is too large.
"""

import dataclasses
import math

from mm.errors import UserError, nearest


@dataclasses.dataclass(frozen=True, slots=True)
class Chip:
    """One generation.

    Attributes:
      memory: GiB of HBM per chip that a program may use. flops: peak bfloat16 FLOP/s per chip.
      counted: what the number in a slice's name counts per chip (v4 and v5p count TensorCores, two a chip).
      accelerator, runtime: how the Cloud TPU API calls it, and its VM image. node: the label of its nodes in GKE.
      one_host: the largest slice, in chips, that has a single host; larger ones have a host per 4 chips.
      shapes: the slices that can be had.
    """

    memory: float
    flops: float
    counted: int
    accelerator: str
    runtime: str
    node: str
    one_host: int
    shapes: tuple[str, ...]


FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")  # fmt: skip
CHIPS = {
    "v4": Chip(30.75, 275e12, 2, "v4", "tpu-ubuntu2204-base", "tpu-v4-podslice", 4, CUBES),
    "v5e": Chip(15.75, 197e12, 1, "v5litepod", "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", 8, FLAT),
    "v5p": Chip(95.74, 459e12, 2, "v5p", "v2-alpha-tpuv5", "tpu-v5p-slice", 4, CUBES),
    "v6e": Chip(31.25, 918e12, 1, "v6e", "v2-alpha-tpuv6e", "tpu-v6e-slice", 8, FLAT),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """A slice: `generation` and `shape` ("v5e", "16x16")."""

    generation: str
    shape: str

    @property
    def chip(self) -> Chip:
        return CHIPS[self.generation]

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.shape.split("x")))

    @property
    def hosts(self) -> int:
        return 1 if self.chips <= self.chip.one_host else self.chips // 4

    @property
    def topology(self) -> str:
        """As the TPU compiler calls it: "v5e:16x16"."""
        return f"{self.generation}:{self.shape}"

    @property
    def name(self) -> str:
        """As people call it: "v5e-256"."""
        return f"{self.generation}-{self.chips * self.chip.counted}"

    @property
    def accelerator_type(self) -> str:
        """As the Cloud TPU API calls it: "v5litepod-256"."""
        return f"{self.chip.accelerator}-{self.chips * self.chip.counted}"


SLICES = tuple(Slice(name, shape) for name, chip in CHIPS.items() for shape in chip.shapes)


def find(text: str, flag: str) -> Slice:
    """The slice called "v5e:16x16", "v5e-256" or "v5litepod-256". Raises UserError naming `flag`: there is none."""
    known = {n: s for s in SLICES for n in (s.topology, s.name, s.accelerator_type)}
    if text not in known:
        raise UserError(f"{flag}={text}: no such slice{nearest(text, known)}")
    return known[text]
