"""Measuring this machine: python -m mm.perf joint. Ratios of medians, both sides in one run, in alternation.

joint    what contrast adds to a step of masked generation, at the config's size and at 12 + 12 layers
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

from mm import config, flags, tokenizers
from mm import state as states
from mm.errors import exit_code
from mm.memory import start_with_huge_pages
from mm.optim import make_optimizer
from mm.space import Batch, TokenSpace
from mm.step import make_step
from mm.tasks.joint import Contrast, Joint
from mm.train import machine


def random_batch(space: TokenSpace, rows: int, seed: int = 0) -> Batch:
    """Full-length examples of random tokens: what tokens say does not change the time."""
    rng = np.random.default_rng(seed)
    ids = {
        m.name: rng.integers(0, m.vocabulary.size, (rows, m.size)).astype(np.int32)
        for m in space.modalities
        if m.vocabulary
    }
    length = {m.name: np.full(rows, m.size, np.int32) for m in space.modalities}
    present = {n: np.ones(rows, bool) for n in space.names}
    return Batch(ids, length, present, rng.integers(0, 10, rows).astype(np.int32))


def stepper(
    settings: Joint, optim: config.Optim, space: TokenSpace, rows: int
) -> Callable[[], float]:
    """A function that runs one training step and returns its seconds; compiled already."""
    task = settings.build_for(space)
    tx = make_optimizer(optim, 1000)
    step = jax.jit(make_step(task, tx, optim, 0), donate_argnums=0)
    held: dict[str, Any] = {"state": jax.jit(lambda: states.fresh(task, tx, 0, False))()}
    batch = jax.device_put(random_batch(space, rows))

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


def joint(exp: config.Experiment, pairs: int) -> dict[str, Any]:
    """The joint step over the masked-only step of the same model: the experiment's own, and a deep one whose
    contrast has its default settings."""
    task, rows = exp.task, exp.data.batch_size
    toks = tokenizers.load_all(exp.data.tokenizers)
    space = tokenizers.space_of(toks)
    deep = {"encoder_layers": 12, "decoder_layers": 12, "embed_layers": 2, "scan": True}
    deep |= {"width": 192, "heads": 6}
    found = {}
    larger = dataclasses.replace(
        task, model=dataclasses.replace(task.model, **deep), contrast=Contrast()
    )
    for both in (task, larger):
        masked = dataclasses.replace(both, contrast=Contrast(weight=0.0))
        model = both.model
        layers = f"{model.encoder_layers}+{model.decoder_layers} layers"
        name = f"{layers}, {model.width} wide, K={model.embed_layers}, share {both.contrast.share}"
        steps = [stepper(side, exp.optim, space, rows) for side in (both, masked)]
        found[name] = compare(steps[0], steps[1], pairs)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["joint"])
    parser.add_argument("--pairs", type=int, default=20, help="measured pairs of steps")
    parser.add_argument(
        "--config",
        default="configs/quickstart.py",
        help="whose task, optimizer and batch size; --config.a.b=v overrides a field",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    options, overrides = parser.parse_known_args(argv)
    exp = flags.parse(["mm.perf", "--config", options.config, *overrides]).experiment
    assert exp is not None  # parse raises where there is none
    found = joint(exp, options.pairs)
    if options.json:
        print(json.dumps({"machine": machine(), "joint": found}, indent=1))
        return 0
    print(f"{machine()}, batch {exp.data.batch_size}, {options.pairs} pairs")
    for name, f in found.items():
        low, high = f["quartiles"]
        print(
            f"{name}: joint {f['a_ms']:.0f} ms, masked only {f['b_ms']:.0f} ms, "
            f"ratio {f['ratio']:.3f} (quartiles {low:.3f} .. {high:.3f})"
        )
    return 0


if __name__ == "__main__":
    start_with_huge_pages()
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
