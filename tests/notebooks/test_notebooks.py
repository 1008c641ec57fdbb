"""The committed notebooks are as they should be, and the checks that say so can fail."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book"))

import exercises
from check import problems, teaching_problems

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_has_no_fault(path):
    assert problems(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_chapter_follows_the_pattern(path):
    assert teaching_problems(nbformat.read(path, as_version=4)) == []


EXERCISE = """```{{exercise}} ★ Four
:label: ex-{label}

What is {question}?

~~~python
answer = ...
~~~
```

```{{admonition}} Hint
:class: tip, dropdown
Count.
```"""


def a_chapter():
    """A small chapter without a fault, as if it had run."""
    new = nbformat.v4
    picture = {"image": {"alt": "Two dots beside two dots"}, "figure": {"caption": "Two and two, as dots."}}
    turnable = '<div class="plotly" aria-label="Two and two, as balls to turn"></div>'
    cells = [
        new.new_markdown_cell(
            "# A chapter\n\n**Question.** What is two and two?\n\n"
            "**Needs.** At scale `smoke` a second on two CPU cores, under 1 GB of memory, no GPU."
        ),
        new.new_code_cell("scale = 'smoke'\ndevice = 'cpu'\nseed = 0", metadata={"tags": ["parameters"]}),
        new.new_code_cell("print(scale, device, seed)", outputs=[new.new_output("stream", text="smoke cpu 0\n")]),
        new.new_code_cell(
            "plot()", metadata={"mystnb": picture}, outputs=[new.new_output("display_data", {"image/png": "iVBORw0KGgo="})]
        ),
        new.new_code_cell("turn()", outputs=[new.new_output("display_data", {"text/html": turnable})]),
    ]
    for label, question in {"sum": "2 + 2", "product": "2 * 2"}.items():
        cells += [
            new.new_markdown_cell(EXERCISE.format(label=label, question=question)),
            new.new_markdown_cell(f"```{{solution-start}} ex-{label}\n:class: dropdown\n```"),
            new.new_code_cell(f"answer = {question}\n# Check\nassert answer == 4"),
            new.new_markdown_cell("```{solution-end}\n```"),
        ]
    cells.append(new.new_markdown_cell("## Recap\n\nIt is four."))
    for count, cell in enumerate(filter(is_code, cells), start=1):
        cell.execution_count = count
    return new.new_notebook(cells=cells)


def first(notebook, condition):
    return next(cell for cell in notebook.cells if condition(cell))


def is_code(cell):
    return cell.cell_type == "code"


def has_picture(cell):
    return is_code(cell) and any("image/png" in o.get("data", {}) for o in cell.outputs)


def has_plotly(cell):
    return is_code(cell) and any("plotly" in "".join(o.get("data", {}).get("text/html", "")) for o in cell.outputs)


def out_of_order(nb):
    first(nb, is_code).execution_count = 7


def error(nb):
    first(nb, is_code).outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])]


def warning(nb):
    first(nb, is_code).outputs = [nbformat.v4.new_output("stream", name="stderr", text="careful")]


def untagged(nb):
    first(nb, is_code).metadata.pop("tags")


def unused_parameter(nb):
    first(nb, is_code).source += "\nspeed = 3"


def missing_parameter(nb):
    cell = first(nb, is_code)
    cell.source = cell.source.replace("seed = 0", "")


def no_alt(nb):
    first(nb, has_picture).metadata["mystnb"].pop("image")


def no_caption(nb):
    first(nb, has_picture).metadata["mystnb"].pop("figure")


def no_label(nb):
    for output in first(nb, has_plotly).outputs:
        output.data["text/html"] = output.data["text/html"].replace("aria-label", "data-label")


def no_solution(nb):
    cell = first(nb, lambda c: c.source.startswith("```{solution-start}"))
    cell.source = "nothing"


def no_hint(nb):
    cell = first(nb, lambda c: "{admonition} Hint" in c.source)
    cell.source = cell.source.replace("Hint", "Note")


def no_stub(nb):
    cell = first(nb, lambda c: c.source.startswith("```{exercise}"))
    cell.source = cell.source.replace("~~~python", "~~~text")


def solution_cell(nb):
    start = next(i for i, c in enumerate(nb.cells) if c.source.startswith("```{solution-start}"))
    return first(nb, lambda c: is_code(c) and nb.cells.index(c) > start)


def no_check(nb):
    cell = solution_cell(nb)
    cell.source = cell.source.replace("# Check", "# Look")


def check_of_something_else(nb):
    cell = solution_cell(nb)
    cell.source = cell.source.partition("# Check\n")[0] + "# Check\nassert True"


def wide(nb):
    first(nb, is_code).source += "\n# " + "x" * 80


def wide_output(nb):
    first(nb, is_code).outputs = [nbformat.v4.new_output("stream", name="stdout", text="x" * 80)]


def no_question(nb):
    nb.cells[0].source = "# Title only"


def no_needs(nb):
    nb.cells[0].source = nb.cells[0].source.replace("GB", "megabytes")


def no_recap(nb):
    nb.cells[-1].source = "The end."


def no_assert(nb):
    nb.cells = [cell for cell in nb.cells if not (is_code(cell) and "assert" in cell.source)]


def relative_path(nb):
    first(nb, is_code).source += '\nopen("../results/x.json")'


def typed_number(nb):
    nb.cells[-1].source += "\n\nWith 48.31 % it is best."


def typed_share(nb):
    nb.cells[-1].source += "\n\nIt is 9 % faster."


def typed_formula(nb):
    nb.cells[-1].source += "\n\nWith $48.31$ % it is best."


def typed_caption(nb):
    first(nb, has_picture).metadata["mystnb"]["figure"]["caption"] += " With 48.31 % it is best."


def typed_alt(nb):
    first(nb, has_picture).metadata["mystnb"]["image"]["alt"] += " With 48.31 % it is best."


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (out_of_order, "did not run in order"), (error, "ends in an error"), (warning, "prints a warning"),
        (untagged, "must be tagged parameters"), (unused_parameter, "parameter speed has no effect"),
        (missing_parameter, "parameter seed is missing"), (no_alt, "has no alt text"), (no_caption, "has no caption"),
        (no_label, "turnable figure"), (no_solution, "do not match"), (no_hint, "folded hint"),
        (no_stub, "has no stub"), (no_check, "has no assert after a line # Check"),
        (check_of_something_else, "is not both answered and checked"), (wide, "a line of"), (wide_output, "a printed line of"),
        (no_question, "title and a question"), (no_needs, "does not say what the notebook needs"), (no_recap, "not a recap"), (no_assert, "no cell asserts"),
        (relative_path, "depends on the working directory"), (typed_number, "the prose says 48.31, which no cell has"),
        (typed_share, "the prose says 9 %, which no cell has"),
        (typed_formula, "says 48.31"), (typed_caption, "says 48.31"), (typed_alt, "says 48.31"),
    ],
)  # fmt: skip
def test_the_check_finds_a_planted_fault(plant, message):
    notebook = a_chapter()
    assert problems(notebook) == []
    plant(notebook)
    assert any(message in found for found in problems(notebook))


def bare_fold(nb):
    first(nb, has_plotly).metadata["tags"] = ["hide-input"]


def long_cell(nb):
    first(nb, has_plotly).source += "\nturn()" * 25


def assert_in_sight(nb):
    first(nb, has_plotly).source += "\nassert True"


def ungraded(nb):
    cell = first(nb, lambda c: c.source.startswith("```{exercise}"))
    cell.source = cell.source.replace("★ ", "")


def a_little_wide(nb):
    first(nb, is_code).source += "\n# " + "x" * 71


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (bare_fold, "begins with turn"), (long_cell, "26 lines in sight"), (assert_in_sight, "asserts in sight"),
        (ungraded, "has no grade"), (a_little_wide, "more than 72 columns"),
    ],
)  # fmt: skip
def test_the_pattern_is_held_to(plant, message):
    notebook = a_chapter()
    first(notebook, has_picture).source = "# Figure\nassert True"
    first(notebook, has_picture).metadata["tags"] = ["hide-input"]
    assert teaching_problems(notebook) == []
    plant(notebook)
    assert any(message in found for found in teaching_problems(notebook))


@pytest.mark.parametrize("check", ["assert answer == 4", "print(answer)\nassert 2 + 2 == 4"])
def test_a_stub_that_passes_its_check_stops_the_build(tmp_path, check):
    new = nbformat.v4
    cells = [
        new.new_code_cell("two = 2"),
        new.new_markdown_cell("```{exercise} Four\n:label: ex-four\n\nWhat is it?\n\n~~~python\nanswer = ...\n~~~\n```"),
        new.new_markdown_cell("```{solution-start} ex-four\n:class: dropdown\n```"),
        new.new_code_cell(f"answer = two + two\n# Check\n{check}"),
        new.new_markdown_cell("```{solution-end}\n```"),
        new.new_code_cell("two"),
    ]
    proved, out = tmp_path / "proved.ipynb", tmp_path / "out.ipynb"
    nbformat.write(exercises.with_proofs(new.new_notebook(cells=cells)), proved)

    def execute():
        papermill.execute_notebook(proved, out, cwd=str(tmp_path), kernel_name="python3", progress_bar=False)

    if "2 + 2" in check:
        with pytest.raises(papermill.PapermillExecutionError, match="ex-four: the stub passes the check"):
            execute()
    else:
        execute()
        notebook = exercises.without_proofs(nbformat.read(out, as_version=4))
        assert [c.source for c in notebook.cells] == [c.source for c in cells]
        assert [c.execution_count for c in notebook.cells if is_code(c)] == [1, 2, 3]
        assert notebook.cells[-1].outputs[0].execution_count == 3


def test_nbval_fails_on_a_planted_wrong_number(tmp_path):
    """With the options of ``make test``, a notebook passes as it is, and fails with another number in its stored output."""
    for name, stored in {"right": "trunk 1.635", "wrong": "trunk 1.636"}.items():
        output = nbformat.v4.new_output("stream", text=f"{stored}\n")
        cell = nbformat.v4.new_code_cell("print('trunk', round(1.63512, 3))", execution_count=1, outputs=[output])
        python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=python), tmp_path / f"{name}.ipynb")
    options = re.search(r"pytest (-p no:cacheprovider .*--nbval-cell-timeout=\d+)", (ROOT / "Makefile").read_text())[1].split()
    command = [sys.executable, "-m", "pytest", *options, "."]
    there = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # which shows no figures to notebooks
    ran = subprocess.run(command, cwd=tmp_path, env=there, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "1 failed, 1 passed" in ran.stdout, ran.stdout
    assert "FAILED wrong.ipynb" in ran.stdout and "1.636" in ran.stdout


def texts(notebook):
    """What each code cell prints, and its tables, in order, without the cells that nbval ignores or papermill adds."""
    skipped = {"nbval-ignore-output", "injected-parameters"}
    return [
        "".join(o.get("text", "") or o.get("data", {}).get("text/markdown", "") for o in cell.outputs)
        for cell in notebook.cells
        if is_code(cell) and not skipped & set(cell.metadata.get("tags", []))
    ]


def test_another_number_in_a_table_is_seen():
    notebook = nbformat.read(ROOT / "notebooks" / "B_every_row.ipynb", as_version=4)
    stored = texts(notebook)
    tables = [o for c in notebook.cells if is_code(c) for o in c.outputs if "text/markdown" in o.get("data", {})]
    shown = next(output for output in tables if "| DANN | " in output.data["text/markdown"])
    shown.data["text/markdown"] = shown.data["text/markdown"].replace("| DANN | ", "| DANN | 4", 1)
    assert texts(notebook) != stored


@pytest.mark.slow
def test_papermill_parameters_take_effect(tmp_path):
    stored = nbformat.read(ROOT / "notebooks" / "03_noise_generation.ipynb", as_version=4)
    results = {}
    for name, parameters in {"seed": {"seed": 1}, "scale": {"scale": "laptop"}}.items():
        out = tmp_path / f"{name}.ipynb"
        papermill.execute_notebook(
            ROOT / "notebooks" / "03_noise_generation.ipynb", out, parameters,
            cwd=str(ROOT / "notebooks"), kernel_name="python3", progress_bar=False,
        )  # fmt: skip
        results[name] = nbformat.read(out, as_version=4)
        assert sum("injected-parameters" in c.metadata.get("tags", []) for c in results[name].cells) == 1
    assert texts(results["seed"]) != texts(stored) and texts(results["scale"]) != texts(stored)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_build_and_the_repository_show_the_same(path):
    """The book's own run, through papermill, printed what is committed, which nbval compares with a run of its own."""
    executed = ROOT / "_build" / "executed" / path.name
    if not executed.exists() and not os.environ.get("CI"):
        pytest.skip("the book is not built: run `make book`")
    assert texts(nbformat.read(executed, as_version=4)) == texts(nbformat.read(path, as_version=4))
