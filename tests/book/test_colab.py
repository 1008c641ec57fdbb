"""On Colab a cell below the title installs the package; elsewhere it does nothing, and the chapter is as right as before."""

import subprocess
import sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import check
import colab

CHAPTER = next((Path(__file__).resolve().parents[2] / "notebooks").glob("09*.ipynb"))


def test_the_cell_stands_once_below_the_title_and_is_no_fault(tmp_path):
    plain = nbformat.read(CHAPTER, as_version=4)
    once = colab.with_cell(nbformat.read(CHAPTER, as_version=4), "https://example.org/old")
    again = colab.with_cell(once, "https://example.org/new")
    assert [len(x.cells) - len(plain.cells) for x in (once, again)] == [1, 1]
    assert again.cells[0] == plain.cells[0] and "example.org/new" in again.cells[1].source
    for number, cell in enumerate((c for c in again.cells if c.cell_type == "code"), start=1):
        cell.execution_count = number
    assert check.problems(again) == check.problems(plain) == []
    assert check.teaching_problems(again) == check.teaching_problems(plain) == []
    nbformat.write(again, tmp_path / "with.ipynb")
    assert colab.installs([tmp_path / "with.ipynb"]) and not colab.installs([tmp_path / "with.ipynb", CHAPTER])


def test_the_cell_clones_and_installs_on_colab_alone(tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    (repository / "voxuda.py").write_text("")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["add", "."], [*author, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", "-C", repository, *command], check=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "path", [*sys.path])
    cell = colab.CELL.format(repository=repository.as_uri())
    exec(cell, {})
    assert not any(Path().iterdir()), "elsewhere nothing happens"
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    monkeypatch.setattr(sys, "executable", "true")  # instead of pip
    exec(cell, {})
    assert Path("voxuda.py").is_file() and sys.path[0] == str(tmp_path / "work" / "voxuda-book")
