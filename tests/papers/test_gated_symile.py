"""Synthetic XNOR: which signs are whose, and that exactly one of b and c lies."""

import numpy as np

from mm.papers import table


def test_a_row_is_corrupted_in_b_or_in_c_and_the_other_tells_the_truth():
    module = table.opened("gated_symile")
    made = module.CorruptedXnor().made(np.random.default_rng(0), 2000, "test")
    u, v, both = (made["a"][:, i : i + 16] for i in (0, 16, 32))
    np.testing.assert_array_equal(both, u * v)
    b, one, again = (made["b"][:, i : i + 16] for i in (0, 16, 32))
    np.testing.assert_array_equal(b, again)
    assert (one == 1).all() and (made["c"][:, :16] == 1).all()
    true_b, true_c = (b == u).all(1), (made["c"][:, 16:32] == v).all(1)
    np.testing.assert_array_equal(true_b, made["which"] == 1)
    np.testing.assert_array_equal(true_c, made["which"] == 0)
    assert abs(made["which"].mean() - 0.5) < 0.05
    assert abs(made["a"][:, 48:].std() - 3) < 0.05 and made["a"].shape == (2000, 128)
    assert len(module.GROUPS) == 2 and set(made["which"].tolist()) == {0, 1}
