"""What takes long says what it does and when it ends: in a terminal, a notebook and a log file.

    with progress.work("tokenizing image/train", total=55_000) as work:
        work.update(2_048)

A terminal shows a bar for all that is under way; a notebook one line that is rewritten in place; anything else
gets plain lines: the first when it has taken `delay` seconds, then one every `EVERY` (long work: more seldom; work
that got no further: every `STILL`), and one at the end. What is over before `delay` says nothing.
"""

import contextlib
import operator
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

DELAY = 2.0  # seconds; work that is shorter is not worth a word
EVERY = 10.0  # seconds between two lines of a log, in the first `LONG` seconds; then in proportion
STILL = 30.0  # seconds between two that say the same
LONG = 600.0
REDRAW = 0.25  # seconds between two looks at what is under way
WINDOW = 300.0  # seconds; time left follows from the speed in them


class Work:
    """Something under way; `update` and `close` are cheap and may come as often as they like."""

    def __init__(
        self, what: str, total: int | None = None, done: int = 0, delay: float | None = None
    ):
        self.what, self.note = what, ""
        self.delay, self.began = DELAY if delay is None else delay, time.monotonic()
        self.counted = self.began  # when it last got further
        self.said: float | None = None  # when
        self.was: Any = None  # what was said then
        self.cell: Any = None  # a notebook's
        with _lock:
            self.place = _here()
            row = self.place.bars.add_task("", total=total, completed=done, visible=False, of=self)
            self.task = next(t for t in self.place.bars.tasks if t.id == row)
            self.place.works.append(self)

    def update(self, done: int | None = None, note: str = "") -> None:
        """`done` of the total so far, and what else there is to say."""
        self.note = note
        if done != self.task.completed:
            self.counted = time.monotonic()
        self.place.bars.update(self.task.id, completed=done)
        self.look()

    def look(self) -> None:
        """Shows itself where that is due."""
        if self.said is not None or time.monotonic() - self.began >= self.delay:
            self.place.show(self)

    def line(self, *, over: bool = False) -> str:
        """What, how far, the time left (or taken, where nobody knows how much is left), the note."""
        taken, left = time.monotonic() - self.began, self._left()
        total, done = self.task.total, self.task.completed
        when = f"{spoken(taken)} so far" if left is None else f"{spoken(left)} left"
        count = "" if total is None else f" {done:,.0f}/{total:,.0f}"
        when = f"took {spoken(taken)}" if over else when
        return f"{self.what}{count}, {when}  {self.note}".rstrip()

    def _left(self) -> float | None:
        """Seconds; None where there is nothing to tell by, or what was to be over by now is not."""
        if self.task.time_remaining is None:
            return None
        left = self.task.time_remaining - (time.monotonic() - self.counted)
        return left if left > 0 else None

    def close(self, *, say: bool = True) -> None:
        """It is over (`say`: and well); may be called again."""
        with _lock:
            if self in self.place.works:
                self.place.works.remove(self)
                self.place.leave(self, self.line(over=True) if say and self.said else None)


@contextlib.contextmanager
def work(what: str, total: int | None = None, delay: float | None = None) -> Iterator[Work]:
    """`Work` for as long as the block lasts."""
    doing = Work(what, total, delay=delay)
    try:
        yield doing
    except BaseException:
        doing.close(say=False)
        raise
    doing.close()


def track(items: Iterable[Any], what: str, total: int | None = None) -> Iterator[Any]:
    """The items, counted as they are taken. `total`: how many, where `items` cannot tell."""
    with work(what, total or operator.length_hint(items) or None) as doing:
        for done, item in enumerate(items, 1):
            yield item
            doing.update(done)


def spoken(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class _Line(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["of"].line(), no_wrap=True, overflow="ellipsis")


class _Place:
    """Where things are shown while any is under way: the stream that was standard output at the start."""

    def __init__(self, out: TextIO):
        console = Console(file=out)
        self.out, self.works = out, list[Work]()
        self.notebook = _notebook()
        self.terminal = out.isatty() and not console.is_dumb_terminal and not self.notebook
        self.bars = Progress(
            BarColumn(16), _Line(), console=console, transient=True,
            speed_estimate_period=WINDOW, disable=not self.terminal,
        )  # fmt: skip
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Work that says nothing for long is shown all the same."""
        while not self.over.wait(REDRAW):
            with _lock:
                # A log hears of the innermost only.
                for doing in self.works[0 if self.terminal else -1 :]:
                    doing.look()

    def show(self, doing: Work) -> None:
        with _lock:
            now = time.monotonic()
            new = doing.task.completed, doing.note
            pause = EVERY if new != doing.was else STILL
            pause *= max(1.0, (now - doing.began) / LONG)
            pause = REDRAW if self.terminal or self.notebook else pause
            if doing.said is not None and now - doing.said < pause:
                return
            doing.said, doing.was = now, new
            if self.terminal:
                self.bars.update(doing.task.id, visible=True)
                self.bars.start()
            else:
                self._say(doing, doing.line())

    def leave(self, doing: Work, last: str | None) -> None:
        """`last` is what remains to be said of it. The place closes behind the last one."""
        self.bars.remove_task(doing.task.id)
        if not self.works:
            self.over.set()
            self.bars.stop()
            _places.remove(self)
        if last:
            self._say(doing, last)

    def _say(self, doing: Work, line: str) -> None:
        if self.notebook and doing.cell:
            doing.cell.update({"text/plain": line}, raw=True)
        elif self.notebook:
            from IPython.display import display  # pyright: ignore[reportMissingImports]

            doing.cell = display({"text/plain": line}, raw=True, display_id=True)
        elif self.bars.live.is_started:
            self.bars.console.print(line, markup=False, highlight=False)  # above the bars
        else:
            print(line, file=self.out, flush=True)


_lock = threading.RLock()
_places: list[_Place] = []


def _here() -> _Place:
    if not _places:
        _places.append(_Place(sys.stdout))
    return _places[0]


def _notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
