"""4M's schedules against their formulas, and the plans it would make."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.errors import UserError
from mm.generate.plan_4m import (
    ORDER,
    PRESETS,
    Step,
    check,
    continue_schedule,
    cosine_schedule,
    grow_guidance,
    linear_schedule,
    preset,
    temperatures,
)
from mm.weights import m4_modalities

STEPS, TOKENS = st.integers(1, 60), st.integers(1, 800)


@settings(max_examples=100)
@given(STEPS, TOKENS)
def test_cosine_is_4m_s_formula_wherever_that_adds_up(n, tokens):
    r = [(1 + math.cos(math.pi * i / n)) / 2 for i in range(n)]
    formula = [round(tokens * (r[i] - r[i + 1])) for i in range(n - 1)]
    formula.append(tokens - sum(formula))
    counts = cosine_schedule(n, tokens)
    assert len(counts) == n and counts.sum() == tokens and counts.min() >= 0
    if formula[-1] >= 0:
        assert counts.tolist() == formula


def test_cosine_takes_back_what_the_formula_adds_too_much():
    """The formula's last step would add -2 of 262."""
    counts = cosine_schedule(17, 262)
    assert counts[-1] == 0 and counts.sum() == 262 and (counts >= 0).all()
    assert cosine_schedule(8, 784).tolist() == [30, 85, 127, 150, 150, 127, 85, 30]


@settings(max_examples=50)
@given(STEPS, TOKENS)
def test_linear_is_4m_s_formula(n, tokens):
    edges = [*(int(i * (tokens / n)) for i in range(n)), tokens]  # as NumPy rounds
    formula = sorted((b - a for a, b in itertools.pairwise(edges)), reverse=True)
    got = linear_schedule(n, tokens).tolist()
    assert got == [c for c in formula if c] and len(got) == min(n, tokens)


@settings(max_examples=50)
@given(STEPS, TOKENS, st.sampled_from([cosine_schedule, linear_schedule]), st.data())
def test_a_schedule_is_continued_token_by_token(n, tokens, schedule, data):
    counts, known = schedule(n, tokens), data.draw(st.integers(0, tokens))
    left, take = [], known
    for count in counts.tolist():
        taken = min(take, count)
        take -= taken
        if left or taken < count:
            left.append(count - taken)
    got = continue_schedule(counts, known)
    assert got.tolist() == left and got.sum() == tokens - known


@settings(max_examples=50)
@given(STEPS, TOKENS, st.floats(0, 8), st.floats(0, 1), st.floats(0.1, 3))
def test_temperatures_are_4m_s_formulas(n, tokens, t, low, power):
    counts = linear_schedule(n, tokens)
    known, linear, onex = 0, [], []
    x = np.linspace(1, 100, tokens)
    y = x**-power
    y = (y - y.min()) / (y.max() - y.min()) if tokens > 1 else [0.0]
    for i, count in enumerate(counts.tolist()):
        linear.append(max(t * ((tokens - known) / tokens), 1e-9))
        known += count
        onex.append(max(y[i] * ((tokens - known) / tokens) * (t - low) + low, 1e-9))
    assert temperatures(t, "constant", counts).tolist() == [t] * len(counts)
    assert temperatures(t, "linear", counts).tolist() == linear
    assert temperatures(t, f"onex:{low}:{power}", counts).tolist() == onex


def test_one_over_x_by_hand():
    """Four tokens in two steps: x = 1, 34; x^-1 scaled = 1, 0.0196..; half, then nothing of the tokens is left."""
    got = temperatures(5.0, "onex:1:1", linear_schedule(2, 4))
    assert got.tolist() == [0.5 * (5 - 1) + 1, 1.0]


@pytest.mark.parametrize("cooling", ["", "cold", "onex", "onex:1", "onex:a:b", "linear:1"])
def test_other_coolings_are_refused(cooling):
    with pytest.raises(UserError, match="onex:MIN:POWER"):
        temperatures(1.0, cooling, linear_schedule(2, 4))


SPACE = m4_modalities.space(
    (*m4_modalities.PRESETS["4m-21"][0], "tok_rgb@448", "tok_clip@448"),
    image_size=32,
    overrides={n: {"max_tokens": 4} for n in ("tok_dinov2@224", "tok_imagebind@224")},
)


def test_plans_follow_4m_s_order_and_settings():
    targets = [m.name for m in SPACE.modalities if m.predicted]
    plan = preset(SPACE, ["caption"], [n for n in reversed(targets) if n != "caption"])
    coarse = [f"{n}@224" if f"{n}@224" in targets else n for n in ORDER if n != "caption"]
    assert [s.target for s in plan] == [*coarse, "tok_clip@448", "tok_rgb@448"]
    found = {s.target: s for s in plan}
    assert found["tok_rgb@224"] == Step(
        target="tok_rgb@224", scheme="roar", steps=25, temperature=3.0, cooling="onex:0.5:0.5", guidance=2.0,
        guided=("caption",),
    )  # fmt: skip
    assert (found["tok_clip@224"].steps, found["tok_clip@224"].guidance) == (50, 3.0)
    assert (found["tok_dinov2_global"].steps, found["tok_dinov2_global"].temperature) == (8, 0.01)
    fine = found["tok_rgb@448"]
    assert (fine.scheme, fine.schedule, fine.steps, fine.cooling) == ("maskgit", "cosine", 8, "constant")  # fmt: skip
    assert (found["det"].scheme, found["det"].temperature, found["det"].guided) == ("autoregressive", 0.3, ())  # fmt: skip


def test_from_a_picture_all_is_one_step():
    plan = preset(SPACE, ["rgb@224"], ["caption", "tok_depth@224", "metadata"])
    assert plan[0] == Step(target="tok_depth@224", steps=1, temperature=0.01, guidance=2.0, guided=("rgb@224",))  # fmt: skip
    assert [(s.target, s.temperature) for s in plan[1:]] == [("caption", 0.3), ("metadata", 0.1)]
    assert set(PRESETS["rgb_to_any"]) == set(PRESETS["any_to_rgb"]) == set(ORDER)


def test_guidance_grows_by_what_was_made():
    plan = preset(SPACE, ["caption"], ["tok_clip@224", "tok_rgb@224", "det"])
    grown = [s.guided for s in grow_guidance(plan)]
    assert grown == [("caption",), ("caption", "tok_clip@224"), ("tok_clip@224", "tok_rgb@224")]
    with pytest.raises(UserError, match="cannot grow"):
        grow_guidance([Step(target="tok_rgb@224", guided=("caption",), guidance=(2.0,))])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step(target="tok_rbg@224"), "did you mean 'tok_rgb@224'"),
        (Step(target="rgb@224"), "no target of the model"),
        (Step(target="caption"), "use autoregressive"),
        (Step(target="tok_rgb@224", scheme="autoregressive"), "use maskgit or roar"),
        (Step(target="tok_rgb@224", schedule="square"), "use linear or cosine"),
        (Step(target="tok_rgb@224", steps=0), "at least 1 step"),
        (Step(target="tok_rgb@224", top_p=1.5), "top_p at most 1"),
        (Step(target="tok_rgb@224", cooling="cold"), "onex:MIN:POWER"),
        (Step(target="tok_rgb@224", guided=("det",)), "neither given nor made"),
        (Step(target="tok_rgb@224", guided=("caption",), guidance=(1.0, 2.0)), "give one each"),
        (Step(target="caption", scheme="autoregressive", tokens=257), "0 .. 256 tokens"),
    ],
)
def test_plans_that_cannot_be_run_are_refused(step, message):
    with pytest.raises(UserError, match=message):
        check(SPACE, ["rgb@224", "caption"], [step])


def test_inputs_that_cannot_be_read_are_refused():
    with pytest.raises(UserError, match="did you mean 'rgb@224'"):
        check(SPACE, ["rbg@224"], [])
    out = m4_modalities.space(["rgb@224"], ["tok_rgb@224"])
    check(out, ["rgb@224"], [Step(target="tok_rgb@224")])
    with pytest.raises(UserError, match="make it in one step"):
        check(out, ["rgb@224"], [Step(target="tok_rgb@224", steps=2)])
    with pytest.raises(UserError, match="no preset makes 'rgb'"):
        preset(out, ["rgb@224"], ["rgb"])
