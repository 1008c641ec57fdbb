"""What a notebook's outputs hang on: cells, parameters, the modules it imports, the results it reads, pinned versions."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
LAZY = re.compile(r"import_module|lazy_loader|__getattr__")
"""What a module that imports by name contains: what it imports cannot be read off its import statements."""


def fingerprint(notebook: Path, parameters: dict, root: Path = ROOT) -> str:
    """Hash of all that decides what a notebook shows."""
    cells = nbformat.read(notebook, as_version=4).cells
    digest = hashlib.sha256(repr(sorted(parameters.items())).encode())
    for cell in cells:
        digest.update(repr((cell.cell_type, cell.source, cell.metadata.get("tags"), cell.metadata.get("mystnb"))).encode())
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    for path in [root / "constraints.txt", *sorted(files(code, root))]:
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def files(code: str, root: Path = ROOT) -> set[Path]:
    """The modules that a piece of code imports, those that they import in turn, data beside them, and results they read."""
    tree = ast.parse(code)
    modules, waiting, read = set(), list(_imports(tree)), set(_results(tree))
    while waiting:
        for path in _resolve(waiting.pop(), root) - modules:
            modules.add(path)
            tree = ast.parse(path.read_text())
            waiting += _imports(tree)
            read |= set(_results(tree))
    rooms = {path.parent for path in modules} - {root / "voxuda"}
    data = {p for room in rooms for p in room.rglob("*.npz")}  # what else lies there is a cache of compiled code
    names = [(path, path.relative_to(root).as_posix()) for path in (root / "results").rglob("*") if path.is_file()]
    return modules | data | {path for path, name in names for p in read if fnmatch(name, p) or fnmatch(name, f"{p}/*")}


def _imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what the import statements take from the package, wherever they stand."""
    for node in ast.walk(tree):
        names = [f".{alias.name}" for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        module = getattr(node, "module", "") or ""  # the package has no relative imports, ruff sees to that
        yield from (full for name in names if (full := f"{module}{name}".lstrip(".")).split(".")[0] == "voxuda")


def _resolve(name: str, root: Path) -> set[Path]:
    """The files that importing a name runs: ``__init__`` of each package on the way, and the module that has it.

    What a lazy ``__init__`` hands on is found in its table ``{module: [names]}``; of one that imports by other names, and of a
    module that does, the whole package counts.
    """
    found, folder = set(), root
    for part in name.split("."):
        if (folder / part).is_dir():
            folder /= part
            found.add(folder / "__init__.py")
        elif (module := folder / f"{part}.py").exists():
            lazy = LAZY.search(module.read_text())
            return found | {module} | (set(folder.rglob("*.py")) if lazy else set())
        else:
            return found | _handed_on(part, folder, root)
    return found | _handed_on("", folder, root)  # the package itself, of which anything may be used


def _handed_on(name: str, folder: Path, root: Path) -> set[Path]:
    text = (folder / "__init__.py").read_text()
    if not LAZY.search(text) or (name and re.search(rf"^(?:class |def )?{name}\b", text, re.MULTILINE)):
        return set()  # what ``__init__`` defines, or imports by its import statements, which are followed from there
    for node in ast.walk(ast.parse(text)):
        for key, names in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
            if isinstance(names, (ast.List, ast.Tuple)) and name in [getattr(n, "value", None) for n in names.elts]:
                return _resolve(f"{'.'.join(folder.relative_to(root).parts)}.{ast.literal_eval(key)}.{name}", root)
    return set(folder.rglob("*.py"))


def _results(tree: ast.AST) -> Iterator[str]:
    """Patterns of the files in ``results``: ``RESULTS / "laptop" / f"{name}.json"`` is ``results/laptop/*.json``."""
    if path := _pattern(tree):
        yield path
    else:
        for child in ast.iter_child_nodes(tree):
            yield from _results(child)


def _pattern(node: ast.AST) -> str:
    if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
        return "results" if "RESULTS" in (getattr(node, "id", ""), getattr(node, "attr", "")) else ""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Div) or not (left := _pattern(node.left)):
        return ""
    parts = node.right.values if isinstance(node.right, ast.JoinedStr) else [node.right]
    return f"{left}/" + "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)
