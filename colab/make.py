"""Writes colab/quickstart.ipynb from colab/quickstart.py, with the outputs of a whole run (minutes):

    uv run python colab/make.py

The .py is where the notebook is changed; the .ipynb is what Colab opens.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
SOURCE, NOTEBOOK = ROOT / "colab/quickstart.py", ROOT / "colab/quickstart.ipynb"

REPOSITORY = "OWNER/mm"
"""On GitHub, for the badge and for Colab. A placeholder until the project has an address there."""


def read() -> nbformat.NotebookNode:
    """The notebook that the .py says, without outputs."""
    book = jupytext.reads(SOURCE.read_text().replace("REPOSITORY", REPOSITORY), fmt="py:percent")
    book.metadata = {"kernelspec": book.metadata.kernelspec}
    for i, cell in enumerate(book.cells):
        cell.id = f"cell-{i:02}"  # the same at every writing
    return book


def execute(book: nbformat.NotebookNode, **parameters: Any) -> None:
    """Runs all cells, in place, from the root of the checkout; `parameters` are for the cell of that tag.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed.
    """
    for cell in book.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            given = (f"{name} = {value}\n" for name, value in parameters.items())
            kept, cell.source = cell.source, cell.source + "\n" + "".join(given)
            changed = cell
    try:
        client = NotebookClient(book, timeout=None, record_timing=False)
        # XLA's own alarms, of a compilation that is slow on a busy machine, are no part of the notebook.
        client.execute(cwd=str(ROOT), env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    finally:
        changed.source = kept
    book.metadata.pop("language_info", None)  # says which Python ran it


def main() -> None:
    """See the module."""
    shutil.rmtree(ROOT / "runs/notebook", ignore_errors=True)  # or it would find its run finished
    book = read()
    execute(book)
    nbformat.write(book, NOTEBOOK)
    print(f"{NOTEBOOK}: {len(book.cells)} cells, {NOTEBOOK.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
