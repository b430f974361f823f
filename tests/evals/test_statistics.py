import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats
from sklearn.neighbors import KNeighborsClassifier

from mm.evals import statistics as s


def hit_rate(draw, interval, truth, trials=400):
    low_high = [interval(*draw(np.random.default_rng(i))) for i in range(trials)]
    return np.mean([low <= truth <= high for low, high in low_high])


def clustered(rng, p=0.85, clusters=60, size=20, spread=6.0):
    chance = rng.beta(p * spread, (1 - p) * spread, clusters)
    cluster = np.repeat(np.arange(clusters), size)
    return rng.random(len(cluster)) < chance[cluster], cluster


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_interval_of_independent_trials_holds_its_level(p):
    draw = lambda rng: (rng.random(150) < p, np.arange(150))
    assert hit_rate(draw, s.proportion_interval, p) >= 0.94


def test_interval_of_clustered_trials_holds_its_level_where_the_naive_one_fails():
    naive = lambda x, cluster: s.proportion_interval(x, np.arange(len(x)))
    assert hit_rate(clustered, s.proportion_interval, 0.85) >= 0.92
    assert hit_rate(clustered, naive, 0.85) < 0.75


def test_interval_is_at_least_as_wide_as_the_exact_one_and_contains_the_estimate():
    x = np.random.default_rng(0).random(200) < 0.9
    low, high = s.proportion_interval(x, np.arange(200))
    exact = stats.binomtest(int(x.sum()), 200).proportion_ci(method="exact")
    assert low <= exact.low <= x.mean() <= exact.high <= high


def test_repeating_every_trial_buys_nothing():
    x = np.random.default_rng(1).random(80) < 0.8
    once = s.proportion_interval(x, np.arange(80))
    again = s.proportion_interval(np.repeat(x, 50), np.repeat(np.arange(80), 50))
    np.testing.assert_allclose(again, once, atol=0.01)


@pytest.mark.parametrize("value", [0, 1])
def test_interval_of_unanimous_trials_counts_clusters(value):
    low, high = s.proportion_interval(np.full(100, value), np.repeat(np.arange(10), 10))
    edge = 0.025 ** (1 / 10)  # the exact interval of 10 of 10
    assert (low, high) == pytest.approx((edge, 1) if value else (0, 1 - edge))


def test_mean_interval_holds_its_level():
    def draw(rng):
        cluster = np.repeat(np.arange(40), 10)
        return rng.normal(size=40)[cluster] + rng.normal(size=400), cluster

    assert hit_rate(draw, s.mean_interval, 0.0) >= 0.92
    assert s.mean_interval(np.ones(3), np.zeros(3)) == (-np.inf, np.inf)


def slow_coverage(real, fake, k):
    covered = inside = 0
    for i, r in enumerate(real):
        others = sorted(np.linalg.norm(r - o) for j, o in enumerate(real) if j != i)
        hits = [np.linalg.norm(r - f) <= others[k - 1] for f in fake]
        covered, inside = covered + any(hits), inside + sum(hits)
    return covered / len(real), inside / (k * len(fake))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(7, 20), st.integers(1, 15), st.integers(1, 5))
def test_coverage_and_density_equal_a_slow_reference(seed, n, m, k):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    assert s.coverage_density(real, fake, k) == pytest.approx(slow_coverage(real, fake, k))


def test_coverage_of_the_same_set_is_1_even_with_repeated_points(monkeypatch):
    monkeypatch.setattr(s, "CHUNK", 7)
    real = np.repeat(np.random.default_rng(0).normal(size=(20, 4)), 10, axis=0)
    assert s.coverage_density(real, real, 5)[0] == 1
    assert s.coverage_density(real, real + 100, 5) == (0, 0)


def test_coverage_falls_for_one_prototype_per_class():
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(10, 8))
    label = np.arange(1000) % 10
    real, other = (centres[label] + rng.normal(size=(1000, 8)) for _ in range(2))
    assert s.coverage_density(real, other)[0] > 0.9
    assert s.coverage_density(real, centres[label])[0] < 0.5


def test_frechet_equals_the_matrix_square_root_and_the_one_dimensional_form():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(200, 6)) + 0.5
    ca, cb = np.cov(a.T), np.cov(b.T)
    shift = a.mean(0) - b.mean(0)
    slow = shift @ shift + np.trace(ca + cb - 2 * linalg.sqrtm(ca @ cb).real)
    assert s.frechet(a, b) == pytest.approx(slow, rel=1e-6)
    assert s.frechet(a, b) == pytest.approx(s.frechet(b, a))
    x, y = a[:, :1], b[:, :1]
    line = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert s.frechet(x, y) == pytest.approx(line)


def test_frechet_is_0_for_equal_and_finite_for_degenerate_sets():
    a = np.random.default_rng(0).normal(size=(5, 20))  # fewer points than dimensions
    assert s.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert s.frechet(np.tile(a[:1], (4, 1)), a) > 0


def test_diversity_is_within_conditions():
    points = np.array([[0.0], [1.0], [100.0], [103.0], [7.0]])
    assert s.diversity(points, np.array([0, 0, 1, 1, 2])) == pytest.approx((1 + 3) / 2)
    assert s.diversity(np.repeat(points[:2], 3, 0), np.repeat([0, 1], 3)) == 0
    assert np.isnan(s.diversity(points, np.arange(5)))


@pytest.mark.parametrize("k", [1, 3, 9])
def test_nearest_equals_sorting_everything(monkeypatch, k):
    monkeypatch.setattr(s, "CHUNK", 4)
    rng = np.random.default_rng(k)
    points, among = rng.normal(size=(10, 3)), rng.normal(size=(9, 3))
    slow = np.linalg.norm(points[:, None] - among[None], axis=-1)
    distances, indices = s.nearest(points, among, k)
    np.testing.assert_allclose(distances, np.sort(slow, 1)[:, :k])
    np.testing.assert_array_equal(indices, np.argsort(slow, 1)[:, :k])


def test_knn_equals_scikit_learn():
    rng = np.random.default_rng(0)
    train, labels = rng.normal(size=(200, 4)), rng.integers(3, 6, 200)
    points = rng.normal(size=(50, 4))
    expected = KNeighborsClassifier(5).fit(train, labels).predict(points)
    np.testing.assert_array_equal(s.knn_classify(points, train, labels, 5), expected)
