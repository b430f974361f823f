"""Data that a function makes of a seed."""

import numpy as np

from data_pipelines.latent import LatentViews
from data_pipelines.xor import Parity, Xor
from mm import config
from mm.data.opened import open_data


def opened(source, tmp_path):
    return open_data(config.Data(source=source), tmp_path)


def rows(data, name, split="test"):
    column = data.raw(split)[name]
    return column[np.arange(len(column))]


def test_the_third_bit_is_the_exclusive_or_as_often_as_said(tmp_path):
    data = opened(Xor(p=0.3, rows=(10, 10, 20_000)), tmp_path)
    a, b, c = (rows(data, n).astype(int) for n in "abc")
    mixed = (c == a ^ b).all(1) & ~(c == a).all(1)
    assert (
        abs(mixed.mean() - 0.3 * (1 - 1 / 32)) < 0.015
        and ((c == a).all(1) | (c == a ^ b).all(1)).all()
    )
    assert Xor(p=0.0).ceiling() == 1 / 32 and Xor(p=1.0).ceiling() == 1


def test_splits_differ_and_seeds_decide(tmp_path):
    made = [opened(LatentViews(rows=(50, 50, 50), seed=s), tmp_path) for s in (0, 0, 1)]
    first = [rows(d, "x", "train") for d in made]
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], rows(made[0], "x", "test"))


def test_what_is_absent_is_absent_in_training_alone(tmp_path):
    data = opened(Xor(bits=1, missing=0.5, rows=(400, 10, 10)), tmp_path)
    batch = next(data.batches("train", seed=0, start=0, steps=1, batch_size=400))
    share = [batch["present"][n].mean() for n in "abc"]
    assert all(0.4 < s < 0.6 for s in share)
    assert (batch["a"][~batch["present"]["a"]] == 0).all()
    whole = batch["present"]["a"] & batch["present"]["b"] & batch["present"]["c"]
    a, b, c = (batch[n][whole].astype(int) for n in "abc")
    np.testing.assert_array_equal(c, a ^ b, "rows of one example stay together")
    assert all((rows_ >= 0).all() for rows_ in data.order("test", 0, 0).values())


def test_parity(tmp_path):
    data = opened(Parity(rows=(10, 10, 50)), tmp_path)
    whole = np.concatenate([rows(data, f"m{i}") for i in range(8)], 1)
    assert (whole.sum(1) % 2 == 0).all() and 0.3 < whole.mean() < 0.7
