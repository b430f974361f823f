"""Stopping politely: a signal is remembered, and acted on between two steps."""

import signal
from typing import Any


class Signals:
    """Ctrl-C and SIGTERM ask for a stop after this step; a second Ctrl-C stops at once."""

    def __enter__(self) -> "Signals":
        self.asked: str | None = None
        self.before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, _: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
