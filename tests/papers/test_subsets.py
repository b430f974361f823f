"""What is missing tells the class; fused subsets themselves: tests/models/test_fused.py."""

import numpy as np

from mm.papers import table


def test_what_is_missing_tells_the_class_in_training_alone():
    source = table.opened("subsets").Views()
    rows = source.made(np.random.default_rng(0), 4000, "train")
    for m, name in enumerate(("m0", "m1", "m2", "m3")):
        own = rows["label"] % 4 == m
        gone = ~rows["present"][name]
        assert abs(gone[own].mean() - 0.8) < 0.05 and abs(gone[~own].mean() - 0.1) < 0.03
    assert "present" not in source.made(np.random.default_rng(0), 10, "test")
