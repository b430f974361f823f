"""Fingerprints change with anything that changes what a column holds."""

import numpy as np

from mm.data.columns import ArrayColumn, digest


def test_digests_tell_contents_types_shapes_and_parts_apart():
    a = np.arange(6, dtype=np.int32)
    different = [
        digest(a),
        digest(a + 1),
        digest(a.astype(np.uint32)),
        digest(a.reshape(2, 3)),
        digest(a.reshape(3, 2).T),
        digest(a, a),
        digest(a, "x"),
        digest("a", "bc"),
        digest("ab", "c"),
        digest("", ""),
        digest(""),
    ]
    assert len(set(different)) == len(different)
    assert all(len(mark) == 16 for mark in different)
    assert digest(a, "x") == digest(np.arange(6, dtype=np.int32), "x")
    assert digest(a[::2]) == digest(a[::2].copy())


def test_an_array_column_gives_rows():
    column = ArrayColumn(np.arange(10).reshape(5, 2))
    assert len(column) == 5
    assert np.array_equal(column[np.array([4, 0, 0])], [[8, 9], [0, 1], [0, 1]])
    assert column.fingerprint == ArrayColumn(np.arange(10).reshape(5, 2)).fingerprint
