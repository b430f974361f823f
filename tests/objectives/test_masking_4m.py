"""4M's masking against a plain sampler: exactly where it is determined, in distribution where it is drawn."""

import dataclasses
import json
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mm import config
from mm.errors import UserError
from mm.objectives import masking_4m, spans_4m
from mm.objectives.masking_4m import Component, Masking4M
from mm.space import Batch, Dense, Grid, Modality, Sequence, TokenSpace, Vector, Vocabulary
from mm.weights import m4_modalities
from tests.objectives import slow_4m
from tests.weights.golden import golden

FIRST, SENTINELS, EOS = 4, 12, 3
BEGINS = 20, 29
ROWS, L = 100, 9


def text_like(name: str, size: int, **roles) -> Modality:
    vocabulary = Vocabulary(name=name, size=40, eos=EOS)
    return Modality(name=name, vocabulary=vocabulary, layout=Sequence(max_len=size), order="left_to_right", **roles)  # fmt: skip


def image(name: str, layout, **roles) -> Modality:
    return Modality(name=name, vocabulary=Vocabulary(name=name, size=50), layout=layout, **roles)


SPACE = TokenSpace(
    (
        Modality(name="pixels", vocabulary=None, layout=Dense(shape=(4, 3), grid=(2, 2)), predicted=False),
        image("codes", Grid(h=3, w=3)),
        image("vector", Vector(n=4)),
        image("aim", Grid(w=3), seen=False),
        text_like("caption", L),
        text_like("metadata", 8),
        Modality(name="features", vocabulary=None, layout=Dense(shape=(5, 2)), predicted=False),
    )
)  # fmt: skip


def batch_of(rows: int, seed: int, absent: float = 0.0) -> Batch:
    rng = np.random.default_rng(seed)
    ids, length, values = {}, {}, {}
    for m in SPACE.modalities:
        full = isinstance(m.layout, (Grid, Vector)) or m.name == "pixels"
        length[m.name] = np.full(rows, m.size) if full else rng.integers(1, m.size + 1, rows)
        if m.vocabulary is None:
            values[m.name] = rng.normal(size=(rows, *m.layout.shape)).astype(np.float32)
        else:
            ids[m.name] = rng.integers(16, m.vocabulary.size, (rows, m.size)).astype(np.int32)
        if isinstance(m.layout, Sequence):
            ids[m.name][np.arange(rows), length[m.name] - 1] = EOS
    present = {n: rng.random(rows) >= absent for n in SPACE.names}
    return Batch(ids, length, present, np.arange(rows, dtype=np.int32), values)


def small(**more) -> Masking4M:
    made = masking_4m.all_to_all(SPACE, 1.0, visible=14, targets=12, sentinels=SENTINELS)
    return dataclasses.replace(made, chunks={"metadata": BEGINS}, **more)


@jax.jit
def write(ids, kept, there, visible, most, u):
    """What determines a text: its sentinels, its target, the part that is asked."""
    s = spans_4m.spans(kept, there)
    start, count = spans_4m.cut(u, s, most)
    return spans_4m.written(ids, s, visible, start, count, FIRST), s


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_a_text_is_cut_as_the_plain_loop_cuts_it(seed, share):
    """Arrays are equal, both parts lie where 4M puts them, and nothing is lost where nothing was cut."""
    rng = np.random.default_rng(seed)
    ids, kept = rng.integers(16, 40, (ROWS, L)), rng.random((ROWS, L)) < share
    ends = {"length": (1, L), "most": (0, L + 2), "spare": (0, 1), "u": (0, 63)}
    length, most, spare, u = (rng.integers(a, b + 1, ROWS) for a, b in ends.values())
    slow = [slow_4m.holes(ids[b, : length[b]], kept[b], FIRST) for b in range(ROWS)]
    visible = np.minimum([len(s[0]) for s in slow] + spare, L)  # all are inputs that fit
    there = np.arange(L) < length[:, None]
    column, u = lambda x: np.asarray(x)[:, None], (u / 64).astype(np.float32)
    buffer, s = jax.device_get(write(ids, kept, there, column(visible), column(most), column(u)))
    assert buffer.ids.shape == (ROWS, 2 * (L + 1)) and not (buffer.seen & buffer.asked).any()
    for b, (shown, target, places) in enumerate(slow):
        asked = slow_4m.cut(target, places, most[b], u[b])
        assert buffer.ids[b, : len(shown)].tolist() == shown and buffer.seen[b].sum() == len(shown)
        assert buffer.seen[b, : len(shown)].all() and buffer.asked[b].sum() == len(asked)
        end = visible[b] + len(asked)
        assert buffer.ids[b, visible[b] : end].tolist() == asked
        assert buffer.asked[b, visible[b] : end].all()
        if most[b] >= len(target):
            told, wanted = buffer.ids[b][buffer.seen[b]], buffer.ids[b][buffer.asked[b]]
            again = slow_4m.merged(told.tolist(), wanted.tolist(), FIRST, SENTINELS)
            assert again == ids[b, : length[b]].tolist()
    values = np.stack([ids, np.ones_like(ids)], -1).astype(np.float32)
    dense = jax.jit(spans_4m.embedded)(values, s, column(visible))
    sentinel = (buffer.ids < FIRST + SENTINELS)[:, :L]
    expected = np.where(buffer.seen[:, :L] & ~sentinel, buffer.ids[:, :L], 0)
    assert np.array_equal(dense.ids[..., 0], expected) and not dense.asked.any()
    assert np.array_equal(dense.seen, buffer.seen[:, :L])
    assert np.array_equal(dense.ids[..., 1] > 0, expected > 0), "a sentinel is a zero vector"


def same_law(a: list, b: list) -> float:
    """p of a chi-square test of two samples; what is rare is one class."""
    labels = [str(x) for x in (*a, *b)]
    found, index = np.unique(labels, return_inverse=True)
    table = np.stack([np.bincount(i, minlength=len(found)) for i in (index[: len(a)], index[len(a) :])])  # fmt: skip
    rare = table.sum(0) < 20
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], 1)
    return stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue


SOME = 4000


@pytest.mark.parametrize("scheme", masking_4m.SCHEMES)
@pytest.mark.parametrize("budget", [(0, 4), (1, 12), (4, 5), (7, 3)])
def test_texts_have_the_law_of_the_plain_sampler(scheme, budget):
    """What is kept after any number of new draws, sentinels, and lengths: the joint law, at length 7."""
    rng, m = np.random.default_rng(0), SPACE["caption"]
    ids = np.append(np.arange(16, 22), EOS)
    settings = small()
    visible, targets = (jnp.full((SOME, 1), n) for n in budget)

    @jax.jit
    def draw(key):
        u, pick = jax.random.uniform(jax.random.fold_in(key, 0), (2, SOME, 1))
        keep = {"random": u, "all": jnp.ones_like(u), "binary": 1.0 * (u < 0.5)}[scheme]
        rows, there = jnp.tile(jnp.append(ids, jnp.zeros(2, int)), (SOME, 1)), jnp.arange(L) < 7
        b = masking_4m.Budgets(visible, targets, jnp.where(visible > 0, keep, 0.0), pick)
        return masking_4m.text(key, m, settings, rows, jnp.tile(there, (SOME, 1)), b)

    buffer = jax.device_get(draw(jax.random.key(1)))
    ours = [(i[s].tolist(), i[a].tolist()) for i, s, a in zip(*buffer, strict=True)]
    slow = [slow_4m.text(rng, ids.tolist(), scheme, *budget, FIRST) for _ in range(SOME)]
    assert max(len(told) for told, _ in ours) <= budget[0]
    count = lambda told: sum(t < FIRST + SENTINELS for t in told)
    laws = {
        "lengths": lambda told, asked: (len(told), count(told), len(asked)),
        "kept": lambda told, _: tuple(t for t in told if t >= FIRST + SENTINELS or t == EOS),
        "asked": lambda _, asked: tuple(asked[:2]),
    }
    for name, law in laws.items():
        found = same_law([law(*x) for x in ours], [law(*x) for x in slow])
        assert found > 1e-3, (name, found)


def test_chunks_are_kept_or_masked_whole():
    """A chunk of three tokens, one of two, the end alone: every subset comes as often as the plain sampler's."""
    ids, begins = np.array([20, 30, 31, 29, 32, EOS, 0, 0]), np.array([1, 0, 0, 1, 0, 1], bool)
    m, many = SPACE["metadata"], lambda x: jnp.tile(jnp.asarray(x), (SOME, 1))
    u = jax.random.uniform(jax.random.key(0), (2, SOME, 1))
    b = masking_4m.Budgets(many([6]), many([8]), *u)
    draw = jax.jit(partial(masking_4m.text, m=m, settings=small()))
    buffer = jax.device_get(
        draw(jax.random.key(1), ids=many(ids), there=many(np.arange(8) < 6), b=b)
    )
    ours = [tuple(i[s].tolist()) for i, s in zip(buffer.ids, buffer.seen, strict=True)]
    rng = np.random.default_rng(0)
    draws = (
        slow_4m.text(rng, ids[:6].tolist(), "random", 6, 8, FIRST, begins) for _ in range(SOME)
    )
    slow = [tuple(shown) for shown, _ in draws]
    assert len(set(ours)) == 8, "two to the number of chunks"
    assert same_law(ours, slow) > 1e-3
    everywhere = spans_4m.chunks_of(jnp.full((1, 5), EOS), EOS, *BEGINS)
    assert everywhere.tolist() == [[0, 1, 2, 3, 4]]


BUDGET_CASES = {
    "even": ([1, 1, 1], [1, 1, 1]),
    "sharp": ([0.2, 0.1, 0], [0.3, 0, 0.2]),
    "one": ([1000, 0, 0], [0.5, 0.5, 0.5]),
}


@pytest.mark.parametrize("case", BUDGET_CASES)
def test_budgets_have_the_law_of_the_plain_sampler(case):
    """Shares, remainders, and what is lost beyond the room: the joint law of inputs and targets, and the means."""
    space = TokenSpace((SPACE["codes"], SPACE["vector"], SPACE["caption"]))
    alphas = [dict(zip(space.names, map(float, a), strict=True)) for a in BUDGET_CASES[case]]
    part = Component(input_alphas=alphas[0], target_alphas=alphas[1])
    settings = Masking4M(visible=8, targets=9, least_visible=5, components=(part,))
    settings.validate()
    draw = jax.jit(lambda key: masking_4m.draw_budgets(key, settings, space, jnp.ones((SOME, 3), bool)))  # fmt: skip
    visible, targets, keep, _ = jax.device_get(draw(jax.random.key(0)))
    rng, sizes = np.random.default_rng(1), np.array([m.size for m in space.modalities])
    given = [np.array(a, float) for a in BUDGET_CASES[case]]
    slow = [slow_4m.budgets(rng, *given, (5, 8), (9, 9), sizes, [0, 0, 1]) for _ in range(SOME)]
    want = np.array(slow)
    for ours, theirs in ((visible, want[:, 0]), (targets, want[:, 1])):
        spread = np.sqrt((ours.var(0) + theirs.var(0)) / SOME)
        assert (np.abs(ours.mean(0) - theirs.mean(0)) <= 4 * spread + 1e-9).all(), case
        assert same_law(ours.tolist(), theirs.tolist()) > 1e-3
    assert (visible[:, :2] + targets[:, :2] <= sizes[:2]).all()
    assert (keep[visible == 0] == 0).all() and ((keep >= 0) & (keep <= 1)).all()


@jax.jit
def share(key, alphas, total, room):
    return masking_4m.share_out(masking_4m.draw_shares(key, alphas), total, room)


# 4M's own sampler: 50 tokens for six modalities with a concentration of 0.01.
ONE_SHORT = {(1, 49): 0.696, (50,): 0.138, (1, 1, 48): 0.021}


def test_one_modality_alone_leaves_a_token_to_the_next_draw():
    rows = 4000
    alphas, total, room = (
        jnp.full((rows, 6), 0.01),
        jnp.full((rows, 1), 50),
        jnp.full((rows, 6), 99),
    )
    counts = np.sort(np.asarray(share(jax.random.key(2), alphas, total, room)), 1)
    for shape, wanted in ONE_SHORT.items():
        alike = (counts == np.pad(shape, (6 - len(shape), 0))).all(1).mean()
        assert abs(alike - wanted) < 4 * np.sqrt(wanted / rows), (shape, alike)
    assert (share(jax.random.key(3), alphas[:9, :1], total[:9], room[:9, :1]) == 50).all()


def test_tiny_concentrations_give_all_to_one_and_no_nan():
    alphas = jnp.array([[1e-9] * 6, [0.0] * 5 + [1e-9], [0.0] * 6] * 500)
    total, room = jnp.full((1500, 1), 50), jnp.full((1500, 6), 99)
    counts = np.asarray(share(jax.random.key(0), alphas, total, room)).reshape(500, 3, 6)
    assert (counts[:, 0].max(1) >= 49).all() and (counts[:, 0].sum(1) == 50).all()
    assert stats.chisquare((counts[:, 0] >= 49).sum(0)).pvalue > 1e-3
    assert (counts[:, 1] == [0, 0, 0, 0, 0, 50]).all() and not counts[:, 2].any()


# Measured by 4M's own sampler on its shipped mixtures: (input, target) of 128 and 128, of 256 and 256.
MEASURED = {
    "4m-7": [(128, 128), (128, 128)],
    "4m-21": [(185, 178), (221, 211), (246, 233), (255, 234), (196, 236), (254, 234), (111, 236)],
}


@pytest.mark.parametrize("name", MEASURED)
def test_what_budgets_lose_is_what_4m_loses(name):
    space = m4_modalities.preset(name)
    whole = {"4m-7": masking_4m.mod7, "4m-21": masking_4m.mod21}[name](space)
    whole.validate()
    whole.check(space)
    assert (whole.visible, len(whole.components)) == {"4m-7": (128, 2), "4m-21": (256, 7)}[name]
    rows = [300, 150, *[40] * 5][: len(whole.components)]  # small concentrations vary most
    sizes = np.tile([m.size for m in space.modalities], (sum(rows), 1))
    images = np.array([not masking_4m.in_spans(m) for m in space.modalities])
    table = lambda role, field: np.repeat(
        [[masking_4m.concentration(m, getattr(c, field), role) for m in space.modalities] for c in whole.components],
        rows, 0,
    ).astype(np.float32)  # fmt: skip
    total = np.full((sum(rows), 1), whole.visible)
    visible = share(jax.random.key(0), table("seen", "input_alphas"), total, sizes)
    room = sizes - images * np.asarray(visible)
    targets = share(jax.random.key(1), table("predicted", "target_alphas"), total, room)
    parts = lambda x: np.split(np.asarray(x).sum(1), np.cumsum(rows)[:-1])
    found = [[part.mean() for part in parts(x)] for x in (visible, targets)]
    np.testing.assert_allclose(np.stack(found, 1), MEASURED[name], rtol=0.05)
    lost = np.asarray(targets)[:, [not m.predicted for m in space.modalities]].sum(1)
    assert not lost.any() if name == "4m-7" else 11 < lost[450:-40].mean() < 18, "4M: about 14"
    assert not lost[-40:].any(), "of its own component"


def test_one_caption_to_all_is_without_the_other():
    """As in 4M's file of the mixture."""
    parts = masking_4m.mod21(m4_modalities.preset("4m-21")).components[-2:]
    at = lambda field: [[getattr(c, field)[n] for n in ("caption", "t5_caption")] for c in parts]
    assert at("input_alphas") == [[5.0, 0.0], [0.0, 5.0]]
    assert at("target_alphas") == [[0.0, 0.5], [0.5, 0.0]]


def views_of(**more):
    settings = small(**more)
    return jax.jit(lambda key, batch: masking_4m.generation_views(key, settings, SPACE, batch))


VIEWS = views_of()


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), absent=st.sampled_from([0.0, 0.4]))
def test_views_hold_what_is_there_within_the_budgets(seed, absent):
    batch = batch_of(16, seed, absent)
    visible, targets, seen = jax.device_get(VIEWS(jax.random.key(seed), batch))
    table = SPACE.per_place()
    for b in range(16):
        view = [(v.place[b][v.mask[b]], v.ids[b][v.mask[b]]) for v in (visible, targets)]
        for i, m in enumerate(SPACE.modalities):
            (shown, said), (asked, wanted) = (
                (p[mine] - SPACE.starts[m.name], ids[mine] - SPACE.offset(m.name))
                for p, ids in view
                for mine in [table["modality"][p] == i]
            )
            assert len(shown) == seen[b, i]
            assert batch.present[m.name][b] or not len(shown) + len(asked)
            assert (m.seen or not len(shown)) and (m.predicted or not len(asked))
            if masking_4m.in_spans(m):
                assert shown.tolist() == list(range(len(shown)))
                assert asked.tolist() == list(range(len(asked)))
                continue
            assert not {*shown.tolist()} & {*asked.tolist()}
            if m.vocabulary:
                assert np.array_equal(said, batch.ids[m.name][b][shown])
                assert np.array_equal(wanted, batch.ids[m.name][b][asked])


def test_places_of_images_are_uniform_and_as_many_as_budgeted():
    counts = jnp.tile(jnp.array([[3], [0], [5]]), (1000, 1)), jnp.tile(jnp.array([[4], [9], [0]]), (1000, 1))  # fmt: skip
    draw = jax.jit(masking_4m.scattered)
    _, seen, asked = jax.device_get(draw(jax.random.key(0), jnp.zeros((3000, 9), int), *counts))
    assert not (seen & asked).any()
    assert np.array_equal(seen.sum(1), counts[0][:, 0])
    assert np.array_equal(asked.sum(1), counts[1][:, 0])
    for chosen in (seen[::3], asked[::3], seen[2::3]):
        expected = chosen.sum() / 9
        assert np.abs(chosen.sum(0) - expected).max() < 4 * np.sqrt(expected)


def test_what_cannot_be_a_target_or_input_loses_its_budget():
    """4M's budget of targets for embeddings of captions is one of these; views hold none of it (above)."""
    part = Component(input_alphas={"aim": 1.0, "codes": 1.0}, target_alphas={"features": 1.0, "codes": 1.0})  # fmt: skip
    present = np.ones((600, len(SPACE.names)), bool)
    present[300:, SPACE.index("codes")] = False
    settings = small(components=(part,))
    draw = jax.jit(lambda key: masking_4m.draw_budgets(key, settings, SPACE, present))
    visible, targets, *_ = jax.device_get(draw(jax.random.key(0)))
    for counts, name in ((visible, "aim"), (targets, "features")):
        codes, lost = counts[:, SPACE.index("codes")], counts[:, SPACE.index(name)]
        assert np.array_equal(codes + lost, counts.sum(1)), "none beside these two"
        assert (codes[:300] > 0).mean() > 0.5 and (lost[:300] > 0).mean() > 0.5
        assert not codes[300:].any(), "what is absent has none"
        assert (lost[300:] == SPACE[name].size).all(), "and what is left is not shared out anew"


def test_texts_that_4m_cut_are_cut_alike():
    """Every whole target in a golden set: kept tokens and the text follow from it, and give its buffer."""
    found = np.load(golden("fm_gelu_bias").with_suffix(".npz"))
    tried = 0
    for name in {k.split("/")[1] for k in found.files if k.startswith("in/")}:
        ids, unseen, unasked = (found[f"in/{name}/{k}"] for k in ("tensor", "input_mask", "target_mask"))  # fmt: skip
        for row, seen, asked in zip(ids, ~unseen, ~unasked, strict=True):
            told, wanted = (row[m].tolist() if row.ndim == 1 else [] for m in (seen, asked))
            holes = sum(FIRST < t < FIRST + 200 for t in told)
            whole = wanted and wanted[0] == FIRST + 1 and wanted[-1] == FIRST + holes + 1
            if not (told and whole and holes):
                continue
            runs = [
                slow_4m.merged([t], wanted, FIRST, 200) for t in told
            ]  # what each token stands for
            kept = [run == [t] for t, run in zip(told, runs, strict=True) for _ in run]
            text = list(chain.from_iterable(runs))
            pad = lambda x: np.pad(np.array(x), (0, 30 - len(x)))[None]
            start, most = np.flatnonzero(asked)[:1, None], np.array([[len(wanted)]])
            u = np.zeros((1, 1), np.float32)
            there = pad([True] * len(text))
            buffer, _ = jax.device_get(write(pad(text), pad(kept), there, start, most, u))
            ours = [x[0, : len(row)] for x in buffer]
            assert np.array_equal(ours[1], seen) and np.array_equal(ours[2], asked)
            assert np.array_equal(ours[0][seen | asked], row[seen | asked])
            tried += 1
    assert tried


def test_settings_survive_json_and_say_what_is_wrong():
    made = masking_4m.mod21(m4_modalities.preset("4m-21"))
    assert config.from_json(json.loads(json.dumps(config.to_json(made)))) == made
    assert made.chunks == {"metadata": (1204, 2203)}
    assert made.components[0].keep == {"color_palette": "binary"}
    part = Component(input_alphas={"codes": 1.0})
    for changed, message in (
        ({"least_targets": 13}, "least_targets=13: must be"),
        ({"components": ()}, "nothing to draw"),
        ({"components": (dataclasses.replace(part, keep={"caption": "some"}),)}, "use random, all"),
        ({"components": (dataclasses.replace(part, input_alphas={"codes": -1.0}),)}, "0 or more"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(small(), **changed).validate()
    for changed, message in (
        ({"components": (Component(input_alphas={"cods": 1.0}),)}, "did you mean 'codes'"),
        ({"chunks": {"metadata": (0, 40)}}, "no range of its ids"),
        ({"sentinels": 6}, r"'caption' has 40 ids and needs 7 sentinels for 9 tokens"),
        ({"first_sentinel": 30}, "make room"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(small(), **changed).check(SPACE)
    small().check(SPACE)
    with pytest.raises(UserError, match=r"use masking_4m\.all_to_all"):
        masking_4m.mod7(TokenSpace(SPACE.modalities[1:]))
