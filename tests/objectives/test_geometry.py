"""Terms and figures of embedding spaces: by loops, and where theory says what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.objectives.contrastive import geometry as g


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return unit(rng, 20, 8), unit(rng, 20, 8)


def test_terms_equal_loops(pair):
    x, y = pair
    distance = lambda a, b: ((a - b) ** 2).sum()
    np.testing.assert_allclose(g.alignment(*pair), np.mean([distance(*p) for p in zip(x, y, strict=True)]), rtol=1e-5)  # fmt: skip
    kernel = lambda a, b: np.log(np.mean([np.exp(-2 * distance(a[i], b[j])) for i in range(20) for j in range(20) if i != j]))  # fmt: skip
    np.testing.assert_allclose(g.uniformity(jnp.asarray(x)), kernel(x, x), rtol=1e-5)
    np.testing.assert_allclose(g.cross_uniformity(*map(jnp.asarray, pair)), kernel(x, y), rtol=1e-5)
    np.testing.assert_allclose(g.log_mean_kernel(x, y), kernel(x, y), rtol=1e-9)


def test_uniformity_of_many_dimensions_goes_to_minus_four():
    x = unit(np.random.default_rng(0), 500, 2000)
    np.testing.assert_allclose(g.uniformity(jnp.asarray(x)), -4, atol=0.01)


def test_one_point_per_pair_closes_the_gap(pair):
    """Gradient steps of `to_random_prior` on both sets alone."""
    x, y = (jnp.asarray(p) + jnp.asarray([d] + [0] * 7) for p, d in zip(pair, (1.0, -1.0), strict=True))  # fmt: skip
    gap = lambda x, y: float(jnp.linalg.norm(x.mean(0) - y.mean(0)))
    before = gap(x, y)
    for i in range(40):
        dx, dy = jax.grad(g.to_random_prior, (0, 1))(x, y, jax.random.key(i))
        x, y = x - 2 * dx, y - 2 * dy
    assert gap(x, y) < 0.6 * before


def test_structure_is_zero_for_a_rotation_and_not_for_other_neighbours(pair):
    x, y = map(jnp.asarray, pair)
    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (8, 8)))[0]
    for levels in (1, 3):
        np.testing.assert_allclose(g.structure(x @ rotation, x, levels=levels), 0, atol=1e-5)
        assert g.structure(x, y, levels=levels) > 0.01
    assert np.isfinite(jax.grad(g.structure)(x, y)).all()


def test_the_card_of_two_cones():
    rng = np.random.default_rng(0)
    base = unit(rng, 200, 16)
    tilt = np.eye(16)[0]
    x, y = (b / np.linalg.norm(b, axis=1, keepdims=True) for b in (base + 2 * tilt, base - 2 * tilt))  # fmt: skip
    card = g.card(x, y)
    assert card["separability"] == 1 and card["gap"] > 1.5
    same = g.card(base, base)
    assert same["gap"] == 0 and same["mrv"] == 0 and same["asymmetry"] == 0
    assert same["effective_rank"] > card["effective_rank"] > 1
    assert same["uniformity"] < card["uniformity"]


def test_ranks_and_their_ties():
    scores = np.array([[3.0, 1, 2], [5, 5, 5], [0, 1, -1]])
    np.testing.assert_array_equal(g.ranks(scores), [0, 2, 2])


def test_hubs_make_it_skew():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(300, 300))
    hubs = scores + np.where(np.arange(300) < 5, 5.0, 0.0)
    assert abs(g.skewness(g.chosen(scores))) < 1 < 3 < g.skewness(g.chosen(hubs))


def test_effective_rank_counts_equal_directions():
    rng = np.random.default_rng(0)
    x = np.zeros((5000, 10))
    x[:, :4] = rng.normal(size=(5000, 4))
    np.testing.assert_allclose(g.effective_rank(x), 4, atol=0.05)
