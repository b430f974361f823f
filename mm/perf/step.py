"""Where the time of a training step goes, and how much of the machine's matrix products it gets.

The loop's own parts are timed as the loop runs them: the batch from Grain, the jitted step, the log, an asynchronous
checkpoint. Forward and backward are programs of their own; the optimizer is what the whole step takes longer.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from etils.epath import Path

from mm import checkpoint, config, metrics, sharding
from mm import state as states
from mm.data.opened import open_data
from mm.models.encoder_decoder import compute_dtype
from mm.optim import make_optimizer
from mm.step import jitted
from mm.tasks import weighted
from mm.train import machine, peak_memory_mib

SIDE = 2048  # of the square matrices whose product is the machine's peak
CALLS = 10  # of a step without work, to time its dispatch


def measure(exp: config.Experiment, rounds: int, cache: Path) -> dict[str, Any]:
    """Milliseconds of a step and its parts, shares of it, FLOP/s, memory."""
    data = open_data(exp.data, cache)
    task, tx = exp.task.build(data), make_optimizer(exp.optim, exp.steps)
    size = exp.data.batch_size
    mesh = sharding.make_mesh(exp.mesh, size)
    shapes = states.abstract(task, tx, exp.seed, exp.optim.ema > 0, mesh)
    state = states.init(task, tx, exp.seed, exp.optim.ema > 0, mesh)
    batches = data.batches("train", seed=0, start=0, steps=10**6, batch_size=size)
    batch = sharding.put_batch(next(batches), mesh)
    began = time.perf_counter()
    program = jitted(task, tx, exp.optim, exp.seed, shapes).lower(shapes, batch).compile()
    compiling = time.perf_counter() - began
    memory = program.memory_analysis()
    forward, gradient = _parts(task, exp.seed)
    jax.block_until_ready((forward(state, batch), gradient(state, batch)))
    state, report = program(state, batch)

    times: dict[str, list[float]] = {}
    held: dict[str, Any] = {"state": state, "report": report}

    def take(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = jax.block_until_ready(work())
        times.setdefault(name, []).append((time.perf_counter() - start) * 1e3)
        return made

    def step() -> Any:
        held["state"], held["report"] = program(held["state"], batch)
        return held["report"]

    def batched() -> Any:
        return sharding.put_batch(next(batches), mesh)

    peak, dispatch = matmul(), _dispatch(state, batch)
    with tempfile.TemporaryDirectory() as folder:
        log = metrics.Log(metrics.Writers(metrics.Jsonl(Path(folder) / "m.jsonl", 0)), exp, start=0)
        kept = checkpoint.Checkpoints(Path(folder) / "checkpoints", keep=1)
        for i in range(1, rounds + 1):
            take("forward", lambda: forward(held["state"], batch))
            take("forward and backward", lambda: gradient(held["state"], batch))
            take("step", step)
            take("host input", batched)
            take("metrics", lambda i=i: (log.add(i, held["report"]), log.flush())[1])
            take("matmul", peak)
            take("dispatch", dispatch)
            if i in (1, rounds // 2 + 1, rounds):
                kept.wait()
                take("checkpoint", lambda i=i: kept.save(i, held["state"], {"tokenizers": {}}))
        kept.close()
    return _figures(times, exp, task, compiling, memory)


def _parts(task: Any, seed: int) -> tuple[Any, Any]:
    """The loss, and its gradient, as programs."""

    def loss(params: Any, buffers: Any, batch: Any) -> jax.Array:
        terms, _ = task.loss(params, buffers, batch, jax.random.key(seed))
        return weighted(terms, task.weights)

    return (
        jax.jit(lambda s, b: loss(s["params"], s["buffers"], b)),
        jax.jit(lambda s, b: jax.grad(loss)(s["params"], s["buffers"], b)),
    )


def matmul() -> Callable[[], jax.Array]:
    """The product of two square matrices, in the type that models compute in here."""
    x = jnp.ones((SIDE, SIDE), compute_dtype("auto"))
    product = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(product(x, x))
    return lambda: product(x, x)


def _dispatch(state: Any, batch: Any) -> Callable[[], Any]:
    """`CALLS` calls, one after the other, of a step that has the arrays of this one and nothing to do: each is a number."""
    numbers = lambda tree: jax.tree.map(lambda x: jnp.zeros((), x.dtype), tree)
    held = {"state": numbers(state)}
    step = jax.jit(lambda state, batch: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    small = numbers(batch)

    def calls() -> Any:
        for _ in range(CALLS):
            held["state"] = step(held["state"], small)
        return held["state"]

    jax.block_until_ready(calls())
    return calls


def _figures(
    times: dict[str, list[float]], exp: config.Experiment, task: Any, compiling: float, memory: Any
) -> dict[str, Any]:
    median = {name: statistics.median(t) for name, t in times.items()}
    step = median["step"]
    found: dict[str, Any] = {
        "ms": {
            "step": step,
            "forward": median["forward"],
            "backward": median["forward and backward"] - median["forward"],
            "optimizer": step - median["forward and backward"],
            "host input": median["host input"],
            "metrics": median["metrics"],
            "checkpoint stall": median["checkpoint"],
            "dispatch": median["dispatch"] / CALLS,
        },
        "share": {
            "host input": median["host input"] / step,
            "metrics": median["metrics"] / step,
            "checkpoints": median["checkpoint"] / (step * max(exp.save_every, 100)),
        },
        "examples_per_second": exp.data.batch_size / step * 1e3,
        "compile_seconds": compiling,
        "program_mib": {
            "arguments": memory.argument_size_in_bytes / 2**20,
            "temporaries": memory.temp_size_in_bytes / 2**20,
        },
        "peak_memory_mib": peak_memory_mib(),
        "machine": machine(),
    }
    if hasattr(task, "flops"):
        rate = 3 * sum(task.flops(exp.data.batch_size).values()) / step * 1e3
        peak = 2 * SIDE**3 / min(times["matmul"]) * 1e3
        found["gflops"] = {"step": rate / 1e9, "matmul": peak / 1e9}
        found["of_peak"] = rate / (peak * len(jax.devices()))
    return found


def lines(found: dict[str, Any]) -> Iterator[str]:
    """For people."""
    yield "  ".join(f"{name} {value:.2f} ms" for name, value in found["ms"].items())
    yield "of a step: " + ", ".join(f"{n} {value:.2%}" for n, value in found["share"].items())
    if "of_peak" in found:
        rate = found["gflops"]
        yield f"{rate['step']:.0f} GFLOP/s of {rate['matmul']:.0f} that a matrix product of {SIDE} x {SIDE} gets: {found['of_peak']:.0%}"
    yield f"{found['examples_per_second']:.1f} examples/s; compiled in {found['compile_seconds']:.0f} s; peak memory {found['peak_memory_mib']:.0f} MiB"
