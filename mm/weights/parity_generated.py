"""What the original's sampler makes at temperature 0, made here again: images in one pass or several, texts.

A set names how each array was made: `gen/SCHEME[PASSES][_TARGET][_cfgGUIDANCE]`, as `gen/maskgit1_cfg2.5` or `gen/ar_caption`,
with `..._pad` where a text has ended. What a name leaves open is read in every way that it can be meant; one of them must give
the same ids.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mm.generate.passes_4m import HOLE, SENTINELS, Tokens
from mm.generate.plan_4m import Step, counts_of
from mm.generate.sampling_4m import generate
from mm.space import Dense, Modality, Sequence

if TYPE_CHECKING:
    from mm.weights.parity import Golden

NAME = re.compile(r"gen/(?P<scheme>maskgit|roar|ar)(?P<passes>\d*)(?:_(?!cfg)(?P<target>.+?))?(?:_cfg(?P<guidance>[\d.]+))?")  # fmt: skip
USUAL = ("tok_depth", "caption")
"""Targets of names without one: before others that fit."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A way in which a name can be meant: inputs are given whole."""

    step: Step
    inputs: Mapping[str, Tokens]

    def made(self, golden: "Golden", given: Mapping[str, Tokens] | None = None, **changed: Any) -> Tokens:  # fmt: skip
        """What the sampler makes of it."""
        step = dataclasses.replace(self.step, **changed)
        inputs = {**self.inputs, **(given or {})}
        rows = len(next(iter(golden.buffers().values())).ids)
        return generate(golden, golden.params, inputs, [step], jax.random.key(0), rows=rows)[step.target]  # fmt: skip


def check(golden: "Golden") -> Iterator[tuple[str, float | None, float]]:
    """Per array 0.0 where the ids are the same, infinity where they differ; see `parity.Errors`."""
    for key in [k for k in golden.arrays if k.startswith("gen/") and not k.endswith("_pad")]:
        theirs, pad = golden[key], f"{key}_pad"
        said = NAME.fullmatch(key)
        there = ~golden[pad] if pad in golden.arrays else None
        if said is None:
            yield f"{key}: a name that says nothing here", None, 0.0
        elif said["scheme"] == "roar" and int(said["passes"] or 1) > 1:
            yield f"{key}: places drawn at random", None, 0.0
        elif not (ways := list(readings(golden, said, theirs))):
            yield f"{key}: nothing that it could be made of, or into", None, 0.0
        else:
            same = same_text if said["scheme"] == "ar" else same_image
            found = any(same(golden, way, theirs, there) for way in ways)
            yield key, 0.0 if found else float(np.inf), 0.0


def readings(golden: "Golden", said: re.Match[str], theirs: np.ndarray) -> Iterator[Reading]:
    """Ways in which a name can be meant, the usual ones first."""
    text, passes = said["scheme"] == "ar", int(said["passes"] or 1)
    fits = [m for m in golden.space.modalities if _could_be(m, text, said["target"], theirs)]
    for m in sorted(fits, key=lambda m: not m.name.startswith(USUAL)):
        for inputs in conditions(golden, m.name):
            for schedule in ("cosine", "linear")[: 1 + (passes > 1)]:
                yield Reading(
                    Step(
                        target=m.name, scheme="autoregressive" if text else "maskgit", steps=passes, schedule=schedule,
                        temperature=0.0, guidance=float(said["guidance"] or 1), guided=tuple(inputs),
                    ),
                    inputs,
                )  # fmt: skip


def _could_be(m: Modality, text: bool, name: str | None, theirs: np.ndarray) -> bool:
    """Whether the array can be of this modality."""
    if not m.predicted or m.vocabulary is None or text != isinstance(m.layout, Sequence):
        return False
    if name is None:
        name = m.name if not text or m.name.startswith(USUAL) else ""
    ends = m.size if text else theirs[0].size
    large = theirs.max(initial=0) < m.vocabulary.size and (not text or m.vocabulary.size >= SENTINELS.stop)  # fmt: skip
    return bool(name in (m.name, m.name.partition("@")[0]) and ends == m.size and large)


def conditions(golden: "Golden", target: str) -> Iterator[dict[str, Tokens]]:
    """What may have been given: all pixels; without any, one picture of tokens, or nothing."""
    found = [golden.space[n] for n in golden.present() if golden.space[n].seen and n != target]
    pixels = [m for m in found if isinstance(m.layout, Dense) and m.layout.grid]
    pictures = [m for m in found if m.vocabulary and not isinstance(m.layout, Sequence)]
    for m in pixels[:1] or pictures:
        values = np.asarray(golden.buffers()[m.name].ids)
        yield {m.name: (values, np.full(len(values), values.shape[1]))}
    if not pixels and golden.space[target].seen:
        yield {}


def same_image(golden: "Golden", way: Reading, theirs: np.ndarray, there: Any) -> bool:
    """Whether an image is the same. In several passes the ones that are kept are as sure as the others, at temperature 0: the
    first places here, what its selection happens to leave in front in PyTorch; either will do."""
    theirs = theirs.reshape(len(theirs), -1)
    if np.array_equal(way.made(golden)[0], theirs):
        return True
    if way.step.steps == 1:
        return False
    rows, size = theirs.shape
    ids = np.full((rows, size), HOLE)
    for count in counts_of(way.step, size):
        holes = np.flatnonzero(ids[0] == HOLE)
        given = {way.step.target: (ids, np.full(rows, size))} if len(holes) < size else {}
        made, _ = way.made(golden, given, steps=1)
        kept = holes[first_in_torch(len(holes), int(count))]
        ids[:, kept] = made[:, kept]
    return np.array_equal(ids, theirs)


def first_in_torch(size: int, count: int) -> np.ndarray:
    """Which `count` of `size` equal numbers torch.topk returns on a CPU, int64[count] in no order.

    Source: the C++ library's `nth_element` (introselect: Musser 1997), which it calls, of numbers that are all equal; few of
    many are taken by a heap, which leaves equal ones where they are.
    """
    place = np.arange(size)
    if count * 64 <= size:
        return place[:count]
    first, last, wanted = 0, size, count - 1
    while last - first > 3:
        middle, low, high = first + (last - first) // 2, first + 1, last
        place[[first, middle]] = place[[middle, first]]  # the pivot
        while True:  # every number is both no smaller and no larger than the pivot, so that all pairs are swapped
            high -= 1
            if low >= high:
                break
            place[[low, high]] = place[[high, low]]
            low += 1
        first, last = (low, last) if low <= wanted else (first, low)
    return place[:count]


def same_text(golden: "Golden", way: Reading, theirs: np.ndarray, there: Any) -> bool:
    """Whether texts are the same. How many tokens the original had room for is not in a set (usually for one less than the
    modality, whose first one is the sentinel): where only the ends differ, other numbers are tried."""
    there = theirs > 0 if there is None else there
    texts = [row[mask].astype(int).tolist() for row, mask in zip(theirs, there, strict=True)]
    size = golden.space[way.step.target].size
    for tokens in (size - 1, size, *range(size - 2, max(map(len, texts)) - 1, -1)):
        ids, length = way.made(golden, tokens=max(tokens, 1))
        ours = [row[:n].tolist() for row, n in zip(ids, length, strict=True)]
        if ours == texts:
            return True
        pairs = ((a[: len(b)], b[: len(a)]) for a, b in zip(ours, texts, strict=True))
        if any(a != b for a, b in pairs):
            return False
    return False
