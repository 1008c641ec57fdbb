"""Execute the notebooks with papermill, then build the HTML book; a notebook runs again only when something changed."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"


def fingerprint(notebook: Path, parameters: dict) -> str:
    """Hash of all that decides a notebook's outputs: its cells, the package, the pinned versions, the parameters."""
    digest = hashlib.sha256(repr(sorted(parameters.items())).encode())
    for cell in nbformat.read(notebook, as_version=4).cells:
        digest.update(repr((cell.cell_type, cell.source, cell.metadata.get("tags"), cell.metadata.get("mystnb"))).encode())
    package = sorted(p for p in (ROOT / "voxuda").rglob("*") if p.suffix in (".py", ".npz"))
    for path in [ROOT / "constraints.txt", *package]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def execute(notebook: Path, out: Path, parameters: dict) -> None:
    """Run one notebook in its own folder; ``out`` holds it with outputs."""
    key = out.with_suffix(".key")
    wanted = fingerprint(notebook, parameters)
    if out.exists() and key.exists() and key.read_text() == wanted:
        print(f"{notebook.name}: unchanged")
        return
    print(f"{notebook.name}: running", flush=True)
    papermill.execute_notebook(
        notebook, out, parameters, cwd=str(notebook.parent), kernel_name="python3", progress_bar=False, execution_timeout=600
    )
    key.write_text(wanted)


def store(executed: Path, notebook: Path) -> None:
    """Keep outputs in the repository, without the injected parameters and the time stamps of this run."""
    content = nbformat.read(executed, as_version=4)
    content.cells = [c for c in content.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for part in [content, *content.cells]:
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
    for count, cell in enumerate((c for c in content.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    nbformat.write(content, notebook)


def main() -> int:
    """Parse the command line, run, build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="smoke", choices=["smoke", "laptop", "paper"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--in-place", action="store_true", help="store the outputs in notebooks/")
    parser.add_argument("--notebooks-only", action="store_true", help="do not build the HTML")
    options = parser.parse_args()
    os.environ.setdefault("VOXUDA_BOOK", "1")
    parameters = {"scale": options.scale, "device": options.device}
    source = BUILD / "source"
    (source / "notebooks").mkdir(parents=True, exist_ok=True)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        out = source / "notebooks" / notebook.name
        execute(notebook, out, parameters)
        if options.in_place:
            store(out, notebook)
    if options.notebooks_only:
        return 0
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "book", source / "book", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    program = str(Path(sys.executable).parent / "jupyter-book")
    command = [program, "build", "-W", "-n", "--keep-going", "--path-output", str(BUILD / "jb"), str(source)]
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        shutil.rmtree(BUILD / "html", ignore_errors=True)
        shutil.copytree(BUILD / "jb" / "_build" / "html", BUILD / "html")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
