"""Exercises: a stub to fill in, and a folded solution whose check the stub is proved to fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

CHECK = "# Check"
"""Line of a solution's last cell: what stands before it answers, what follows checks the answer."""

PROOF = """\
def _proof():
    try:
        exec({code!r}, dict(globals()))
    except Exception:
        return
    raise AssertionError("{label}: the stub passes the check of its solution")


_proof()"""


class Exercise(NamedTuple):
    """One exercise of a notebook; ``last`` is the index of its solution's last code cell."""

    label: str
    stub: str
    answer: str
    check: str
    last: int


def exercises(cells: Iterable[NotebookNode]) -> list[Exercise]:
    """The exercises that have a folded solution, in order; what one lacks is an empty string."""
    stubs: dict[str, str] = {}
    code: dict[str, dict[int, str]] = {}
    inside = ""
    for i, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            for label, rest in re.findall(r"```\{exercise\} .+\n:label: (\S+)\n(.*?)(?:\n```|\Z)", cell.source, re.DOTALL):
                stubs[label] = "".join(re.findall(r"^~~~python\n(.*?)^~~~", rest, re.DOTALL | re.MULTILINE))
            if start := re.search(r"```\{solution-start\} (\S+)", cell.source):
                inside = start[1]
                code[inside] = {}
            if "{solution-end}" in cell.source:
                inside = ""
        elif inside:
            code[inside][i] = cell.source
    found = []
    for label, parts in code.items():
        answer, _, check = "\n".join(parts.values()).partition(f"{CHECK}\n")
        found.append(Exercise(label, stubs.get(label, ""), answer, check, max(parts, default=-1)))
    return found


def names(source: str, context: type) -> set[str]:
    """Names that a piece of code loads (``ast.Load``) or binds (``ast.Store``)."""
    nodes = list(ast.walk(ast.parse(source)))
    found = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
    if context is ast.Store:
        found |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        inner = [node.target for node in nodes if isinstance(node, ast.comprehension)]  # these names live there alone
        found -= {name.id for target in inner for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def faults(cells: Iterable[NotebookNode]) -> list[str]:
    """What is wrong with the stubs and checks of a notebook, one sentence a fault."""
    found = []
    for label, stub, answer, check, _ in exercises(cells):
        if "..." not in stub:
            found.append(f"{label} has no stub with ... to fill in")
        elif "assert" not in check:
            found.append(f"{label} has no assert after a line {CHECK}")
        elif missing := names(stub, ast.Store) - (names(answer, ast.Store) & names(check, ast.Load)):
            found.append(f"{label}: {', '.join(sorted(missing))} of the stub is not both answered and checked")
    return found


def with_proofs(notebook: NotebookNode) -> NotebookNode:
    """Put behind each solution a cell that fails if the stub passes its check."""
    behind = {e.last: e for e in exercises(notebook.cells) if e.stub}
    cells = []
    for i, cell in enumerate(notebook.cells):
        cells.append(cell)
        if exercise := behind.get(i):
            source = PROOF.format(code=f"{exercise.stub}\n{exercise.check}", label=exercise.label)
            cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": ["proof"]}))
    notebook.cells = cells
    return notebook


def without_proofs(notebook: NotebookNode) -> NotebookNode:
    """Take those cells away again, and their places in the order of execution."""
    proofs = sorted(c.execution_count for c in notebook.cells if "proof" in c.metadata.get("tags", []))
    notebook.cells = [c for c in notebook.cells if "proof" not in c.metadata.get("tags", [])]
    for cell in (c for c in notebook.cells if c.cell_type == "code"):
        cell.execution_count -= sum(proof < cell.execution_count for proof in proofs)
        for output in (o for o in cell.outputs if "execution_count" in o):
            output.execution_count = cell.execution_count
    return notebook
