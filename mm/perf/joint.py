"""What contrast adds to a step of masked generation: at the config's size, and at 12 + 12 layers."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from mm import config
from mm import state as states
from mm.data.opened import open_data
from mm.optim import make_optimizer
from mm.perf.batch import random_batch
from mm.space import TokenSpace
from mm.step import make_step
from mm.tasks.joint import Contrast, Joint


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


def beside(a: str, b: str, figures: dict[str, Any]) -> str:
    """What `compare` found of two things, for people."""
    low, high = figures["quartiles"]
    times = f"{a} {figures['a_ms']:.0f} ms, {b} {figures['b_ms']:.0f} ms"
    return f"{times}, ratio {figures['ratio']:.3f} (quartiles {low:.3f} .. {high:.3f})"


def measure(exp: config.Experiment, pairs: int, cache: Any) -> dict[str, Any]:
    """The joint step over the masked-only step of the same model: the experiment's own, and a deep one whose
    contrast has its default settings."""
    task, rows = exp.task, exp.data.batch_size
    space: Any = open_data(exp.data, cache, rows=False).space
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


def lines(found: dict[str, Any]) -> Iterator[str]:
    """For people."""
    for name, figures in found.items():
        yield f"{name}: {beside('joint', 'masked only', figures)}"
