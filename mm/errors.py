"""The one kind of error that is the user's to mend: a line saying what was found, where, and what to do."""

import argparse
import difflib
import signal
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

STOPPED = 130  # exit code


class UserError(Exception):
    """Bad input. `mm.main` prints its one line and leaves with exit code 2, without a traceback."""


class Parser(argparse.ArgumentParser):
    """One line for a command line that cannot be meant."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name, `; did you mean 'x'?`, or the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


class Newer(UserError):
    """A file of a format that this mm does not know yet."""


def refuse_newer(path: object, written: object, known: int) -> None:
    """Raises Newer where `path` says that its format, `written`, is younger than the one known here."""
    if not isinstance(written, int) or written > known:
        raise Newer(f"{path}: written by a newer mm (format {written}); update mm")


def exit_code(command: Callable[[], int], name: str = "mm") -> int:
    """Runs a command of the command line: what the user can mend is one line on stderr and exit code 2; Ctrl-C and
    SIGTERM are one line and exit code 130.

    Args:
      name: what the line begins with.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return command()
    except UserError as e:
        print(f"{name}: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: stopped at once; what was saved stands", file=sys.stderr)
        return STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)
