"""The bounds that are gone through against one sequence, one order and one token at a time."""

import itertools

import numpy as np

from mm.papers import table


def test_the_any_order_bound_against_a_loop():
    module = table.opened("any_order")
    log_p = module.table(3)
    hole, total, count = module.VALUES, 0.0, 0
    power = [(hole + 1) ** i for i in range(module.LENGTH)]
    for x in list(itertools.product(range(hole), repeat=module.LENGTH)):
        for order in list(itertools.permutations(range(module.LENGTH))):
            seen = [hole] * module.LENGTH
            for place in order:
                row = sum(s * p for s, p in zip(seen, power, strict=True))
                total -= log_p[row, place, x[place]]
                seen[place] = x[place]
            count += 1
    found = module.bounds(log_p)
    np.testing.assert_allclose(found["any order"], total / count, rtol=1e-12)


def test_the_share_of_k_under_a_cosine_schedule():
    """All cross-entropies 1: any schedule gives the length; what only k = 1 costs comes with k = 1's share alone."""
    module = table.opened("any_order")
    even = np.full((4**5, 5, 3), -1.0)
    for name, nats in module.bounds(even).items():
        np.testing.assert_allclose(nats, 5, rtol=1e-6, err_msg=name)
    one_hidden = even * 0
    digits = np.arange(4**5)[:, None] // 4 ** np.arange(5) % 4
    one_hidden[(digits == 3).sum(1) == 1] = -1.0
    found = module.bounds(one_hidden)
    u = np.random.default_rng(0).random(400_000)
    drawn = (np.ceil(np.cos(np.pi * u / 2) * 5) == 1).mean()
    np.testing.assert_allclose(found["cosine, unweighted"], 5 * drawn, atol=0.02)
    np.testing.assert_allclose(found["uniform k"], 1, rtol=1e-12)
