"""Batch i is a pure function of i: whoever makes it, wherever a run starts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.data.batches import Batches, TokenTable, make_raw, make_tokens, serve
from mm.data.columns import ArrayColumn
from mm.space import Batch


def order_of(count: int):
    """An order of `count` examples over a column `a` of as many rows; `b` is absent in some."""

    def order(epoch: int) -> dict[str, np.ndarray]:
        rows = np.random.default_rng([7, epoch]).permutation(count)
        absent = np.where(rows % 3 == 0, -1, rows // 2)
        return {"a": rows, "b": absent, "group": (rows % 10).astype(np.int32)}

    return order


def tables(count: int) -> dict[str, TokenTable]:
    rng = np.random.default_rng(0)
    length = rng.integers(1, 6, count).astype(np.int32)
    return {
        "a": TokenTable(rng.integers(0, 999, (count, 4)).astype(np.int32), np.full(count, 4, "i4")),
        "b": TokenTable(rng.integers(0, 50, (count, 5)).astype(np.int32), length),
    }


def token_batches(count: int, batch_size: int, steps: int) -> Batches:
    held = tables(count)
    return Batches(
        order_of(count), lambda r: make_tokens(held, r), batch_size=batch_size, steps=steps
    )


def assert_equal(one: Batch, other: Batch) -> None:
    for field in ("ids", "length", "present"):
        left, right = getattr(one, field), getattr(other, field)
        assert left.keys() == right.keys()
        for name in left:
            assert left[name].dtype == right[name].dtype
            assert np.array_equal(left[name], right[name])
    assert np.array_equal(one.group, other.group)


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), epochs=st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_every_epoch_has_every_row_once_and_epochs_follow_without_a_gap(count, batch_size, epochs):
    steps = -(-count * epochs // batch_size)
    batches = Batches(order_of(count), dict, batch_size=batch_size, steps=steps)
    seen = np.concatenate([batches[i]["a"] for i in range(steps)])
    assert len(seen) == steps * batch_size
    for epoch in range(epochs):
        part = seen[epoch * count : (epoch + 1) * count]
        assert np.array_equal(part, order_of(count)(epoch)["a"])


def test_a_batch_has_the_rows_tokens_and_says_what_is_absent():
    held, batches = tables(30), token_batches(30, 8, 10)
    for step in range(10):
        batch = batches[step]
        for j in range(8):
            epoch, place = divmod(step * 8 + j, 30)
            order = order_of(30)(epoch)
            a, b = order["a"][place], order["b"][place]
            assert np.array_equal(batch.ids["a"][j], held["a"].ids[a])
            assert batch.present["a"][j]
            assert batch.length["a"][j] == 4
            assert batch.present["b"][j] == (b >= 0)
            assert np.array_equal(batch.ids["b"][j], held["b"].ids[b] if b >= 0 else np.zeros(5))
            assert batch.length["b"][j] == (held["b"].length[b] if b >= 0 else 0)
            assert batch.group[j] == a % 10
        assert batch.ids["b"].dtype == batch.length["b"].dtype == batch.group.dtype == np.int32


@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("start", [0, 1, 17])
def test_any_number_of_threads_and_any_start_give_the_same_batches(threads, start):
    batches = token_batches(50, 16, 40)
    served = list(serve(batches, start=start, threads=threads))
    assert len(served) == 40 - start
    for i, batch in enumerate(served, start):
        assert_equal(batch, batches[i])


def test_a_run_that_starts_at_its_end_has_no_batches():
    assert list(serve(token_batches(5, 2, 4), start=4, threads=1)) == []


@pytest.mark.parametrize("step", [-1, 4])
def test_there_are_no_batches_beyond_the_run(step):
    with pytest.raises(IndexError):
        token_batches(5, 2, 4)[step]


class Words:
    """A column of strings."""

    fingerprint = "words"

    def __len__(self) -> int:
        return 9

    def __getitem__(self, rows: np.ndarray) -> list[str]:
        return [f"word {row}" for row in rows]


def test_raw_rows_come_as_they_are_and_absent_ones_empty():
    columns = {"a": ArrayColumn(np.arange(27).reshape(9, 3) + 1), "b": Words()}
    rows = {"a": np.array([4, -1, 0]), "b": np.array([-1, 8, 8]), "group": np.array([1, 2, 3])}
    batch = make_raw(columns, rows)
    assert np.array_equal(batch["a"], [[13, 14, 15], [0, 0, 0], [1, 2, 3]])
    assert batch["b"] == ["", "word 8", "word 8"]
    assert np.array_equal(batch["group"], [1, 2, 3])
    assert np.array_equal(columns["a"].rows[0], [1, 2, 3])
