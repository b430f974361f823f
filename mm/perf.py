"""Measuring this machine: python -m mm.perf joint. Ratios of medians, both sides in one run, in alternation.

joint    what contrast adds to a step of masked generation, at the quickstart's size and at 12 + 12 layers
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mm import config
from mm import state as states
from mm.models.encoder_decoder import Model
from mm.objectives.masking import Masking
from mm.optim import make_optimizer
from mm.space import Batch, Grid, Modality, Sequence, TokenSpace, Vocabulary
from mm.step import make_step
from mm.tasks.joint import Contrast, Joint, JointTask
from mm.train import machine

SPACE = TokenSpace(
    (
        Modality(name="a", vocabulary=Vocabulary(name="a", size=256), layout=Grid(h=4, w=4)),
        Modality(name="b", vocabulary=Vocabulary(name="b", size=512), layout=Grid(w=16)),
        Modality(
            name="c",
            vocabulary=Vocabulary(name="c", size=300, eos=0),
            layout=Sequence(max_len=8),
            order="left_to_right",
        ),
    )
)
"""Three modalities of the quickstart's sizes; what the tokens say does not change the time."""


def random_batch(rows: int) -> Batch:
    rng = np.random.default_rng(0)
    ids = {
        m.name: rng.integers(0, m.vocabulary.size, (rows, m.size)).astype(np.int32)
        for m in SPACE.modalities
        if m.vocabulary
    }
    length = {m.name: np.full(rows, m.size, np.int32) for m in SPACE.modalities}
    present = {n: np.ones(rows, bool) for n in SPACE.names}
    return Batch(ids, length, present, rng.integers(0, 10, rows).astype(np.int32))


def stepper(settings: Joint, rows: int) -> Callable[[], float]:
    """A function that runs one training step and returns its seconds; compiled already."""
    task, optim = JointTask(settings, SPACE), config.Optim()
    tx = make_optimizer(optim, 1000)
    step = jax.jit(make_step(task, tx, optim, 0), donate_argnums=0)
    held: dict[str, Any] = {"state": jax.jit(lambda: states.fresh(task, tx, 0, False))()}
    batch = jax.device_put(random_batch(rows))

    def run() -> float:
        began = time.perf_counter()
        held["state"], report = step(held["state"], batch)
        jax.block_until_ready((held["state"], report))
        return time.perf_counter() - began

    run()
    run()
    return run


def compare(a: Callable[[], float], b: Callable[[], float], pairs: int) -> dict[str, Any]:
    """Median time of each, and the median of the ratios a / b of neighbours, a and b in turn."""
    times = [(a(), b()) for _ in range(pairs)]
    first, second = (statistics.median(t) for t in zip(*times, strict=True))
    ratios = sorted(x / y for x, y in times)
    return {
        "a_ms": first * 1e3,
        "b_ms": second * 1e3,
        "ratio": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
    }


def joint(pairs: int, rows: int) -> dict[str, Any]:
    """The joint step over the masked-only step of the same model."""
    sizes = {
        "3+3 layers, K=1": Model(width=192, heads=6, scan=False),
        "12+12 layers, K=2": Model(
            width=192, heads=6, encoder_layers=12, decoder_layers=12, embed_layers=2
        ),
    }
    found = {}
    for name, model in sizes.items():
        both = Joint(model=model, masking=Masking(), contrast=Contrast())
        masked = dataclasses.replace(both, contrast=Contrast(weight=0.0))
        found[name] = compare(stepper(both, rows), stepper(masked, rows), pairs)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["joint"])
    parser.add_argument("--pairs", type=int, default=20, help="measured pairs of steps")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(argv)
    found = joint(options.pairs, options.batch)
    if options.json:
        print(json.dumps({"machine": machine(), "joint": found}, indent=1))
        return 0
    print(f"{machine()}, batch {options.batch}, {options.pairs} pairs")
    for name, f in found.items():
        low, high = f["quartiles"]
        print(
            f"{name}: joint {f['a_ms']:.0f} ms, masked only {f['b_ms']:.0f} ms, "
            f"ratio {f['ratio']:.3f} (quartiles {low:.3f} .. {high:.3f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
