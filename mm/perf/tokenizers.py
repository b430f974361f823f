"""How fast tokenizers write and read: the experiment's, a call of many rows each, and what share of the machine that gets."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils.epath import Path

from mm import config
from mm.data.opened import open_data
from mm.perf.step import SIDE, matmul
from mm.tokenizers import Tokenizer
from mm.tokenizers.autoencoder import AutoencoderTokenizer

ROWS = 1024


def measure(exp: config.Experiment, rounds: int, cache: Path) -> dict[str, Any]:
    """Per modality, of `encode` and of `decode`: rows and tokens a second, and of jitted ones the seconds to compile, MiB of
    temporaries of the largest call, GFLOP/s and what share of the machine's matrix products that is.

    What is timed is the whole way, from arrays of the host to arrays of the host.
    """
    data = open_data(exp.data, cache)
    peak, found = matmul(), {}
    for name, tokenizer in data.tokenizers.items():
        column = data.raw("train")[name]
        raw = column[np.arange(ROWS) % len(column)]
        programs = _programs(tokenizer)  # first, or the compiler would know them
        ids, length = tokenizer.encode(raw)
        work = {
            "encode": lambda t=tokenizer, x=raw: t.encode(x),
            "decode": lambda t=tokenizer, x=(ids, length): t.decode(*x),
        }
        times: dict[str, list[float]] = {}
        for part in work.values():
            part()
        for _ in range(rounds):
            for part, run in {**work, "matmul": lambda: jax.block_until_ready(peak())}.items():
                times.setdefault(part, []).append(_seconds(run))
        product = 2 * SIDE**3 / min(times["matmul"])
        found[name] = {
            part: _figures(statistics.median(times[part]), ids.shape, programs.get(part), product)
            for part in work
        }
    return found


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _programs(tokenizer: Tokenizer) -> dict[str, tuple[Any, int, float]]:
    """Of a jitted tokenizer: the compiled program of each part, its rows, and the seconds that it took to compile."""
    found = {}
    if isinstance(tokenizer, AutoencoderTokenizer):
        for part in ("encode", "decode"):
            began = time.perf_counter()
            program, rows = tokenizer.compiled(part)
            found[part] = program, rows, time.perf_counter() - began
    return found


def _figures(
    seconds: float, shape: tuple[int, ...], program: Any, product: float
) -> dict[str, float]:
    rows, places = shape
    found = {"rows_per_second": rows / seconds, "tokens_per_second": rows * places / seconds}
    if program is None:
        return found
    compiled, size, compiling = program
    cost: Any = compiled.cost_analysis() or {}
    rate = cost.get("flops", 0.0) / size * rows / seconds
    return found | {
        "compile_seconds": compiling,
        "temporaries_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        "gflops": rate / 1e9,
        "of_peak": rate / product,
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """For people."""
    for name, parts in found.items():
        for part, figures in parts.items():
            line = f"{name} {part}: {figures['rows_per_second']:.0f} rows/s, {figures['tokens_per_second']:.0f} tokens/s"
            if "of_peak" in figures:
                line += (
                    f"; compiled in {figures['compile_seconds']:.1f} s, {figures['temporaries_mib']:.0f} MiB of temporaries, "
                    f"{figures['gflops']:.1f} GFLOP/s: {figures['of_peak']:.0%} of a matrix product of {SIDE} x {SIDE}"
                )
            yield line
