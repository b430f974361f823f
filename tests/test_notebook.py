"""The notebook: what Colab opens is what its source says, ran without an error, and runs."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from colab import install, make

ROOT = Path(__file__).parents[1]
LARGEST = 1.5e6  # bytes, with outputs
ELSEWHERE = re.compile(r"(?<![\w.:/])/(work|tmp|home|root|usr|opt|Users|content|mnt|private)/")


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads(make.NOTEBOOK.read_text())


def texts(output: dict) -> str:
    """Everything in an output that a person reads."""
    data = output.get("data", {})
    parts = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return "\n".join(p if isinstance(p, str) else "".join(p) for p in parts)


def test_it_is_what_its_source_says(stored):
    """Where it is not: `uv run python colab/make.py`."""
    source = [(c.cell_type, c.source, c.metadata.get("tags")) for c in make.read().cells]
    cells = [
        (c["cell_type"], "".join(c["source"]), c["metadata"].get("tags")) for c in stored["cells"]
    ]
    assert cells == source


def test_its_outputs_are_of_one_run_without_error(stored):
    assert make.NOTEBOOK.stat().st_size < LARGEST
    code = [c for c in stored["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    for cell in code:
        said = "\n".join(map(texts, cell["outputs"]))
        assert not any(o["output_type"] == "error" for o in cell["outputs"])
        assert not any(o.get("name") == "stderr" for o in cell["outputs"]), said
        assert not ELSEWHERE.search(said), said
        assert said.count("\n") < 60, "progress rewrites its line"


def test_it_shows_pictures_and_plays_sounds(stored):
    kinds = [k for c in stored["cells"] for o in c.get("outputs", []) for k in o.get("data", {})]
    html = "".join(texts(o) for c in stored["cells"] for o in c.get("outputs", []))
    assert kinds.count("image/png") >= 10 and html.count("<audio") >= 4


def test_the_badge_opens_it_and_colab_fetches_the_same(stored):
    cells = ["".join(c["source"]) for c in stored["cells"]]
    badge = f"colab.research.google.com/github/{make.REPOSITORY}/blob/main/colab/quickstart.ipynb"
    assert badge in cells[0] and (ROOT / "colab/quickstart.ipynb").is_file()
    assert f'"https://github.com/{make.REPOSITORY}"' in cells[1]


def test_colab_keeps_its_own_jax_and_numpy():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    missing, other = install.plan(asked, lambda name: None)
    assert {Requirement(line).name for line in missing}.isdisjoint(install.HELD)
    assert len(missing) + len([n for n in other if "not here" in n]) == len(asked)
    missing, other = install.plan(asked, {"jax": "0.9.3", "numpy": "2.5.0", "flax": "0.11"}.get)
    names = {Requirement(line).name for line in missing}
    assert names.isdisjoint({"jax", "jaxlib", "numpy", "flax"}) and "orbax-checkpoint" in names
    assert [line.split()[0] for line in other] == ["jax", "flax"]
    everything = {Requirement(line).name: "999" for line in asked}
    assert install.plan(asked, everything.get)[0] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_runs_from_start_to_end(tmp_path):
    """At smoke size; raises where a cell does."""
    book = make.read()
    before = [c.source for c in book.cells]
    make.execute(book, FOLDER=f"Path({str(tmp_path)!r})", GALLERY=40, STEPS=12)
    assert [c.source for c in book.cells] == before
    assert (tmp_path / "run/report/index.html").is_file() and (tmp_path / "own.png").is_file()
    outputs = [o for c in book.cells for o in c.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 10
    assert "".join(map(texts, outputs)).count("<audio") >= 4
