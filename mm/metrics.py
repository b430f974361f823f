"""Where numbers go while a run lasts: small writers behind one interface, `write(step, values)`."""

import json
import math
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from etils.epath import Path

from mm import config, progress
from mm.errors import UserError
from mm.optim import schedule
from mm.paths import is_local

FAR = 30.0  # seconds between two copies to a file system that is elsewhere


class Writer(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the values of one step."""
        ...

    def close(self) -> None: ...


class Jsonl:
    """Every value of every logged step as one JSON line, {"step": .., name: value, ..}, in `path`.

    Lines of steps after `start` (a run that was killed and goes on from an older checkpoint) are dropped.
    """

    def __init__(self, path: Path, start: int):
        text = path.read_bytes().decode(errors="replace") if path.exists() else ""
        kept = [line for line in text.splitlines() if _step_of(line) <= start]
        self.file = Appended(path, "".join(line + "\n" for line in kept))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        # What is not finite is no JSON: null says that there was something.
        rounded = {k: float(f"{v:.8g}") if math.isfinite(v) else None for k, v in values.items()}
        self.file.write(json.dumps({"step": step} | rounded) + "\n")

    def close(self) -> None:
        self.file.close()


class Appended:
    """A text file that grows. Elsewhere than on this machine files cannot, and are written anew every `FAR` seconds."""

    def __init__(self, path: Path, text: str):
        self.path, self.text, self.written = path, text, time.monotonic()
        path.write_text(text)
        self.file = path.open("a") if is_local(path) else None

    def write(self, text: str) -> None:
        if self.file:
            self.file.write(text)
            self.file.flush()
            return
        self.text += text
        if time.monotonic() - self.written > FAR:
            self._write()

    def _write(self) -> None:
        self.path.write_text(self.text)
        self.written = time.monotonic()

    def close(self) -> None:
        if self.file:
            self.file.close()
        else:
            self._write()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed run may be cut
        return float("inf")


class TensorBoard:
    """The same values as TensorBoard event files in `folder`; written below `cache`, and copied, where that is elsewhere."""

    def __init__(self, folder: Path, start: int, cache: Path):
        from tensorboardX import SummaryWriter  # 0.3 s to import

        self.folder = folder
        self.near = folder if is_local(folder) else cache / "tensorboard"
        self.writer = SummaryWriter(os.fspath(self.near), purge_step=start + 1)
        self.copied = time.monotonic()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, step)
        if time.monotonic() - self.copied > FAR:
            self._copy()

    def _copy(self) -> None:
        if self.near != self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.near.iterdir():
                path.copy(self.folder / path.name, overwrite=True)
        self.copied = time.monotonic()

    def close(self) -> None:
        self.writer.close()
        self._copy()


class Bar:
    """What a person follows: the step, the time left, loss, speed and terms (`mm.progress` says where and how)."""

    def __init__(self, steps: int, start: int):
        self.work = progress.Work("step", total=steps, done=start, delay=0.0)
        self.work.note = "compiling"

    def write(self, step: int, values: Mapping[str, float]) -> None:
        first = ("loss", "examples/s", "validation/loss")
        terms = [
            k for k in values if k.count("/") == 1 and not k.startswith(("validation", *first))
        ]
        shown = [k for k in first if k in values] + terms
        if values.get("skipped"):
            shown.append("skipped")
        self.work.update(step, "  ".join(f"{k} {values[k]:.4g}" for k in shown))

    def close(self) -> None:
        self.work.close()


class Writers:
    """Several writers as one."""

    def __init__(self, *writers: Writer):
        self.writers = writers

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for writer in self.writers:
            writer.write(step, values)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class Log:
    """Metrics on their way to the writers, one step late, so that the host never waits for the device."""

    def __init__(self, writers: Writers, exp: config.Experiment, start: int):
        self.writers, self.exp = writers, exp
        self.rate = schedule(exp.optim, exp.steps)
        self.pending: tuple[int, dict[str, Any]] | None = None
        self.step_ms: list[float] = []
        self.bad, self.first = 0, start + 1
        self.clock: float | None = None

    def restart(self) -> None:
        """Forgets the time that went into something else than steps."""
        self.clock = None

    def add(self, step: int, report: dict[str, Any]) -> None:
        self.flush()
        self.pending = (step, report)

    def flush(self) -> None:
        """Fetches and writes the pending step; stops a run that cannot be saved by skipping steps.

        Raises:
          UserError: too many steps in a row were not finite; names the terms.
        """
        if self.pending is None:
            return
        step, report = self.pending
        self.pending = None
        fetched: dict[str, Any] = jax.device_get(report)
        values = {k: float(v) for k, v in fetched.items()}
        now = time.monotonic()
        if self.clock is not None and step > self.first + 1:
            self.step_ms.append((now - self.clock) * 1e3)
        self.clock = now
        self.bad = self.bad + 1 if values["skipped"] else 0
        if self.bad:
            broken = [k for k, v in values.items() if v != v or abs(v) == float("inf")]
            print(f"step {step}: skipped, not finite: {', '.join(broken)}")
        if self.bad > self.exp.bad_steps:
            raise UserError(
                f"step {step}: {self.bad} steps in a row were not finite ({', '.join(broken)}); lower config.optim.lr, or start from the last checkpoint"
            )
        if (
            due(step, self.exp.log_every)
            or step == self.exp.steps
            or step == self.first
            or self.bad
            or any("cosine/" in k for k in values)
        ):
            if self.step_ms:
                values["examples/s"] = (
                    self.exp.data.batch_size / statistics.median(self.step_ms[-50:]) * 1e3
                )
            self.writers.write(step, values | {"lr": float(np.asarray(self.rate(step - 1)))})


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
