"""Stopping politely: a signal is remembered, and acted on between two steps; what can be done again is left at once."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mm import hosts


class Stopped(BaseException):
    """Raised by a signal in a block that may be left at once."""


class Signals:
    """Ctrl-C and SIGTERM ask for a stop after this step; a second one stops at once.

    Attributes:
      asked: the name of the signal that came; None = none.
    """

    def __enter__(self) -> "Signals":
        self.asked: str | None = None
        self.leaves = False
        self.before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, _: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        if self.leaves:
            self.leaves = False
            raise Stopped

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a signal ends where it stands, as what it does can be done again: `asked` tells."""
        with contextlib.suppress(Stopped):
            try:
                self.leaves = True
                yield
            finally:
                self.leaves = False

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Agreed:
    """A word that any host may say, heard by all behind the same step.

    Each step asks all devices, and reads the answer of the step before: nobody waits for it.
    """

    def __init__(self, mesh: Mesh, said: Callable[[], Any]):
        self.said = said
        self.answer: jax.Array | None = None
        if hosts.several():
            self.layout = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
            self.size = mesh.size
            self.any = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def now(self) -> bool:
        """Whether it was said; on several hosts, whether any had said it one step ago."""
        if not hosts.several():
            return bool(self.said())
        before, own = self.answer, np.array([bool(self.said())], np.int32)
        asked = jax.make_array_from_callback((self.size,), self.layout, lambda _: own)
        self.answer = self.any(asked)
        return before is not None and bool(before)
