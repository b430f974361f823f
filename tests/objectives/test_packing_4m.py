"""Buffers of a masked example into the two views, against plain loops."""

from functools import partial
from itertools import pairwise

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.objectives.packing_4m import Buffer, packed
from mm.space import Dense, Grid, Modality, Sequence, TokenSpace, Vector, Vocabulary

TEXT = Vocabulary(name="text", size=30, eos=3)
SPACE = TokenSpace(
    (
        Modality(name="pixels", vocabulary=None, layout=Dense(shape=(4, 3), grid=(2, 2)), predicted=False),
        Modality(name="caption", vocabulary=TEXT, layout=Sequence(max_len=4, places=6), order="left_to_right"),
        Modality(name="codes", vocabulary=Vocabulary(name="codes", size=50), layout=Grid(h=2, w=3)),
        Modality(name="features", vocabulary=None, layout=Dense(shape=(5, 2), places=8), predicted=False),
        Modality(name="aim", vocabulary=TEXT, layout=Vector(n=3), seen=False),
    )
)  # fmt: skip
ROWS = 6
SIZES = {"pixels": 4, "caption": 10, "codes": 6, "features": 5, "aim": 3}


def drawn(seed: int) -> dict[str, Buffer]:
    """Any buffers: a text's two parts anywhere in it, one behind the other."""
    rng = np.random.default_rng(seed)
    made = {}
    for m in SPACE.modalities:
        shape = (ROWS, SIZES[m.name])
        role = rng.integers(0, 3, shape)
        if m.name == "caption":
            first, gap, last = (rng.integers(0, n, (ROWS, 1)) for n in (5, 2, 6))
            at = np.arange(shape[1])
            role = np.where(at < first, 1, np.where((at >= first + gap) & (at < first + gap + last), 2, 0))  # fmt: skip
        ids = rng.integers(0, m.vocabulary.size, shape) if m.vocabulary else rng.normal(size=(*shape, 2))  # fmt: skip
        made[m.name] = Buffer(ids, role == 1, (role == 2) & m.predicted)
    return made


def slow(buffers: dict[str, Buffer], b: int, visible: int, targets: int):
    """(id on the line, place) of what is seen; (id, place, id that is told) of what is asked."""
    seen, asked = [], []
    for m in SPACE.modalities:
        x = buffers[m.name]
        start, offset = SPACE.starts[m.name], SPACE.offset(m.name)
        text = isinstance(m.layout, Sequence)
        for line, i in enumerate(np.flatnonzero(x.seen[b]) if m.seen else ()):
            at = line if text or m.name == "features" else i
            seen.append((i if m.vocabulary is None else x.ids[b, i] + offset, start + at))
        places = np.flatnonzero(x.asked[b])
        if not text:
            asked += [(x.ids[b, i] + offset, start + i, -1) for i in places]
            continue
        for n, (i, j) in enumerate(pairwise(places)):
            at = n if n < m.size else 0
            asked.append((x.ids[b, j] + offset, start + at, x.ids[b, i] + offset))
    return seen[:visible], asked[:targets]


@pytest.fixture(scope="module")
def pack():
    return {n: jax.jit(partial(packed, space=SPACE, visible=n, targets=n - 1)) for n in (5, 30)}


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([5, 30]))
def test_views_are_those_of_the_plain_loop(pack, seed, size):
    """Order, places that count what is there, what is told, and what does not fit."""
    buffers = drawn(seed)
    visible, targets = jax.device_get(pack[size](buffers))
    assert visible.mask.shape == (ROWS, size) and targets.mask.shape == (ROWS, size - 1)
    for b in range(ROWS):
        seen, asked = slow(buffers, b, size, size - 1)
        shown = zip(visible.ids[b], visible.place[b], strict=True)
        wanted = zip(targets.ids[b], targets.place[b], targets.given[b], strict=True)
        assert visible.mask[b].sum() == len(seen) and targets.mask[b].sum() == len(asked)
        assert list(shown)[: len(seen)] == seen and list(wanted)[: len(asked)] == asked
        assert visible.mask[b, : len(seen)].all() and targets.mask[b, : len(asked)].all()
    assert visible.given is None and set(visible.values) == {"pixels", "features"}
    for name, values in visible.values.items():
        np.testing.assert_allclose(values, buffers[name].ids, rtol=1e-6)


def test_a_modality_without_a_buffer_is_left_out():
    buffers = drawn(0)
    some = {n: buffers[n] for n in ("codes", "caption")}
    visible, targets = jax.device_get(
        jax.jit(partial(packed, space=SPACE, visible=20, targets=20))(some)
    )
    modality = SPACE.per_place()["modality"]
    for view in (visible, targets):
        assert {*modality[view.place[view.mask]]} <= {1, 2}
    assert not visible.values
