"""Notebooks are executed side by side, once, and a failing one stops the build."""

import os
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import execute

PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Two small notebooks, which say what they were given and what they are run with."""
    monkeypatch.setattr(execute, "calibration", lambda: 0.25)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for name in ("01_one", "02_two"):
        cells = [
            new_markdown_cell(f"# {name}"),
            new_code_cell("scale = 'smoke'", metadata={"tags": ["parameters"]}),
            new_code_cell("import os, time\nprint(scale, os.environ['OMP_NUM_THREADS'], os.listdir())"),
            # Written to, so that it is resident, and held until the watch has looked.
            new_code_cell("x = bytearray(b'x') * 200_000_000\ntime.sleep(1)"),
        ]
        nbformat.write(new_notebook(cells=cells, metadata=PYTHON), tmp_path / f"{name}.ipynb")
    (tmp_path / "out").mkdir()
    return sorted(tmp_path.glob("*.ipynb"))


def test_a_notebook_runs_once_and_again_when_it_changed(notebooks, tmp_path, capsys):
    parameters, out = {"scale": "laptop"}, tmp_path / "out"
    execute.execute_all(notebooks, out, parameters)
    said = capsys.readouterr().out
    assert "0 notebooks are unchanged, 2 to run" in said
    for notebook in notebooks:
        content = nbformat.read(out / notebook.name, as_version=4)
        assert content.cells[-2].outputs[0].text == "laptop 1 []\n"
        assert f"{notebook.name}: {content.metadata['voxuda_cost']}" in said
        memory = float(content.metadata["voxuda_cost"].split(", ")[2].split()[0])
        assert 0.2 <= memory < 0.4, "that of its own kernel, and not of both"
    execute.execute_all(notebooks, out, parameters)
    assert capsys.readouterr().out == "2 notebooks are unchanged, 0 to run\n"
    changed = nbformat.read(notebooks[0], as_version=4)
    changed.cells[-1].source = "raise ValueError('planted')"
    nbformat.write(changed, notebooks[0])
    with pytest.raises(papermill.PapermillExecutionError, match="planted"):
        execute.execute_all(notebooks, out, parameters)
    assert "1 notebooks are unchanged, 1 to run" in capsys.readouterr().out
    assert not (out / "01_one.key").exists(), "a notebook that failed is no notebook that ran"
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_after_a_failure_the_rest_does_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "calibration", lambda: 0.25)
    monkeypatch.setattr(execute, "JOBS", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebooks = [tmp_path / f"0{number}.ipynb" for number in range(1, 7)]
    for notebook in notebooks:
        nbformat.write(new_notebook(cells=[new_markdown_cell("# One"), new_code_cell("1 / 0")], metadata=PYTHON), notebook)
    (tmp_path / "out").mkdir()
    with pytest.raises(papermill.PapermillExecutionError, match="division by zero"):
        execute.execute_all(notebooks, tmp_path / "out", {"scale": "smoke"})
    assert len(list((tmp_path / "out").glob("*.proved.ipynb"))) <= 4, "of the other five the worker is given three at most"
