"""Golden sets that the original code of 4M made. All but the smallest are no part of the repository: MM_GOLDEN names their folder."""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[3] / "shared" / "anchors" / "4m_golden"
FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = Path(os.environ.get("MM_GOLDEN") or BESIDE)


def golden(name: str) -> Path:
    """The stem of a set; the test is skipped where there is none."""
    if (FIXTURES / f"{name}.npz").is_file():
        return FIXTURES / name
    if not (FOLDER / f"{name}.npz").is_file():
        pytest.skip(f"no golden set {name} in {FOLDER}; name the folder of such sets in MM_GOLDEN")
    return FOLDER / name
