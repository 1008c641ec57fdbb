"""Pages of the package, generated: every public name with its docstring, and, both ways, the chapters that use it."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import os
import re
import textwrap
from collections import defaultdict
from contextlib import redirect_stdout, suppress
from functools import reduce
from pathlib import Path
from types import ModuleType

import nbformat

import voxuda
from voxuda.commands import main

ROOMS = ("errors", "signal", "data", "simulation", "denoising", "networks", "methods", "training", "experiments")
"""In the order in which data flows; the commands have a page of their own, as people meet them."""


def submodules(name: str) -> list[ModuleType]:
    """A room of the package, then the public modules in it."""
    room = importlib.import_module(f"voxuda.{name}")
    files = sorted(p.stem for folder in getattr(room, "__path__", ()) for p in Path(folder).glob("[!_]*.py"))
    return [room, *(importlib.import_module(f"voxuda.{name}.{file}") for file in files)]


def public(module: ModuleType) -> dict[str, str]:
    """The functions, classes and described constants that a module defines, in its order, each with what documents it."""
    body = ast.parse(inspect.getsource(module)).body
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            kind = "autoclass" if isinstance(node, ast.ClassDef) else "autofunction"
            found[node.name] = _directive(kind, f"{module.__name__}.{node.name}")
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            # napoleon would take what stands before a colon for a type
            found[target.id] = _directive("py:data", target.id, str(after.value.value))
    return {name: text for name, text in found.items() if not name.startswith("_")}


def index() -> set[str]:
    """Full names of all that the pages document."""
    return {f"{m.__name__}.{name}" for part in ROOMS for m in submodules(part) for name in public(m)}


def used(notebook: Path, documented: set[str]) -> list[str]:
    """Full names of what a notebook takes from the package, sorted."""
    code = "\n".join(c.source for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code")
    known: dict[str, str] = {}
    found = set()
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "voxuda":
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in known:
            found |= _names_of(known[node.id], documented)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            found |= _names_of(f"{known[node.value.id]}.{node.attr}", documented)
    return sorted(found)


def _names_of(path: str, documented: set[str]) -> set[str]:
    """The documented name of what a notebook reaches by ``path``: through a room, or through another module that imports it."""
    *modules, name = path.split(".")
    alike = [full for full in documented if full.endswith(f".{name}")]
    try:
        thing = reduce(getattr, [*modules[1:], name], voxuda)
    except AttributeError:  # a private module
        return set()
    return {full for full in alike if reduce(getattr, full.split(".")[1:], voxuda) is thing}


def title(notebook: Path) -> str:
    """The heading of a notebook."""
    return nbformat.read(notebook, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")


def links(notebook: Path, documented: set[str]) -> str:
    """What a chapter says at its end of the package: the names it uses, linked to their pages."""
    roles = [f"{{py:obj}}`{name} <{name}>`" for name in used(notebook, documented)]
    return f"\n\n**In the package:** {', '.join(roles)}." if roles else ""


def write(notebooks: list[Path], out: Path) -> None:
    """Write ``index.md``, ``commands.md``, and ``modules/NAME.md`` for every module, with links to the chapters that use each
    name."""
    documented = index()
    chapters = defaultdict(list)
    for notebook in notebooks:
        for name in used(notebook, documented):
            chapters[name].append(f"[{title(notebook)}](../../notebooks/{notebook.stem})")
    (out / "modules").mkdir(parents=True, exist_ok=True)
    rows = []
    for part in ROOMS:
        page = [f"# voxuda.{part}"]
        for module in submodules(part):
            if module.__name__ != f"voxuda.{part}":
                page.append(f"## {module.__name__}")
            page.append(_directive("automodule", module.__name__))
            for name, text in public(module).items():
                full = f"{module.__name__}.{name}"
                page.append(text)
                if chapters[full]:
                    page.append(f"In chapters: {', '.join(chapters[full])}.")
        (out / "modules" / f"{part}.md").write_text("\n\n".join(page) + "\n")
        first = (importlib.import_module(f"voxuda.{part}").__doc__ or "").strip().splitlines()[0]
        rows.append(f"| [{part}](modules/{part}) | {first} |")
    text = (
        "# The package\n\nData flows downwards; a room imports only from the rooms above it. Every chapter ends with the names"
        " it uses, and every name says which chapters use it.\n\n| room | what |\n| --- | --- |\n"
    )
    (out / "commands.md").write_text(commands())
    (out / "index.md").write_text(text + "\n".join(rows) + "\n")


def _directive(kind: str, name: str, body: str = "") -> str:
    option = "\n   :members:" if kind == "autoclass" else ""
    lines = "\n\n" + textwrap.indent(inspect.cleandoc(body), "   ") if body else ""
    return f"```{{eval-rst}}\n.. {kind}:: {name}{option}{lines}\n```"


def commands() -> str:
    """A page with what every command says with ``--help``."""
    page = ["# Every command", "What `voxuda` says with `--help`, command by command."]
    waiting: list[list[str]] = [[]]
    while waiting:
        command = waiting.pop(0)
        shown = _help(command)
        page += [f"## voxuda {' '.join(command)}".rstrip(), f"```text\n{shown}\n```"]
        inner = re.search(r"\{([\w,-]+)\}", shown.split("\n\n")[0])
        if inner and re.search(r"^\W*subcommands\W*$", shown, re.M):
            waiting += [[*command, name] for name in inner[1].split(",")]
    return "\n\n".join(page) + "\n"


def _help(command: list[str]) -> str:
    os.environ.update(COLUMNS="78", NO_COLOR="1")
    with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
        main.main([*command, "--help"])
    lines = (line.rstrip() for line in shown.getvalue().splitlines())
    return "\n".join(textwrap.fill(line, 78) if len(line) > 86 else line for line in lines)
