"""Faults of a notebook that no runner sees: order of execution, parameters, alt text, exercises, width."""

from __future__ import annotations

import ast
import re

import colab
import exercises
from nbformat import NotebookNode

WIDTH, CODE_WIDTH, CODE_LINES = 78, 72, 25
"""Columns that fit the page; columns and lines of a cell of code that teaches, which fits a screen."""

FOLDED = re.compile(r"# (Checks|Figure|Table|Set-up)\b.*")
"""First line of a cell tagged hide-input: what its fold is called on the page."""

_NEEDS = r"\*\*Needs\.\*\* At (?:any|scale) `s[a-z]+` [^.]*on two CPU cores, under ([\d.]+) GB of memory, no GPU[.;]"
NEEDS = _NEEDS.replace(" ", r"\s+")
"""What the first cell says of time, memory and GPU; the build compares the memory."""


def problems(notebook: NotebookNode) -> list[str]:
    """What is wrong with an executed notebook, one sentence a fault; empty when it is right."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [
        *_pattern(text), *_execution(code), *_parameters(code), *_figures(code), *_exercises(text),
        *exercises.faults(notebook.cells), *_lines(code), *_paths(code), *_numbers([*text, *_descriptions(code)], code),
    ]  # fmt: skip


def teaching_problems(notebook: NotebookNode) -> list[str]:
    """Return what departs from a chapter's pattern: long or asserting cells in sight, unnamed folds, ungraded exercises."""
    found, folded_text = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            folded_text = (folded_text or "{solution-start}" in cell.source) and "{solution-end}" not in cell.source
            titles = re.findall(r"```\{exercise\} (.+)", cell.source)
            found += [f"exercise {title} has no grade of one to three ★" for title in titles if not re.match("★{1,3} ", title)]
            continue
        lines, number = cell.source.splitlines(), cell.execution_count
        if "hide-input" in cell.metadata.get("tags", []):
            if not FOLDED.fullmatch(lines[0]):
                found.append(
                    f"the folded cell {number} begins with {lines[0]}, not with # Checks, # Figure, # Table or # Set-up"
                )
            continue
        if max(map(len, lines), default=0) > CODE_WIDTH:
            found.append(f"a line of cell {number} has more than {CODE_WIDTH} columns")
        if folded_text:  # a solution is folded as a whole
            continue
        if len(lines) > CODE_LINES:
            found.append(f"cell {number} has {len(lines)} lines in sight, a screen {CODE_LINES}")
        if re.search(r"^\s*assert ", cell.source, re.MULTILINE):
            found.append(f"cell {number} asserts in sight; fold its checks")
    return found


def _pattern(text: list[str]) -> list[str]:
    found = []
    if not text or not text[0].startswith("# ") or "**Question.**" not in text[0]:
        found.append("the first cell lacks a title and a question")
    if not text or not re.search(NEEDS, text[0]):
        found.append("the first cell does not say what the notebook needs")
    if not text or not text[-1].startswith("## Recap"):
        found.append("the last cell is not a recap")
    return found


def _execution(code: list[NotebookNode]) -> list[str]:
    found = []
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"cells did not run in order on a fresh kernel: {counts}")
    for cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {cell.execution_count} ends in an error")
            if output.get("name") == "stderr":
                found.append(f"cell {cell.execution_count} prints a warning")
    if not any("assert" in cell.source for cell in code):
        found.append("no cell asserts anything")
    return found


def _parameters(code: list[NotebookNode]) -> list[str]:
    code = [cell for cell in code if colab.TAG not in cell.metadata.get("tags", [])]
    tagged = [i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    if tagged != [0]:
        return ["the first code cell, and no other, must be tagged parameters"]
    declared = exercises.names(code[0].source, ast.Store)
    used = set().union(*(exercises.names(cell.source, ast.Load) for cell in code[1:]))
    found = [f"parameter {name} is missing" for name in sorted({"scale", "device", "seed"} - declared)]
    return found + [f"parameter {name} has no effect" for name in sorted(declared - used)]


def _figures(code: list[NotebookNode]) -> list[str]:
    found = []
    for cell in code:
        about = cell.metadata.get("mystnb", {})
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data and len(about.get("image", {}).get("alt", "")) < 20:
                found.append(f"the figure of cell {cell.execution_count} has no alt text")
            if "image/png" in data and len(about.get("figure", {}).get("caption", "")) < 20:
                found.append(f"the figure of cell {cell.execution_count} has no caption")
            html = "".join(data.get("text/html", ""))
            if "plotly" in html and not re.search(r'aria-label="[^"]{20,}"', html):
                found.append(f"the turnable figure of cell {cell.execution_count} has no alt text")
    return found


def _descriptions(code: list[NotebookNode]) -> list[str]:
    """Captions and alt texts."""
    found = []
    for cell in code:
        about = cell.metadata.get("mystnb", {})
        found += [about.get("figure", {}).get("caption", ""), about.get("image", {}).get("alt", "")]
        for output in cell.outputs:
            found += re.findall(r'aria-label="([^"]*)"', "".join(output.get("data", {}).get("text/html", "")))
    return found


def _exercises(text: list[str]) -> list[str]:
    whole = "\n".join(text)
    labels = re.findall(r"```\{exercise\} .+\n:label: (\S+)", whole)
    solutions = re.findall(r"```\{solution-start\} (\S+)\n:class: dropdown", whole)
    found = [] if len(labels) >= 2 else ["fewer than two exercises"]
    if labels != solutions:
        found.append(f"exercises {labels} and folded solutions {solutions} do not match")
    if whole.count("{admonition} Hint\n:class: tip, dropdown") != len(labels):
        found.append("not every exercise has one folded hint")
    return found


def _lines(code: list[NotebookNode]) -> list[str]:
    found = []
    for cell in code:
        printed = "".join(output.get("text", "") for output in cell.outputs)
        for what, text in (("a line", cell.source), ("a printed line", printed)):
            widest = max(map(len, text.splitlines()), default=0)
            if widest > WIDTH:
                found.append(f"{what} of cell {cell.execution_count} has {widest} columns, the page {WIDTH}")
    return found


def _paths(code: list[NotebookNode]) -> list[str]:
    found = [i for i, cell in enumerate(code, start=1) if re.search(r"""["']\.\.?/""", cell.source)]
    return [f"cell {i} reads a path that depends on the working directory" for i in found]


NOT_CLAIMS = (
    NEEDS,
    r"^```.*?$|^:label:.*?$|^    .*?$",  # fences and what is indented
    r"\$\$.*?\$\$|\$(?![\d.,\s]*\$)[^$]*\$|`[^`]*`|\]\([^)]*\)",  # formulas but for mere numbers, code, addresses
    r"\b(?:Eqs?|Tables?|Figs?\.?|Sections?|[Cc]hapters?) [\dIV]+[-–, \dIV]*(?:and [\dIV]+)?",  # what is numbered
)
NUMBER = r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?![\d.]*[A-Za-z])"  # not of a name such as 26S


def _numbers(text: list[str], code: list[NotebookNode]) -> list[str]:
    """Numbers of two digits or more, and percentages of one, in prose, captions and alt texts that no cell computes or prints;
    exercises ask and claim nothing."""
    cells = [cell.source for cell in code]
    for cell in code:
        for output in cell.outputs:
            cells += [output.get("text", ""), "".join(output.get("data", {}).get("text/markdown", ""))]
    everything = "\n".join(cells)
    written = re.findall(r"\d[\d,_]*(?:\.\d+)?", everything)
    known = {float(number.replace(",", "").replace("_", "")) for number in written}
    found = []
    for prose in (cell for cell in text if not cell.startswith("```{exercise}")):
        for pattern in NOT_CLAIMS:
            prose = re.sub(pattern, "", prose, flags=re.DOTALL | re.MULTILINE)
        for number in re.findall(NUMBER, prose):
            plain = number.replace(",", "")
            if len(plain) > 1 and float(plain) not in known:
                found.append(f"the prose says {number}, which no cell has")
        for digit in re.findall(r"(?<![\w.,])\d(?= %)", prose):
            if float(digit) / 100 not in known and not re.search(rf"(?<![\d.]){digit}(?:\.\d+)? ?%", everything):
                found.append(f"the prose says {digit} %, which no cell has")
    return found
