"""The built book: complete, and not built again when nothing has changed."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"


@pytest.fixture(autouse=True)
def built():
    if not (HTML / "index.html").exists() and not os.environ.get("CI"):
        pytest.skip("the book is not built: run `make book`")


GENERATED = {"book/ledger", "book/licences", "api/index", "api/commands"}


def chapters():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [c for part in toc["parts"] for c in part["chapters"]]
    return [toc["root"], *(page["file"] for c in listed for page in (c, *c.get("sections", ())) if "file" in page)]


def test_every_notebook_and_page_is_in_the_book():
    notebooks = {f"notebooks/{p.stem}" for p in (ROOT / "notebooks").glob("*.ipynb")}
    pages = {p.relative_to(ROOT).with_suffix("").as_posix() for p in (ROOT / "book").rglob("*.md")}
    assert notebooks | pages | GENERATED == set(chapters())
    for chapter in chapters():
        assert (HTML / f"{chapter}.html").exists()


def test_a_second_make_book_has_nothing_to_do():
    dry = subprocess.run(["make", "-n", "book"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "build.py" not in dry and "pip" not in dry and "index.html" in dry


@pytest.mark.parametrize("chapter", chapters())
def test_no_page_asks_another_host_for_a_script_or_a_picture(chapter):
    page = (HTML / f"{chapter}.html").read_text()
    loaded = re.findall(r'<(?:script|img|iframe)\b[^>]*\bsrc="([^"]+)"', page)
    loaded += re.findall(r'<link\b[^>]*\brel="(?:stylesheet|preload|icon)"[^>]*\bhref="([^"]+)"', page)
    assert loaded and not [address for address in loaded if re.match(r"(?:https?:)?//", address)]


@pytest.mark.parametrize("chapter", chapters())
def test_every_picture_has_words(chapter):
    page = (HTML / f"{chapter}.html").read_text()
    for alt in re.findall(r'<img\b[^>]*\bsrc="[^"]*_images/[^"]*"[^>]*>', page):
        words = re.search(r'\balt="([^"]*)"', alt)
        assert words and len(words[1]) > 20 and "_images" not in words[1]


def test_plotly_is_loaded_where_a_figure_needs_it_and_nowhere_else():
    for chapter in chapters():
        page = (HTML / f"{chapter}.html").read_text()
        assert ("plotly.min.js" in page) == ("plotly-graph-div" in page), chapter


def test_no_page_says_thebe():
    assert not [c for c in chapters() if "thebe" in " ".join(re.findall(r"<script[^>]*>", (HTML / f"{c}.html").read_text()))]


@pytest.mark.parametrize("chapter", [c for c in chapters() if c.startswith("notebooks/")])
def test_a_chapter_says_what_it_took(chapter):
    page = (HTML / f"{chapter}.html").read_text()
    took = r"For this page: (\d+) s, \d+ times the calibration loop, (\d+\.\d) GB of memory, \d+ processor cores"
    said = re.search(took, page)
    assert said and float(said[2]) > 0
