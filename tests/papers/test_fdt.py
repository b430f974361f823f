"""What padding may not change; codes themselves: tests/models/test_codes.py."""

from mm.papers import table


def test_padding_changes_nothing_unless_its_products_are_zero():
    off = table.opened("fdt").padded(3)["padding"]
    assert off["masked"] <= 1e-6 < 1e-2 <= off["released"]
