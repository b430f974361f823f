"""The page of the joint study: intervals, words, what the trials chose, and that it is what its results say."""

import json

import numpy as np
import pytest
from scipy import stats

from configs import joint_study
from mm.errors import UserError
from mm.papers import joint


def test_paired_differences_are_scipys():
    a, b = np.random.default_rng(0).normal(size=(2, 5))
    mean, low, high = joint.paired(a, b)
    theirs = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx(((a - b).mean(), theirs.low, theirs.high))
    assert joint.paired([0.3], [0.1])[1:] == (-np.inf, np.inf), "one seed says nothing"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.001, 0.1, "beats"), (-0.009, 0.1, "ties"), (-0.02, 0.1, "open"), (-0.1, -0.02, "loses"), (-0.008, -0.001, "ties")],
)  # fmt: skip
def test_words_are_those_declared(low, high, said):
    assert joint.word(low, high) == said


def test_the_best_trial_of_each_arm_is_chosen_on_its_own_side():
    trials = {
        "masked-0.003": {"generated": 0.4, "retrieved": 0.9},
        "masked-0.006": {"generated": 0.5, "retrieved": 0.1},
        "joint-0.1-0.003": {"generated": 0.4, "retrieved": 0.9},
        "joint-0.1-0.006": {"generated": 0.5, "retrieved": 0.1},
    }
    found = joint.choose(trials, joint_study.ARMS)
    assert found == {"masked": 0.006, "joint-0.1": 0.003}


def test_what_the_runs_use_is_what_the_trials_chose():
    kept = json.loads((joint.RESULTS / "trials.json").read_text())
    kept.pop("format_version")
    assert joint.choose(kept, joint_study.ARMS) == joint_study.CHOSEN
    scores = {n: kept[f"{n}-{v}"] for n, v in joint_study.CHOSEN.items() if n.startswith("joint-")}
    best = max(scores, key=lambda n: scores[n]["generated"] + scores[n]["retrieved"])
    assert (best, joint_study.CHOSEN[best]) == joint_study.BEST


def test_every_arm_has_as_many_trials_and_the_same_steps():
    trials = dict(joint_study.every("trials"))
    mains = [n for n in trials if not n.endswith("-first")]
    assert len(mains) == 4 * len(joint_study.ARMS) == 48
    assert all(trials[n].evals[1].split == "validation" for n in mains)
    seed = dict(joint_study.every("seed3"))
    for arm in joint_study.ARMS:
        before = seed[f"{arm}-first"].steps if f"{arm}-first" in seed else 0
        assert seed[arm].steps + before == joint_study.STEPS and seed[arm].seed == 3
    cost = {n: e.steps * joint_study.cost(n.removesuffix("-flops")) for n, e in seed.items() if n.startswith(("masked", "contrast"))}  # fmt: skip
    joint_cost = joint_study.STEPS * joint_study.cost("joint-0.1")
    assert cost["masked-flops"] == pytest.approx(joint_cost, rel=1e-3)
    assert cost["contrast-flops"] == pytest.approx(joint_cost, rel=1e-3)
    assert cost["masked"] < 0.8 * joint_cost


def test_missing_modalities_are_compared_with_none_missing_seed_by_seed():
    figures = lambda x: dict.fromkeys(("generated", "coverage", "retrieved", "probe"), x)
    seeds = [
        {"missing-none": figures(0.5 + s), "missing-random-0.2": figures(0.4 + s)}
        for s in (0, 0.1, 0.2)
    ]
    *_, whole, less = joint._missing(seeds, "joint-0.1", 0.006)
    assert whole.startswith("| none | 60.0 |")
    assert less.startswith("| random 0.2 | 50.0 (-10.0: -10.0 .. -10.0) |")


def test_what_was_kept_is_not_run_again_and_parts_are_disjoint(tmp_path, monkeypatch):
    all_of_it = dict(joint_study.every("seed0"))
    (tmp_path / "docs" / "results" / "joint").mkdir(parents=True)
    kept = tmp_path / "docs" / "results" / "joint" / "seed0.json"
    monkeypatch.setattr(joint_study, "cost", lambda arm: 1.0)
    monkeypatch.chdir(tmp_path)
    halves = [dict(joint_study.get_config(f"seed0/{i}of2")) for i in (1, 2)]
    assert not {*halves[0]} & {*halves[1]} and {*halves[0]} | {*halves[1]} == {*all_of_it}
    kept.write_text('{"two-stage": {}, "masked": {}}')
    left = dict(joint_study.get_config("seed0"))
    assert {*all_of_it} - {*left} == {"two-stage-first", "two-stage", "masked"}
    kept.write_text(json.dumps({name: {} for name in all_of_it}))
    with pytest.raises(UserError, match="delete it to run it again"):
        list(joint_study.get_config("seed0"))


def test_the_page_is_what_was_kept(tmp_path, monkeypatch):
    page = joint.PAGE.read_text()
    monkeypatch.setattr(joint, "PAGE", tmp_path / "joint.md")
    monkeypatch.setattr(joint, "PLOT", tmp_path / "joint.png")
    joint.write()
    assert (tmp_path / "joint.md").read_text() == page, "python -m mm.papers joint rewrites it"
