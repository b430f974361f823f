"""Parts of training examples that are left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.data.missing import KINDS, Missing
from mm.errors import UserError


def examples(rows: int, seed: int, absent: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {n: np.where(rng.random(rows) < absent, -1, np.arange(rows)) for n in ("a", "b", "c")}
    return found | {"group": rng.integers(0, 10, rows).astype(np.int32)}


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0, 0.99), st.sampled_from(KINDS), st.floats(0, 0.9))
def test_something_of_each_example_stays_and_nothing_is_added(seed, share, by, absent):
    rows = examples(60, seed, absent)
    found = Missing(share=share, by=by).dropped(rows, np.random.default_rng(seed))
    for name in ("a", "b", "c"):
        assert ((found[name] == rows[name]) | (found[name] == -1)).all()
    stays, was = (np.stack([r[n] >= 0 for n in "abc"]).any(0) for r in (found, rows))
    assert np.array_equal(stays, was) and np.array_equal(found["group"], rows["group"])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_how_much_is_missing_of_whom(share):
    """Of m parts one stays: an example that would lose all of them loses one less."""
    rows = examples(40_000, 0)
    random, group = (
        np.stack([Missing(share=share, by=by).dropped(rows, np.random.default_rng(1))[n] < 0 for n in "abc"])
        for by in KINDS
    )  # fmt: skip
    assert random.mean() == pytest.approx(share - share**3 / 3, abs=0.01)
    by_group = [group[:, rows["group"] == g].mean() for g in range(10)]
    low, high = max(0, 2 * share - 1), min(1, 2 * share)
    for g in (0, 5, 9):
        p = low + (high - low) * g / 9
        assert by_group[g] == pytest.approx(p - p**3 / 3, abs=0.02)


@pytest.mark.parametrize("wrong", [{"share": 1.0}, {"share": -0.1}, {"share": 0.2, "by": "label"}])
def test_settings_that_make_no_sense_are_named(wrong):
    with pytest.raises(UserError, match=r"config.data.missing: share=.*random or group"):
        Missing(**wrong).validate()
