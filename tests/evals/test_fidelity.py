import numpy as np
import pytest

from mm.evals.features import Flat
from mm.evals.fidelity import ArrayFidelity, TextFidelity


def make(seed: int, n: int = 200):
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 4
    return rng.normal(size=(n, 6)) + 8 * np.eye(6)[group], group


def test_features_see_training_rows_only():
    train = make(0)
    one, other = (
        ArrayFidelity(Flat(), *train, *make(1)),
        ArrayFidelity(Flat(), *train, *make(2, 40)),
    )
    np.testing.assert_array_equal(one.features.components, other.features.components)


def test_real_rows_score_as_real_rows_do():
    fidelity = ArrayFidelity(Flat(), *make(0), *make(1))
    figures = fidelity.compare(*make(2))
    assert figures["coverage_ratio"] == pytest.approx(1, abs=0.1)
    assert figures["diversity_ratio"] == pytest.approx(1, abs=0.1)
    assert figures["frechet"] < 4 * figures["frechet_real"]
    assert figures["nearest_train"] == pytest.approx(figures["nearest_train_real"], rel=0.2)


def test_noise_copies_and_collapse_are_told_apart():
    (train, group), test = make(0), make(1)
    fidelity = ArrayFidelity(Flat(), train, group, *test)
    noise = fidelity.compare(train + 20, group)
    assert noise["coverage"] == 0 and noise["frechet"] > 100 * noise["frechet_real"]
    assert fidelity.compare(train, group)["nearest_train"] == 0
    collapsed = fidelity.compare(train[group], group)  # rows 0 .. 3: one of each group
    assert collapsed["diversity"] == 0 and collapsed["coverage"] < 0.5


def test_more_points_than_test_rows_do_not_fill_the_balls():
    fidelity = ArrayFidelity(Flat(), *make(0, 2000), *make(1, 40))
    one, group = np.repeat(make(2)[0][:1], 40, axis=0), np.zeros(40, int)
    (rest, rest_group) = make(3, 2000)
    few = fidelity.compare(one, group)
    many = fidelity.compare(np.concatenate([one, rest]), np.concatenate([group, rest_group]))
    assert few["coverage"] == many["coverage"] < 0.5


def test_prototypes_and_classes_are_of_the_group():
    fidelity = ArrayFidelity(Flat(), *make(0), *make(1))
    assert {g: i % 4 for g, i in fidelity.prototypes().items()} == {g: g for g in range(4)}
    rows, group = make(5)
    np.testing.assert_array_equal(fidelity.classify(rows), group)


def test_strings_are_compared_by_frequency():
    train = ["a", "a", "b", "c"] * 5
    test = ["a", "a", "a", "b"]
    fidelity = TextFidelity(train, np.zeros(20, int), test, np.zeros(4, int), reader=len)
    figures = fidelity.compare(["a", "a", "d", "d"], np.zeros(4, int))
    assert figures["coverage"] == 0.75 and figures["coverage_real"] == 1
    assert figures["total_variation"] == pytest.approx((0.25 + 0.25 + 0.5) / 2)
    assert figures["in_training"] == 0.5 and figures["in_training_real"] == 1
    assert figures["diversity"] == pytest.approx(4 / 6)  # of 6 pairs, 2 are equal
    assert fidelity.prototypes() == {0: 0}
    assert fidelity.coverage_of_train(np.array([2, -1])) == 0.25
    alike = fidelity.compare(["a"] * 4, np.arange(4))
    assert alike["diversity"] == 0 and alike["distinct"] == 1
