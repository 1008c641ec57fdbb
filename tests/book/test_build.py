"""The built book: complete, and not built again when nothing has changed."""

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import build

ROOT = build.ROOT
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


def test_code_on_a_page_is_the_notebooks_line_by_line():
    """Each line is an element of its own, so that it can wrap with a hanging indent, and what is copied is still the code."""
    page = (HTML / "notebooks" / "03_noise_generation.html").read_text()
    cells = nbformat.read(ROOT / "notebooks" / "03_noise_generation.ipynb", as_version=4).cells
    shown = re.findall(r'<div class="highlight-ipython3 .*?<pre>(.*?)</pre>', page, re.DOTALL)
    text = [html.unescape(re.sub(r"<[^>]+>", "", block)).strip() for block in shown]
    assert text == [cell.source.strip() for cell in cells if cell.cell_type == "code"]
    assert all(block.count('class="line"') == len(code.splitlines()) for block, code in zip(shown, text, strict=True))
    assert 'class="line" style="--indent:4"' in page


def test_plotly_is_loaded_where_a_figure_needs_it_and_nowhere_else():
    for chapter in chapters():
        page = (HTML / f"{chapter}.html").read_text()
        assert ("plotly.min.js" in page) == ("plotly-graph-div" in page), chapter


def test_no_page_says_thebe():
    assert not [c for c in chapters() if "thebe" in " ".join(re.findall(r"<script[^>]*>", (HTML / f"{c}.html").read_text()))]


@pytest.mark.parametrize("chapter", [c for c in chapters() if c.startswith("notebooks/")])
def test_a_chapter_says_what_it_took(chapter):
    page = (HTML / f"{chapter}.html").read_text()
    took = r"For this page: (\d+) s, \d+ times the calibration loop, (\d+\.\d) GB of memory, 1 of \d+ cores"
    said = re.search(took, page)
    assert said and float(said[2]) > 0


def small_book(folder, text, repository=None):
    """Sources of a book with the settings of this one, of one page and one chapter."""
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    (folder / "_config.yml").write_text((ROOT / "_config.yml").read_text() + build.launch_buttons(repository))
    (folder / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n- file: notebooks/chapter\n")
    (folder / "index.md").write_text(f"# A page\n\n{text}\n")
    (folder / "notebooks").mkdir()
    chapter = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("(here)=\n# A chapter\n\nWords.")])
    chapter.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(chapter, folder / "notebooks" / "chapter.ipynb")
    return folder


PLANTED = {
    "[words](elsewhere.md)": "elsewhere",
    "[words](#no-such-place)": "no-such-place",
    "{ref}`no-such-label`": "no-such-label",
    "{numref}`fig-of-nothing`": "fig-of-nothing",
    "{eq}`eq-of-nothing`": "eq-of-nothing",
    "{doc}`no/such/page`": "no/such/page",
    "{py:func}`voxuda.nothing`": "voxuda.nothing",
    "{cite:p}`nobody1900`": "nobody1900",
    "![words](missing.png)": "missing.png",
}
"""Links and references that lead nowhere, and the word by which the build must name each."""


@pytest.mark.slow
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path, capsys):
    source = small_book(tmp_path / "source", "\n\n".join(["[a chapter](here)", *PLANTED]))
    assert build.render(source, tmp_path / "out", tmp_path / "log") != 0
    said = capsys.readouterr().out
    assert [fault for fault, word in PLANTED.items() if word not in said] == []
    assert "here" not in re.findall(r"not found: '(\S+)'", said), "a link that leads somewhere is no fault"


def test_a_launch_button_opens_its_chapter(tmp_path):
    text = "[a chapter](here), {cite:p}`molder2021snakemake`\n\n```{bibliography}\n```"
    source = small_book(tmp_path / "source", text, "https://github.com/owner/name")
    assert build.render(source, tmp_path / "out", tmp_path / "log") == 0, (tmp_path / "log").read_text()
    page = (tmp_path / "out" / "_build" / "html" / "notebooks" / "chapter.html").read_text()
    assert "https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/chapter.ipynb" in page
