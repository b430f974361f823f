"""Which token may come next: rules as data, and the automaton that they make.

A rule is built of `Tokens` (one token of a set), `Seq`, `Choice` and `Many`. A state of its `Grammar` is the place in the
rule that was read last, and a few registers: a token may `save` its number in one, and later ones may not be smaller (their
`floor`), so the corners of a box are in order without a state for each pair of them. Whatever the rule, one token at most
fits each place: a rule that would need to look further ahead is refused when it is made.

Source: Glushkov 1961; Bruggemann-Klein and Wood 1998, One-unambiguous regular languages.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mm.errors import UserError
from mm.generate.grammar import Tables
from mm.tokenizers.structured.sentence import HALF, number_of
from mm.tokenizers.wordpiece import BINS, coordinate

END = ""
"""Stands for the end of a sentence among the tokens that may come."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tokens:
    """One token of `words`. `save`: its number goes into that register; `floor`: it is no smaller than that register's."""

    words: tuple[str, ...]
    save: int = -1
    floor: int = -1


@dataclasses.dataclass(frozen=True, slots=True)
class Seq:
    """One after the other; of nothing, the empty sentence."""

    parts: tuple["Rule", ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """One of these."""

    of: tuple["Rule", ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Many:
    """Any number of times, or at most `most` times."""

    of: "Rule"
    most: int = 0


Rule = Tokens | Seq | Choice | Many
EMPTY = Seq(())


def word(spelt: str) -> Tokens:
    """This one token."""
    return Tokens((spelt,))


def maybe(rule: Rule) -> Choice:
    """The rule or nothing."""
    return Choice((EMPTY, rule))


@functools.cache
def bins(family: int, last: int, save: int = -1, floor: int = -1) -> Tokens:
    """A coordinate of a family, 0 .. `last`."""
    return Tokens(tuple(coordinate(family, i) for i in range(last + 1)), save, floor)


def codes() -> Rule:
    """An id of a codebook of 1024, see `sentence.code`."""
    return Choice((bins(0, HALF - 1), bins(1, HALF - 1)))


def corners(across: int = BINS - 1, down: int = BINS - 1) -> Rule:
    """A box: v0=x0 v1=y0 v2=x1 v3=y1, bins up to these, the second corner not before the first."""
    return Seq((bins(0, across, 0), bins(1, down, 1), bins(2, across, -1, 0), bins(3, down, -1, 1)))


class State(NamedTuple):
    """Place in the rule, 0 at the beginning, and what is in the registers."""

    place: int
    registers: tuple[int, ...] = ()


class _Ends(NamedTuple):
    """Of a part of a rule: whether it may be empty, and the places that it can begin and end with."""

    empty: bool
    first: tuple[int, ...]
    last: tuple[int, ...]


class Grammar:
    """The automaton of a rule.

    Attributes:
      places: what is read at each place of the rule; place i is state i + 1.
      follows: per state, the places that may be read next. ends: the states that a sentence may end in.
      done: the state behind the end.
    """

    def __init__(self, rule: Rule):
        """Raises UserError: after some tokens, two places of the rule begin with the same one."""
        self.places: list[Tokens] = []
        self.follows: list[tuple[int, ...]] = [()]
        found = self._add(rule)
        self.follows[0] = found.first
        self.ends = frozenset(i + 1 for i in found.last) | ({0} if found.empty else set())
        self.done = len(self.follows)
        self.start = State(0, (0,) * (1 + max((p.save for p in self.places), default=-1)))
        for follow in set(self.follows):
            self._check(follow)

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """All tokens that its sentences have, each once."""
        return tuple(dict.fromkeys(w for p in dict.fromkeys(self.places) for w in p.words))

    def allowed(self, state: State) -> frozenset[str]:
        """The tokens that may come next, `END` among them where the sentence may end."""
        if state.place == self.done:
            return frozenset((END,))
        found = {w for i in self.follows[state.place] for w in self._open(i, state)}
        return frozenset(found | {END} if state.place in self.ends else found)

    def step(self, state: State, token: str) -> State | None:
        """The state after a token (or the end); None where it may not come."""
        if token == END:
            ended = state.place == self.done or state.place in self.ends
            return State(self.done, state.registers) if ended else None
        if state.place == self.done:
            return None
        for i in self.follows[state.place]:
            place = self.places[i]
            if token in _set(place):
                if place.floor >= 0 and number_of(token) < state.registers[place.floor]:
                    return None
                registers = list(state.registers)
                if place.save >= 0:
                    registers[place.save] = number_of(token)
                return State(i + 1, tuple(registers))
        return None

    def run(self, tokens: Iterable[str]) -> tuple[int, State]:
        """How many of the tokens can be read, and the state after them; the end is not read."""
        state, count = self.start, 0
        for token in tokens:
            after = self.step(state, token)
            if after is None:
                break
            state, count = after, count + 1
        return count, state

    def expected(self, state: State) -> str:
        """What may come, for a message: "v2=5 .. v2=999, 'cat' or the end"."""
        runs, named = [], []
        for i in self.follows[state.place]:
            numbers, names = _split(self._open(i, state))
            runs, named = runs + numbers, named + names
        shown = [repr(w) for w in named[:8]] + (["..."] if len(named) > 8 else [])
        shown = runs + shown + (["the end"] if state.place in self.ends else [])
        return " or ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))

    def shortest(self) -> np.ndarray:
        """int32[states]: the fewest tokens from each state to behind the end, the end counted."""
        far = np.full(len(self.follows) + 1, 1 << 30, np.int64)
        far[self.done] = 0
        far[list(self.ends)] = 1
        before: dict[int, list[int]] = {}
        for state, follow in enumerate(self.follows):
            for i in follow:
                before.setdefault(i + 1, []).append(state)
        reached = list(self.ends)
        while reached:  # breadth first: each state is reached by its shortest way
            wave = [(s, t) for t in reached for s in before.get(t, ()) if far[s] > far[t] + 1]
            for s, t in wave:
                far[s] = min(far[s], far[t] + 1)
            reached = list(dict.fromkeys(s for s, _ in wave))
        return far.astype(np.int32)

    def tables(self, ids: Mapping[str, int], size: int, eos: int) -> Tables:
        """The automaton over ids of a vocabulary of `size`, for a compiled sampler.

        Args:
          ids: of the tokens, see `words`; `eos` is that of the end.
        """
        atoms = list(dict.fromkeys(self.places))
        within: dict[str, list[int]] = {}
        for k, atom in enumerate(atoms):
            for w in atom.words:
                within.setdefault(w, []).append(k)
        classes = {key: i + 2 for i, key in enumerate(dict.fromkeys(map(tuple, within.values())))}
        kind, number = np.zeros(size, np.int32), np.zeros(size, np.int32)
        for w, inside in within.items():
            kind[ids[w]], number[ids[w]] = classes[tuple(inside)], max(number_of(w), 0)
        kind[eos] = 1
        shape = (self.done + 1, len(classes) + 2)
        after, save, floor = (np.full(shape, -1, np.int32) for _ in range(3))
        of_atom = {k: [c for key, c in classes.items() if k in key] for k in range(len(atoms))}
        index = {atom: k for k, atom in enumerate(atoms)}
        for state, follow in enumerate(self.follows):
            for i in follow:
                at = of_atom[index[self.places[i]]]
                after[state, at] = i + 1
                save[state, at], floor[state, at] = self.places[i].save, self.places[i].floor
        after[[*self.ends, self.done], 1] = self.done
        return Tables(
            kind=kind, number=number, after=after, save=save, floor=floor, shortest=self.shortest(),
            registers=len(self.start.registers),
        )  # fmt: skip

    def _open(self, i: int, state: State) -> Iterator[str]:
        """The tokens of a place that its floor leaves."""
        place = self.places[i]
        least = state.registers[place.floor] if place.floor >= 0 else -1
        return (w for w in place.words if least < 0 or number_of(w) >= least)

    def _add(self, rule: Rule) -> _Ends:
        """Gives places to the tokens of a rule, and says which follow which within it."""
        match rule:
            case Tokens():
                self.places.append(rule)
                self.follows.append(())
                here = (len(self.places) - 1,)
                return _Ends(False, here, here)
            case Seq(parts=parts):
                return self._sequence([self._add(part) for part in parts])
            case Choice(of=of):
                found = [self._add(part) for part in of]
                joined = (
                    tuple(i for f in found for i in getattr(f, end)) for end in _Ends._fields[1:]
                )
                return _Ends(any(f.empty for f in found), *joined)
            case Many(of=of, most=0):
                found = self._add(of)
                self._link(found.last, found.first)
                return found._replace(empty=True)
            case Many(of=of, most=most):
                rest: Rule = maybe(of)
                for _ in range(most - 1):
                    rest = maybe(Seq((of, rest)))
                return self._add(rest)

    def _sequence(self, parts: Iterable[_Ends]) -> _Ends:
        whole = _Ends(True, (), ())
        for found in parts:
            self._link(whole.last, found.first)
            first = whole.first + found.first if whole.empty else whole.first
            last = found.last + whole.last if found.empty else found.last
            whole = _Ends(whole.empty and found.empty, first, last)
        return whole

    def _link(self, last: tuple[int, ...], first: tuple[int, ...]) -> None:
        for i in last:
            self.follows[i + 1] = tuple(dict.fromkeys(self.follows[i + 1] + first))

    def _check(self, follow: tuple[int, ...]) -> None:
        seen: set[str] = set()
        for i in follow:
            if double := seen & _set(self.places[i]):
                raise UserError(
                    f"sentences: {min(double)!r} may mean two things at one place (the next word of a name, "
                    "or what comes behind it); rename one"
                )
            seen |= _set(self.places[i])


@functools.cache
def _set(tokens: Tokens) -> frozenset[str]:
    return frozenset(tokens.words)


def _split(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Coordinates as runs "v0=3 .. v0=7", and the other words."""
    numbers, names = [], []
    for w in words:
        (numbers if number_of(w) >= 0 else names).append(w)
    runs: list[list[str]] = []
    for w in numbers:
        follows = runs and runs[-1][-1][:3] == w[:3] and number_of(w) == number_of(runs[-1][-1]) + 1
        if follows:
            runs[-1].append(w)
        else:
            runs.append([w])
    return [r[0] if len(r) == 1 else f"{r[0]} .. {r[-1]}" for r in runs], names


def names(of: Iterable[str]) -> Rule:
    """Any of these names, a token for each of their words."""
    return _trie(frozenset(tuple(name.split()) for name in of))


@functools.cache
def _trie(of: frozenset[tuple[str, ...]]) -> Rule:
    """Words that lead to the same rests share a place."""
    heads: dict[str, set[tuple[str, ...]]] = {}
    for name in of:
        if name:
            heads.setdefault(name[0], set()).add(name[1:])
    by_rest: dict[frozenset[tuple[str, ...]], list[str]] = {}
    for head in sorted(heads):
        by_rest.setdefault(frozenset(heads[head]), []).append(head)
    ways: list[Rule] = [EMPTY] if () in of else []
    for rest, first in by_rest.items():
        ways.append(Seq((Tokens(tuple(first)), _trie(rest))))
    return ways[0] if len(ways) == 1 else Choice(tuple(ways))
