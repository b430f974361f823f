"""Figures over seeds: the median, the interval of the run in the middle, and what the seeds span."""

import pytest

from mm.errors import UserError
from mm.report.medians import main, main_figures, markdown, medians


def results(accuracy, low, high):
    cell = {"accuracy": accuracy, "interval": [low, high], "samples": 1000}
    cell["baselines"] = {"class_mean_item": {"accuracy": 0.1}}
    facts = {"mean": 0.5, "interval": [0.4, 0.6], "each": {"size": {"accuracy": 0.2}}}
    retrieval = {"map": 0.9, "interval": [0.8, 1.0], "r1": 0.8, "chance": {"map": 0.3}}
    return {
        "any_to_any": {"image->caption": cell | {"facts": facts}},
        "retrieval": {"image->text": retrieval},
        "train": {"seconds": 10.0, "steps": 3},
    }


RUNS = [results(0.7, 0.6, 0.8), results(0.9, 0.85, 0.95), results(0.8, 0.72, 0.88)]


def test_what_counts_is_right_found_and_stated_not_baselines_or_chance():
    assert set(main_figures(RUNS[0])) == {
        "any_to_any.image->caption.accuracy",
        "any_to_any.image->caption.facts.mean",
        "retrieval.image->text.map",
        "train.seconds",
    }


def test_the_median_has_the_interval_of_its_own_run():
    figure, low, high = medians(RUNS)["any_to_any.image->caption.accuracy"]
    assert (figure.value, figure.interval, low, high) == (0.8, (0.72, 0.88), 0.7, 0.9)
    assert (
        "| any_to_any.image->caption.accuracy | 0.800 | 0.720 to 0.880 | 0.700, 0.900 |"
        in markdown(RUNS)
    )


def test_runs_of_different_figures_are_refused():
    with pytest.raises(UserError, match="not the same figures"):
        medians([RUNS[0], {"any_to_any": {}}])
    with pytest.raises(UserError, match=r"name the results\.json"):
        main([])
