"""Long work as people see it: in a log file, in a terminal, in a notebook."""

import os
import pty
import subprocess
import sys

import pytest

from mm import progress


def command(folder) -> list[str]:
    toy = ["-m", "mm.main", "--config", "tests/toy_config.py", "--workdir", str(folder)]
    return [sys.executable, *toy, "--config.evals[0].hold=2.5"]


@pytest.fixture
def often(monkeypatch):
    """Lines as often as something happens."""
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)


def test_a_log_file_has_plain_lines(tmp_path):
    with open(tmp_path / "log", "wb") as log:
        subprocess.run(command(tmp_path / "run"), stdout=log, stderr=log, check=True)
    said = (tmp_path / "log").read_bytes()
    assert not [byte for byte in set(said) if byte < 32 and byte != 10] and 127 not in said
    lines = said.decode().splitlines()
    assert [line for line in lines if line.startswith("step 60/60, took ") and "loss" in line]
    assert [line for line in lines if line.startswith("evaluating error, took ")]
    assert len([line for line in lines if line.startswith("step ")]) < 20


def test_a_terminal_has_a_bar(tmp_path):
    """A real one, as Python's pty makes it."""
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        command(tmp_path / "run"), stdout=theirs, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # what Linux says when the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert run.wait() == 0
    text = said.decode()
    assert "\x1b[2K" in text and "━" in text and "evaluating error, " in text
    assert "\x1b[?25h" in text.rpartition("\x1b[?25l")[2], "the cursor comes back"
    assert "step 60/60, took " in text


def test_short_work_says_nothing(capsys):
    with progress.work("short", total=3) as work:
        work.update(3)
    assert capsys.readouterr().out == ""


def test_counted_work_says_how_far_it_is(capsys, often):
    assert list(progress.track("abcd", "reading")) == list("abcd")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("reading 2/4, ") for line in lines)
    assert lines[-1].startswith("reading 4/4, took ")


def test_a_log_does_not_say_the_same_again(capsys, often):
    with progress.work("counting", total=2) as work:
        for done in (1, 1, 1, 2):
            work.update(done)
    lines = [line for line in capsys.readouterr().out.splitlines() if "took" not in line]
    assert sum(line.startswith("counting 1/2, ") for line in lines) == 1
    assert sum(line.startswith("counting 2/2, ") for line in lines) == 1


def test_what_is_overdue_is_not_promised_again(monkeypatch):
    work = progress.Work("step", total=4)
    now = [0.0]
    monkeypatch.setattr(work.place.bars, "get_time", lambda: now[0])
    for done in (1, 2):
        now[0] += 10.0
        work.update(done)
    assert "20 s left" in work.line()
    work.counted -= 25.0  # the last one was that long ago
    assert "so far" in work.line()
    work.close()


def test_time_left_follows_from_the_speed(monkeypatch):
    work = progress.Work("step", total=1000, done=100)
    now = [0.0]
    monkeypatch.setattr(work.place.bars, "get_time", lambda: now[0])
    assert "so far" in work.line()
    for done in (200, 300, 400):  # 100 in 10 s: 600 take a minute
        work.update(done)
        now[0] += 10.0
    assert work.line() == "step 400/1,000, 60 s left"
    work.close()


def test_silent_work_is_shown_while_it_lasts_and_only_the_innermost(capsys, often):
    said = ""
    with progress.work("outer"), progress.work("inner"):
        while "inner, " not in said:  # said by no call of ours
            said += capsys.readouterr().out
    assert "inner, " in said


def test_work_that_fails_is_not_said_to_be_done(capsys, often):
    with pytest.raises(ZeroDivisionError):
        list(progress.track((1 // n for n in (1, 0)), "dividing"))
    said = capsys.readouterr().out
    assert "dividing" in said and "took" not in said
    with progress.work("after it", total=1) as work:
        work.update(1)
    assert "after it 1/1, took " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (99.0, "99 s"), (120.0, "2 min"), (5940.0, "99 min"), (9000.0, "2 h 30 min")],
)
def test_seconds_as_people_say_them(seconds, said):
    assert progress.spoken(seconds) == said


NOTEBOOK = """
import time
from mm import progress
with progress.work("counting", total=12) as work:
    for i in range(12):
        time.sleep(0.25)
        work.update(i + 1)
"""


def test_a_notebook_rewrites_one_line(monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    nbclient.NotebookClient(book, kernel_name="python3").execute()
    (shown,) = book.cells[0].outputs
    assert shown["data"]["text/plain"].startswith("counting 12/12, took ")
