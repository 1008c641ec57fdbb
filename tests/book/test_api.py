"""Pages of the package: complete, and linked with the chapters both ways."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import api

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"


def test_names_are_found_however_they_are_imported(tmp_path):
    code = (
        "from voxuda.denoising import noise\nfrom voxuda.simulation import quick as s\n"
        "from voxuda.networks.teacher import Teacher as T\n"
        "from voxuda.methods import VoxUDAOptions\n"
        "from voxuda import SCALES, plots\n"
        "import torch\ndef f():\n    return noise.highpass(torch.zeros(1)), T\n"
        "s.render, VoxUDAOptions().rho, noise.PAPER_RATES\nplots.slices, SCALES"
    )
    path = tmp_path / "x.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A title\n\ntext"), new_code_cell(code)]), path)
    assert api.title(path) == "A title"
    assert api.used(path, api.index()) == [
        "voxuda.denoising.noise.PAPER_RATES", "voxuda.denoising.noise.highpass", "voxuda.experiments.plots.slices",
        "voxuda.methods.options.VoxUDAOptions", "voxuda.networks.teacher.Teacher", "voxuda.simulation.quick.render",
        "voxuda.training.config.SCALES",
    ]  # fmt: skip
    assert api.links(path, api.index()).count("{py:obj}") == 7
    assert api.links(path, set()) == ""


def test_every_public_name_says_what_it_is():
    for part in api.ROOMS:
        for module in api.submodules(part):
            assert module.__doc__, module.__name__
            for name, text in api.public(module).items():
                assert "py:data" in text or getattr(module, name).__doc__, f"{module.__name__}.{name}"


def test_every_command_is_on_the_page():
    page = api.commands()
    headings = re.findall(r"^## (.+)$", page, re.M)
    assert {"voxuda train", "voxuda data check", "voxuda results show", "voxuda simulate quick"} <= set(headings)
    assert len(headings) == len(set(headings)) and page.count("usage: voxuda") == len(headings)
    assert not [line for line in page.splitlines() if len(line) > 86]


@pytest.fixture
def built():
    if not (HTML / "index.html").exists() and not os.environ.get("CI"):
        pytest.skip("the book is not built: run `make book`")


def test_chapters_and_pages_of_the_package_link_both_ways(built):
    chapter = (HTML / "notebooks" / "03_noise_generation.html").read_text()
    assert 'href="../api/modules/denoising.html#voxuda.denoising.noise.highpass"' in chapter
    module = (HTML / "api" / "modules" / "denoising.html").read_text()
    assert 'href="../../notebooks/03_noise_generation.html"' in module and "half-width in frequency steps" in module
    for part in api.ROOMS:
        assert (HTML / "api" / "modules" / f"{part}.html").exists()
