"""Pen paths come back from their codes, their recipe and config run, and adding them stays short."""

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.pen import TOKENIZERS
from data_pipelines.omniglot import Omniglot, resampled
from mm import tokenizers
from mm.data.records import CorruptLog
from mm.main import main

ROOT = Path(__file__).parents[2]
NETWORK = {"Pen", "PenNetwork", "beside"}  # of tokenizers/pen.py
ANGLE_DOT_LINE = np.array([[0, 0], [30, 0], [30, 40], [10, 10], [0, 40], [20, 40.0]])
STARTS = np.array([True, False, False, True, True, False])


def test_a_path_is_even_steps_of_ink_that_keep_dots_and_leave_out_jumps():
    row = resampled(ANGLE_DOT_LINE, STARTS)
    strokes = np.split(row[:, :2], np.flatnonzero(row[:, 2])[1:])
    assert [len(stroke) for stroke in strokes] == [48, 1, 15]  # 70, 0 and 20 long
    np.testing.assert_array_equal([s[0] for s in strokes], [[0, 0], [10, 10], [0, 40]])
    steps = np.hypot(*np.diff(strokes[2], axis=0)[1:].T)
    np.testing.assert_allclose(steps, 90 / 61)  # a jump is a step too, of 64
    assert row[47, 0] == 30 and row[47, 1] > 38  # the first stroke's other end


@pytest.mark.parametrize(("name", "lost"), [("pen", 0.1), ("image", 0.4)])
def test_rows_come_back_from_their_codes(name, lost, tmp_path):
    source, tokenizer = Omniglot(), tokenizers.load(TOKENIZERS[name], name)
    assert tokenizer.fingerprint.startswith(TOKENIZERS[name].partition("#")[2] or "unpinned")
    source.open(tmp_path, CorruptLog(0))
    rows = source.columns("test")[name].rows
    back = np.float32(tokenizer.decode(*tokenizer.encode(rows)))
    assert np.square(back - rows).mean() < lost * rows.var()


def test_a_path_comes_back_from_its_file_and_its_picture_shows_no_jump(tmp_path):
    tokenizer = tokenizers.load(TOKENIZERS["pen"], "pen")
    two_lines = np.array([[-0.9, -0.5], [0.9, -0.5], [-0.9, 0.5], [0.9, 0.5]])
    row = np.float32(resampled(two_lines, np.array([True, False, True, False])))
    seen = tokenizer.write_file(row, tmp_path / "pen")
    np.testing.assert_array_equal(tokenizer.read_file(seen.with_suffix(".npy")), row)
    sheet = np.asarray(Image.open(seen).convert("L"))
    middle = len(sheet) // 2
    assert (sheet[middle - 5 : middle + 5] == 255).all() and (sheet == 0).any()


def counted(path: str) -> int:
    """Lines of code: not blank, no docstring or comment, nor the network and what it alone imports."""
    text = (ROOT / path).read_text()
    tree, lines = ast.parse(text), set()
    rest = [node for node in tree.body if getattr(node, "name", "") not in NETWORK]
    used = {n.id for node in rest for n in ast.walk(node) if isinstance(n, ast.Name)}
    for node in rest:
        imports = node.names if isinstance(node, ast.Import | ast.ImportFrom) else ()
        if not imports or used & {name.asname or name.name for name in imports}:
            first = min(n.lineno for n in (node, *getattr(node, "decorator_list", ())))
            lines |= {*range(first, (node.end_lineno or 0) + 1)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= {*range(node.lineno, (node.end_lineno or 0) + 1)}
    return sum(bool(text.splitlines()[n - 1].partition("#")[0].strip()) for n in lines)


def test_a_modality_is_sixty_lines_and_a_network():
    files = ("data_pipelines/omniglot.py", "tokenizers/pen.py", "configs/pen.py")
    assert sum(map(counted, files)) <= 60


@pytest.mark.slow
@pytest.mark.parametrize("config", ["tokenizers/pen.py:smoke", "configs/pen.py:smoke"])
def test_it_runs(config, tmp_path):
    assert main(["mm", "--config", config, "--workdir", str(tmp_path / "run")]) == 0
