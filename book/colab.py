"""Let Colab open the chapters: write a cell below the title that installs the package there and does nothing elsewhere.

Usage: python book/colab.py https://github.com/OWNER/NAME. Who publishes the book, and so knows its address, runs it once and
commits the notebooks. Again with another address, it replaces the cell.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

TAG = "colab"
CELL = """# Set-up: on Colab, install the package
import os
import subprocess
import sys

if "google.colab" in sys.modules:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "."]
    subprocess.run(["git", "clone", "--quiet", "--depth", "1",
                    "{repository}", "voxuda-book"], check=True)
    os.chdir("voxuda-book")
    subprocess.run(pip, check=True)
    sys.path.insert(0, os.getcwd())  # the stored runs lie there"""


def installs(notebooks: Iterable[Path]) -> bool:
    """Tell whether all notebooks have the cell, so that a button may open them on Colab."""
    return all(f'"{TAG}"' in path.read_text() for path in notebooks)


def with_cell(notebook: NotebookNode, repository: str) -> NotebookNode:
    """Put the cell below the title, in place of an earlier one; the page of the book does not show it."""
    cells = [cell for cell in notebook.cells if TAG not in cell.metadata.get("tags", [])]
    tags = {"tags": [TAG, "hide-input", "remove-cell"]}
    first = nbformat.v4.new_code_cell(CELL.format(repository=repository), metadata=tags, id="colab")
    return NotebookNode({**notebook, "cells": [cells[0], first, *cells[1:]]})


if __name__ == "__main__":
    (address,) = sys.argv[1:] or [""]
    if not address.startswith("https://"):
        raise SystemExit(f"the address is {address or 'missing'}; give the repository's https address.")
    for path in sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb")):
        nbformat.write(with_cell(nbformat.read(path, as_version=4), address), path)
    print("now run `make notebooks`, and commit them")
