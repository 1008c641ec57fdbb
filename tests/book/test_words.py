"""Pages, docstrings and help texts have none of the archaic and literary words that a reader stumbles over."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFUSED = ("lest", "anew", "mend", "nought", "strewn", "whence", "is not to be had", "next to nothing", "on the mean")
FOUND = re.compile(rf"\b({'|'.join(REFUSED)})\b".replace(" ", r"[\s#>*_]+"), re.IGNORECASE)  # over line ends too

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
PAGES += sorted((ROOT / "book" / "methods").glob("*.md"))
CODE = sorted([*(ROOT / "voxuda").rglob("*.py"), *(ROOT / "book").glob("*.py")])  # book/ledger.py makes a page
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def refused(text):
    return [found[0] for found in FOUND.finditer(text)]


@pytest.mark.parametrize("path", [*PAGES, *CODE], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_or_module_has_plain_words(path):
    assert refused(path.read_text()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_has_plain_words(path):
    cells = json.loads(path.read_text())["cells"]
    assert refused("\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")) == []


@pytest.mark.parametrize("text", ["Lest it fail", "drawn anew.", "it holds next\n    to nothing", "# lie on\n# the mean"])
def test_a_refused_word_is_found(text):
    assert len(refused(text)) == 1


def test_longer_words_are_not_refused():
    assert refused("recommend, renewed, largest, commendable, on the means, smallest") == []
