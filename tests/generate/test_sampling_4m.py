"""4M's sampler on a tiny random trunk: against brute force, a slow reference in plain loops, and 4M's own generations."""

import itertools

import jax
import numpy as np
import pytest

from mm.errors import UserError
from mm.generate import sampling_4m
from mm.generate.passes_4m import HOLE
from mm.generate.plan_4m import Step, continue_schedule, cosine_schedule, linear_schedule
from mm.generate.sampling_4m import generate, merge_spans
from tests.generate.tiny_4m import MARKS, SPACE, Tiny

TINY = Tiny(SPACE)


def make(inputs, *plan, key=0, tiny=TINY, **more):
    return generate(tiny, tiny.params, inputs, plan, jax.random.key(key), sentinels=MARKS, **more)


def some_inputs(rows=5, seed=0):
    rng = np.random.default_rng(seed)
    words = rng.integers(12, 20, (rows, 6)).astype(np.int32)
    full = lambda n: np.full(rows, n, np.int32)
    return {
        "pixels": (3 * rng.normal(size=(rows, 4, 6)).astype(np.float32), full(4)),
        "said": (3 * rng.normal(size=(rows, 3, 5)).astype(np.float32), rng.integers(1, 4, rows)),
        "words": (words, rng.integers(1, 7, rows)),
        "gist": (rng.integers(0, 5, (rows, 4)), full(4)),
    }


def listed(inputs, row):
    """One row of inputs as `Tiny.row` takes it; holes left out."""
    out = {}
    for name, (said, length) in inputs.items():
        cut = said[row][: length[row]]
        dense = SPACE[name].vocabulary is None
        out[name] = cut if dense else [(i, int(t)) for i, t in enumerate(cut) if t >= 0]
    return out


def row_keys(key, row, step=0):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(key), row), step)


# The law


def test_roar_with_a_pass_per_token_is_the_chain_rule_over_random_orders():
    """Against brute force over all orders and outcomes; the law of one pass is far from it."""
    rows, law, once = 8_000, np.zeros((3, 3, 3)), np.ones((3, 3, 3))

    def conditional(state, asked):
        known = {"dots": [(i, t) for i, t in enumerate(state) if t != HOLE]}
        p = np.exp(TINY.row(known, "dots", asked).astype(float))
        return p / p.sum(1, keepdims=True)

    states = list(itertools.product((HOLE, 0, 1, 2), repeat=3))
    holes = [(s, i) for s in states for i in range(3) if s[i] == HOLE]
    conditionals = {(s, i): conditional(s, [i])[0] for s, i in holes}
    together = conditional([HOLE] * 3, [0, 1, 2])
    for outcome in itertools.product(range(3), repeat=3):
        once[outcome] = np.prod(together[range(3), outcome])
        for order in itertools.permutations(range(3)):
            state, p = [HOLE] * 3, 1 / 6
            for place in order:
                p *= conditionals[tuple(state), place][outcome[place]]
                state[place] = outcome[place]
            law[outcome] += p
    ids, _ = make({}, Step(target="dots", steps=3), rows=rows, chunk=rows)["dots"]
    drawn = np.bincount(ids @ [9, 3, 1], minlength=27) / rows
    assert np.abs(drawn - law.reshape(-1)).sum() / 2 < 0.03
    assert np.abs(once - law).sum() / 2 > 0.1


# Against plain loops


def slow(inputs, step, row, key):
    """One row of an image by the words of the method: lists, one pass of the network after the other."""
    m = SPACE[step.target]
    schedule = {"linear": linear_schedule, "cosine": cosine_schedule}[step.schedule]
    counts = schedule(step.steps, m.size)
    ids = [HOLE] * m.size
    if step.target in inputs:
        ids = inputs[step.target][0][row].tolist()
    known = sum(i != HOLE for i in ids)
    left = continue_schedule(counts, known).tolist()
    keys = row_keys(key, row)
    order = np.asarray(jax.random.uniform(jax.random.fold_in(keys, len(counts)), (m.size,)))
    full = {n: v for n, v in listed(inputs, row).items() if n != step.target}
    nothing = {"words": [(0, MARKS[1])], "said": np.zeros((1, 5))}
    empty = lambda names: full | {n: nothing.get(n, []) for n in names}
    for i in range(len(counts) - len(left), len(counts)):
        count = left[i - len(counts)]
        asked = [p for p in range(m.size) if ids[p] == HOLE]
        if step.scheme == "roar":
            asked = sorted(sorted(asked, key=lambda p: order[p])[:count])
        own = {m.name: [(p, t) for p, t in enumerate(ids) if t != HOLE]}
        logits = lambda seen, own=own, asked=asked: TINY.row(seen | own, m.name, asked).astype(float)  # fmt: skip
        if step.guidance == 1:
            final = logits(full)
        else:
            without = logits(empty(step.guided))
            groups = [(step.guidance, ())]
            if isinstance(step.guidance, tuple):
                groups = [(w, set(step.guided) - {n}) for w, n in zip(step.guidance, step.guided, strict=True)]  # fmt: skip
            final = without + sum(w * (logits(empty(gone)) - without) for w, gone in groups)
        u = np.asarray(jax.random.uniform(jax.random.fold_in(keys, i), (m.size,)), float)[asked]
        p = np.exp(final / step.temperature - (final / step.temperature).max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        drawn = (p.cumsum(1) > u[:, None]).argmax(1)
        sure = p[np.arange(len(asked)), drawn]
        for j in np.argsort(-sure, kind="stable")[:count]:
            ids[asked[j]] = int(drawn[j])
    return ids


DEPTH = (np.array([[2, HOLE, HOLE, 0, HOLE, HOLE], [HOLE] * 6, [6, 5, 4, HOLE, HOLE, 1]] + [[0, 1, 2, 3, 4, 5]] * 2), np.full(5, 6))  # fmt: skip
GUIDED = {"guided": ("pixels", "said", "words"), "temperature": 0.7}


@pytest.mark.parametrize(
    ("step", "more"),
    [
        (Step(target="depth", scheme="maskgit", steps=4, schedule="cosine"), {}),
        (Step(target="depth", scheme="roar", steps=4, guidance=2.5, **GUIDED), {}),
        (Step(target="depth", scheme="maskgit", steps=3, guidance=(2.0, -1.0, 0.5), **GUIDED), {}),
        (Step(target="depth", scheme="roar", steps=3, guidance=(1.5, 1.0, -0.5), **GUIDED), {"depth": DEPTH}),
        (Step(target="depth", scheme="maskgit", steps=4, guidance=3.0, **GUIDED), {"depth": DEPTH}),
    ],
)  # fmt: skip
def test_images_are_what_plain_loops_make(step, more):
    inputs = some_inputs() | more
    ids, length = make(inputs, step, key=7)["depth"]
    assert ids.tolist() == [slow(inputs, step, row, 7) for row in range(5)]
    assert (length == 6).all()


def slow_text(inputs, row, before, guidance=1.0, tokens=6):
    """The likeliest spans of one row, token by token."""
    marks = [t for t in before if t in MARKS]
    spans, last = marks[:1], max(marks, default=0) + 1
    own = {"words": list(enumerate(before))}
    full = listed(inputs, row)
    without = {"pixels": [], "said": np.zeros((1, 5))}
    while marks and len(spans) <= tokens:
        ask = lambda seen: TINY.row(seen | own, "words", range(len(spans)), spans)[-1].astype(float)
        logits = ask(full)
        if guidance != 1:
            blind = ask(full | without)
            logits = blind + guidance * (logits - blind)
        spans.append(int(logits.argmax()))
        if spans[-1] == last:
            break
    return merge_spans(np.array(before), np.array(spans, int), MARKS).tolist()[:6]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_texts_are_what_plain_loops_make(guidance):
    """From nothing, and with two spans to fill, one, or none."""
    inputs = {n: v for n, v in some_inputs().items() if n != "words"}
    step = Step(target="words", scheme="autoregressive", temperature=0.0, guidance=guidance, guided=("pixels", "said"))  # fmt: skip
    given = [[MARKS[1]], [15, MARKS[1], 16, MARKS[2]], [MARKS[1], 17, 3], [12, 13, 3], []]
    padded = np.array([[*g, *[0] * (6 - len(g))] for g in given]), np.array([len(g) for g in given])
    for known, before in (({}, [[MARKS[1]]] * 5), ({"words": padded}, given)):
        ids, length = make(inputs | known, step)["words"]
        want = [slow_text(inputs, row, before[row], guidance) for row in range(5)]
        assert [i[:n].tolist() for i, n in zip(ids, length, strict=True)] == want
    assert want[3:] == [[12, 13, 3], []]  # nothing was to be filled


def test_texts_end_at_the_next_sentinel_or_at_the_most_tokens():
    """Rows end by themselves, at different tokens; none has a sentinel left."""
    step = Step(target="words", scheme="autoregressive", temperature=1.5, tokens=4)
    ids, length = make({}, step, rows=64)["words"]
    assert set(length.tolist()) == {0, 1, 2, 3, 4}
    there = np.arange(6) < length[:, None]
    assert (
        not (there & (ids >= MARKS.start) & (ids < MARKS.stop)).any() and (ids[~there] == 0).all()
    )


# Schedules, chains, rows


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
def test_passes_add_what_the_schedule_says_and_take_nothing_back(scheme):
    step = Step(target="depth", scheme=scheme, steps=4, schedule="cosine")
    counts, keys = cosine_schedule(4, 6), jax.random.split(jax.random.key(0), 5)
    assert counts.tolist() == [1, 2, 2, 1]
    before = np.full((5, 6), HOLE)
    for passes in range(1, 5):
        amounts = np.broadcast_to(np.where(np.arange(4) < passes, counts, 0), (5, 4))
        ids = np.asarray(
            sampling_4m._reveal(TINY, TINY.params, step, MARKS, {}, np.full((5, 6), HOLE), amounts, keys)
        )  # fmt: skip
        assert ((ids != HOLE).sum(1) == counts[:passes].sum()).all()
        assert (ids == before)[before != HOLE].all()
        before = ids


def test_at_temperature_0_the_first_places_come_first():
    step = Step(target="depth", scheme="maskgit", steps=3, temperature=0.0)
    amounts = np.array([[2, 0, 0]])
    ids = sampling_4m._reveal(
        TINY, TINY.params, step, MARKS, {}, np.full((1, 6), HOLE), amounts, jax.random.split(jax.random.key(0), 1)
    )  # fmt: skip
    assert (np.asarray(ids)[0] == HOLE).tolist() == [False] * 2 + [True] * 4


def test_what_was_made_is_read_by_the_next_step():
    """A chain is its steps one by one, and its second says something else behind other texts."""
    inputs = {"pixels": some_inputs()["pixels"]}
    plan = (
        Step(target="words", scheme="autoregressive", temperature=0.0),
        Step(target="depth", scheme="maskgit", steps=3, temperature=0.0, guidance=3.0, guided=("words",)),
    )  # fmt: skip
    made = make(inputs, *plan)
    for words, same in ((made["words"], True), (some_inputs()["words"], False)):
        ids, _ = make(inputs | {"words": words}, plan[1])["depth"]
        assert np.array_equal(ids, made["depth"][0]) == same


PLAN = (
    Step(target="depth", steps=3, guidance=2.0, guided=("pixels", "words"), top_k=0.8, top_p=0.9,
         temperature=2.0, cooling="onex:0.5:0.5"),
    Step(target="words", scheme="autoregressive", temperature=1.0),
)  # fmt: skip


def test_rows_do_not_depend_on_one_another():
    """Chunks of four: of the first only two rows are as they were, and the second is not full; one key, one result."""
    inputs = {n: v for n, v in some_inputs(7).items() if n != "gist"}
    inputs["words"][0][:, 0] = MARKS[1]
    whole = make(inputs, *PLAN, key=5, chunk=4)
    kept = [0, 1, 4, 5]
    other = {n: tuple(x[:6].copy() for x in v) for n, v in inputs.items()}
    for name in other:
        other[name][0][2:4] = inputs[name][0][[6, 0]]
    found = make(other, *PLAN, key=5, chunk=4)
    for name, (ids, length) in found.items():
        assert np.array_equal(ids[kept], whole[name][0][kept])
        assert np.array_equal(length[kept], whole[name][1][kept])
    assert not np.array_equal(found["depth"][0][2:4], whole["depth"][0][2:4])
    again = make(inputs, *PLAN, key=4, chunk=4)
    assert not np.array_equal(again["depth"][0], whole["depth"][0])


def test_every_step_is_compiled_once():
    """Whatever the values, the key, the holes, and the number of rows."""
    inputs = {n: v for n, v in some_inputs(7).items() if n != "gist"}
    sizes = lambda: (sampling_4m._reveal._cache_size(), sampling_4m._write._cache_size())
    make(inputs, *PLAN, chunk=4)
    before = sizes()
    make({n: tuple(x[::-1] for x in v) for n, v in inputs.items()}, *PLAN, key=5, chunk=4)
    holes = {n: tuple(x[:5] for x in v) for n, v in inputs.items()} | {"depth": DEPTH}
    made = make(holes, *PLAN, key=6, chunk=4)["depth"][0]
    assert (made == DEPTH[0])[DEPTH[0] != HOLE].all() and (made >= 0).all()
    assert sizes() == before


def test_chunks_change_nothing():
    step = Step(target="dots", scheme="maskgit", steps=2)
    one, other = (make({}, step, rows=7, chunk=chunk)["dots"][0] for chunk in (2, 64))
    assert np.array_equal(one, other)


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gist": (np.zeros((5, 3), int), np.full(5, 3))}, r"give \(n, 4\) and \(n,\)"),
        ({"gist": (np.full((5, 4), 5), np.full(5, 4))}, "id 5; its vocabulary has 5"),
        ({"words": (np.zeros((5, 6), int), np.full(5, 7))}, "at most 6"),
        ({"gist": (np.zeros((4, 4), int), np.full(4, 4))}, r"rows; give as many"),
        ({"gust": (np.zeros((5, 4), int), np.full(5, 4))}, "did you mean 'gist'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        make(some_inputs() | change, Step(target="depth"))


def test_a_vocabulary_without_the_sentinels_is_refused():
    with pytest.raises(UserError, match="20 ids, sentinels 4"):
        generate(
            TINY,
            TINY.params,
            {},
            [Step(target="words", scheme="autoregressive")],
            jax.random.key(0),
        )


# Stages of passes


@pytest.mark.parametrize("roar", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_stage_has_room_for_each_of_its_passes(roar, fresh):
    for counts in (
        cosine_schedule(25, 196),
        linear_schedule(3, 196),
        cosine_schedule(200, 196),
        np.array([196]),
    ):
        found = sampling_4m.stages(counts, roar, fresh)
        assert [i for start, stop, *_ in found for i in range(start, stop)] == [*range(len(counts))]
        for start, stop, read, slots in found:
            for i in range(start, stop):
                assert read >= (counts[:i].sum() if fresh else 196)
                assert slots >= (counts[i] if roar else counts[i:].sum())
    assert len(sampling_4m.stages(cosine_schedule(25, 16), roar, fresh)) == 1


def test_stages_make_what_one_shape_makes(monkeypatch):
    given = some_inputs(3)
    known = {
        **given,
        "depth": (
            np.array([[HOLE, 2, HOLE, HOLE, HOLE, 0], [1] + [HOLE] * 5, [HOLE] * 6]),
            np.full(3, 6),
        ),
    }
    plans = [
        (inputs, Step(target="depth", scheme=scheme, steps=5, schedule="linear", temperature=0.7))
        for scheme in ("maskgit", "roar")
        for inputs in (given, known)
    ]
    whole = [make(inputs, plan)["depth"][0] for inputs, plan in plans]
    monkeypatch.setattr(sampling_4m, "FEW", 1)
    staged = [make(inputs, plan, tiny=Tiny(SPACE))["depth"][0] for inputs, plan in plans]
    np.testing.assert_array_equal(whole, staged)
    assert len({a.tobytes() for a in whole}) == 4
