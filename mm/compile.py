"""Compiling a training step for hardware that is not there: --mode=compile --topology=v5e:2x4.

The TPU compiler runs on any x86 machine (extra `tpu`). It says what a chip would hold, which collectives
the step has, and whether it fits; nothing is allocated and no data is read.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from mm import config, progress, sharding
from mm import state as states
from mm.data.opened import open_data
from mm.errors import UserError
from mm.optim import make_optimizer
from mm.slices import find
from mm.step import jitted

GIB = 2**30
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def devices(topology: str, slices: int = 1) -> Any:
    """The devices of a topology ("v5e:2x4") that is not there. Raises UserError: the TPU compiler is not installed."""
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "true"}
    jax.config.update("jax_platforms", "cpu")
    try:
        with _quiet():
            return topologies.get_topology_desc(topology, "tpu", num_slices=slices).devices
    except (RuntimeError, ImportError, jax.errors.JaxRuntimeError) as e:
        reason = " ".join(str(e).split())[:120]
        raise UserError(
            f"--mode=compile: the TPU compiler is not here ({reason}); start with `uv run --extra tpu python -m mm.main`, "
            "or pip install 'jax[tpu]'"
        ) from e


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """libtpu tells standard error that there is no TPU."""
    kept = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def run(exp: config.Experiment, topology: str, slices: int, cache: Any) -> dict[str, Any]:
    """Compiles the training step of `exp`, and says what a chip holds and sends.

    Raises:
      UserError: see `devices`; a mesh that does not divide the slice or the batch.
    """
    one = find(topology, "--topology")
    found = devices(one.topology, slices)
    mesh = sharding.make_mesh(exp.mesh, exp.data.batch_size, found)  # slices lie along `replica`
    if getattr(getattr(exp.task, "model", None), "dtype", "") == "auto":
        exp.task.model.dtype = "bfloat16"  # what `auto` is there
    data = open_data(exp.data, cache, rows=not exp.data.tokenizers)
    task, tx = exp.task.build(data), make_optimizer(exp.optim, exp.steps)
    state = states.abstract(task, tx, exp.seed, exp.optim.ema > 0, mesh)
    undivided = sharding.check_divided({"params": state["params"]}, mesh)
    batch = sharding.abstract_batch(example(data, exp.data.batch_size), mesh)
    step = jitted(task, tx, exp.optim, exp.seed, state)
    chip = one.chip
    report: dict[str, Any] = {
        "config": exp.name,
        "topology": one.topology,
        "slices": slices,
        "chips": len(found),
        "mesh": dict(mesh.shape),
        "batch_size": exp.data.batch_size,
        "parameters": states.count(state["params"]),
        "undivided": undivided,
        "state_bytes_per_chip": shard_bytes(state),
        "memory_per_chip": chip.memory * GIB,
    }
    if hasattr(task, "flops"):
        forward = task.flops(exp.data.batch_size)
        report["forward_flops"] = forward
        report["step_flops"] = 3 * sum(forward.values())
        report["least_step_seconds"] = report["step_flops"] / (chip.flops * len(found))
    with progress.work(f"compiling for {len(found)} chips of {one.topology}", delay=0.0):
        try:
            program = step.lower(state, batch).compile()
        except jax.errors.JaxRuntimeError as e:
            return report | {"memory": None, "fits": False} | too_large(str(e))
    memory = program.memory_analysis()
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "of them in place": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    total = sum(parts.values()) - 2 * parts["of them in place"]
    return report | {
        "memory": parts | {"total": total},
        "fits": total <= chip.memory * GIB,
        "collectives": collectives(program.as_text()),
    }


def example(data: Any, batch_size: int) -> Any:
    """Shapes and dtypes of a batch."""
    shapes = data.abstract_batch(batch_size)
    if shapes is None:
        batch = next(data.batches("train", seed=0, start=0, steps=1, batch_size=batch_size))
        shapes = jax.eval_shape(lambda: batch)
    return shapes


def shard_bytes(tree: Any) -> int:
    """Bytes of a tree of sharded shapes that lie on one device."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
    )


def too_large(message: str) -> dict[str, Any]:
    """How much a program that does not fit wants, from the compiler's message. Raises UserError: it refuses the program for another reason."""
    number = r"([\d.]+)([KMGT])"
    used = re.search(rf"Used {number} of {number} hbm", message)
    used = used or re.search(rf"\({number}\) exceeds available HBM \({number}\)", message)
    if not used:
        raise UserError(f"--mode=compile: the compiler refuses the step: {' '.join(message.split())[:300]}")  # fmt: skip
    size = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    wanted, there = float(used[1]) * size[used[2]], float(used[3]) * size[used[4]]
    return {"needed": wanted, "memory_per_chip": there}


def collectives(text: str) -> dict[str, dict[str, float]]:
    """Of a compiled program's text, per kind of collective: how many run in a step, and the bytes of their results.

    What stands in the body of a loop counts once per turn.
    """
    bodies = dict(computations(text))
    entry = next(name for name, lines in bodies.items() if name.startswith("ENTRY "))
    found: dict[str, dict[str, float]] = {}

    def count(name: str, times: int) -> None:
        for line in bodies.get(name, ()):
            for kind, size in _collective(line):
                of_kind = found.setdefault(kind, {"count": 0, "bytes": 0})
                of_kind["count"] += times
                of_kind["bytes"] += times * size
            turns = _turns(line, bodies)
            for called in re.findall(
                r"(?:body|calls|to_apply|true_computation|false_computation)=%?([\w.-]+)", line
            ):
                count(called, times * turns)
            if branches := re.search(r"branch_computations=\{([^}]*)\}", line):
                for called in branches[1].replace("%", "").split(", "):
                    count(called, times)

    count(entry, 1)
    return found


def _turns(line: str, bodies: dict[str, list[str]]) -> int:
    """How often the body of a loop runs: what its condition counts up to; 1 of any other line."""
    condition = re.search(r"condition=%?([\w.-]+)", line)
    limits = (
        re.findall(r" constant\((\d+)\)", "\n".join(bodies.get(condition[1], ())))
        if condition
        else []
    )
    return max(map(int, limits), default=1)


def computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """The name and the lines of every computation in the text of an HLO module; the entry's begins with "ENTRY "."""
    name, lines = "", []
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.-]+) .*\{$", line):
            name, lines = (head[1] or "") + head[2], []
        elif line.startswith("}") and name:
            yield name, lines
            name = ""
        elif name:
            lines.append(line)


WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}  # fmt: skip


def _collective(line: str) -> Iterator[tuple[str, float]]:
    found = re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
    if found:
        sizes = [
            WIDTHS.get(kind, 4) * float(np.prod([int(n) for n in dims.split(",") if n] or [1]))
            for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", found[1])
        ]
        # The result of a start holds its operands as well.
        yield found[2], max(sizes) if found[3] else sum(sizes)


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for people."""
    gib = lambda size: f"{size / GIB:.2f} GiB"
    mesh = " x ".join(f"{k} {v}" for k, v in report["mesh"].items())
    slices = f"{report['slices']} slices of " if report["slices"] > 1 else ""
    yield f"{report['config']} on {slices}{report['topology']}: {report['chips']} chips, {mesh}, batch {report['batch_size']}"
    yield f"{report['parameters']:,} parameters; state {gib(report['state_bytes_per_chip'])} a chip"
    yield from report["undivided"]
    if "step_flops" in report:
        parts = ", ".join(f"{k} {v:.3g}" for k, v in report["forward_flops"].items())
        yield f"FLOPs of a step {report['step_flops']:.4g} (forward: {parts}), at the chips' peak {report['least_step_seconds'] * 1e3:.3g} ms"
    if report["memory"]:
        yield "memory a chip: " + ", ".join(f"{k} {gib(v)}" for k, v in report["memory"].items())
        for kind, of_kind in report["collectives"].items():
            yield f"{kind}: {of_kind['count']:.0f} a step, {gib(of_kind['bytes'])} a chip"
    limit = report["memory_per_chip"]
    used = report["memory"]["total"] if report["memory"] else report["needed"]
    over, word = abs(limit - used), "fits" if report["fits"] else "does not fit"
    left = f"{gib(over)} are left" if report["fits"] else f"{gib(over)} too much"
    yield f"{word}: {gib(used)} of {gib(limit)}, {left}"
