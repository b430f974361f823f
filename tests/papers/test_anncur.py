"""Recall of what was picked: a loop."""

import numpy as np

from mm.papers import table


def test_share_of_the_best_among_the_first_picked():
    share = table.opened("anncur").share
    exact = np.array([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]])
    picked = np.array([[1, 0, 4], [4, 0, 3]])
    assert share(picked, exact, 2) == (1.0 + 0.5) / 2
    assert share(picked, exact, 3) == (2 / 3 + 2 / 3) / 2
