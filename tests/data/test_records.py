"""Damaged records are replaced from within their split, named once, and limited in number."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.data.records import CorruptLog, Records
from mm.errors import UserError


class Disk:
    """Records 0, 10, 20, ...; reading a bad one raises."""

    def __init__(self, size: int, bad: set[int]):
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if index in self.bad:
            raise RuntimeError(f"hash mismatch\nat {index}")
        return 10 * index


class DiskInBulk(Disk):
    """The same, also read many at a time."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        return [self[i] for i in indices]


def locate(index: int) -> tuple[str, int]:
    return "shard-0", index


@pytest.mark.parametrize("kind", [Disk, DiskInBulk])
@given(data=st.data())
@settings(deadline=None)
def test_an_unreadable_record_is_the_next_readable_one_of_its_split(kind, data):
    size = data.draw(st.integers(2, 30))
    rows = data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True))
    bad = data.draw(st.sets(st.sampled_from(rows), max_size=len(rows) - 1))
    log = CorruptLog(limit=size)
    records = Records(kind(size, bad), log, locate=locate, rows=rows)
    expected = []
    for i in range(len(rows)):
        j = i
        while rows[j % len(rows)] in bad:
            j += 1
        expected.append(10 * rows[j % len(rows)])
    assert records.read(chunk=data.draw(st.integers(1, 40))) == expected
    assert [records[i] for i in range(len(records))] == expected
    assert log.count == len(bad)


def test_each_is_named_once_on_stderr_with_file_and_place(capsys):
    log = CorruptLog(limit=3)
    records = Records(Disk(6, {2, 3}), log, locate=locate)
    assert records.read() == [0, 10, 40, 40, 40, 50]
    assert records[2] == 40
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "shard-0, record 2" in lines[0]
    assert "hash mismatch at 2" in lines[0]
    assert "shard-0, record 3" in lines[1]


def test_what_cannot_be_decoded_counts_as_unreadable():
    def decode(record: int) -> int:
        if record == 20:
            raise KeyError("image")
        return record + 1

    log = CorruptLog(limit=1)
    assert Records(Disk(4, set()), log, locate=locate, decode=decode).read() == [1, 11, 31, 31]
    assert log.count == 1


def test_one_more_than_the_limit_stops():
    records = Records(Disk(9, {1, 5, 7}), CorruptLog(limit=2), locate=locate)
    with pytest.raises(UserError, match=r"shard-0, record 7: .*corrupt_limit=2"):
        records.read()


def test_nothing_readable_at_all_stops():
    records = Records(Disk(3, {0, 1, 2}), CorruptLog(limit=9), locate=locate)
    with pytest.raises(UserError, match="shard-0: no record is readable"):
        records.read()


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_beyond_the_split_is_no_damage(index):
    log = CorruptLog(limit=0)
    with pytest.raises(IndexError):
        Records(Disk(3, set()), log, locate=locate)[index]
    assert log.count == 0
