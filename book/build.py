"""Build the HTML book from the executed notebooks, the written pages and those made of the package and its results."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import api
import colab
import ledger
import nbformat
import results_page
import scales
import scores
import trusting
from execute import execute_all

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
PLOTLY = "application/vnd.plotly.v1+json"


def store(executed: Path, notebook: Path) -> None:
    """Keep outputs in the repository, without the injected parameters and the time stamps of this run."""
    content = nbformat.read(executed, as_version=4)
    content.cells = [c for c in content.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for part in [content, *content.cells]:
        for key in ("papermill", "execution", "voxuda_cost"):
            part.metadata.pop(key, None)
    content.metadata["language_info"].pop("version", None)
    for count, cell in enumerate((c for c in content.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    nbformat.write(content, notebook)


def page(executed: Path, out: Path, documented: set[str]) -> None:
    """The copy that becomes a page.

    Turnable figures keep their HTML form only, the other is for live notebooks; injected parameters show only where they
    differ from the notebook's own; what this run took is said at the top, what it uses of the package at the end. A folded
    cell is called what its first line says, such as "Checks".
    """
    content = nbformat.read(executed, as_version=4)
    own = next(set(c.source.splitlines()) for c in content.cells if "parameters" in c.metadata.get("tags", []))
    content.cells = [
        c
        for c in content.cells
        if "injected-parameters" not in c.metadata.get("tags", []) or set(c.source.splitlines()) - own - {"# Parameters"}
    ]
    content.cells[0].source += f"\n\nFor this page: {content.metadata['voxuda_cost']}."
    content.cells[-1].source += api.links(executed, documented)
    for cell in content.cells:
        if "hide-input" in cell.metadata.get("tags", []):
            name = cell.source.partition("\n")[0].removeprefix("# ")
            shown = {"code_prompt_show": name, "code_prompt_hide": name}
            cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), **shown}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(PLOTLY, None)
    nbformat.write(content, out)


def launch_buttons(repository: str | None, *, on_colab: bool = False) -> str:
    """Settings for buttons that open a chapter on Binder and Colab; only who publishes knows the repository's address."""
    if not repository:
        return ""
    if not repository.startswith("https://"):
        raise SystemExit(f"VOXUDA_REPOSITORY is {repository}; it must be the repository's https address.")
    return (
        f"repository:\n  url: {repository}\n  branch: main\n  path_to_book: ''\n"
        "launch_buttons:\n  notebook_interface: jupyterlab\n  binderhub_url: https://mybinder.org\n"
        + ("  colab_url: https://colab.research.google.com\n" if on_colab else "")
    )


def assemble(notebooks: list[Path], source: Path) -> None:
    """Put everything but the notebooks where Sphinx finds it: settings, written pages, generated pages and parts of pages."""
    shutil.copy(ROOT / "_toc.yml", source)
    settings = (ROOT / "_config.yml").read_text() + launch_buttons(
        os.environ.get("VOXUDA_REPOSITORY"), on_colab=colab.installs(notebooks)
    )
    (source / "_config.yml").write_text(settings)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    shutil.copytree(ROOT / "book" / "_ext", source / "book" / "_ext", dirs_exist_ok=True)
    shutil.copy(ROOT / "CITATION.cff", source / "book")
    (source / "book" / "ledger.md").write_text(ledger.page({path.stem: api.title(path) for path in notebooks}))
    (source / "book" / "trust.md").write_text(trusting.page((ROOT / "book" / "trust.md").read_text()))
    (source / "book" / "results.md").write_text(results_page.page((ROOT / "book" / "results.md").read_text()))
    results_page.draw(source / "book" / "_static" / "results.svg")
    scales.draw(source / "book" / "_static" / "scales.svg")
    results_page.draw_headline(source / "book" / "_static" / "headline.svg")
    landing = source / "book" / "index.md"
    landing.write_text(landing.read_text().replace("{{headline}}", results_page.headline()))
    (source / "book" / "licences.md").write_text(trusting.licence_page())
    for name, rows in scores.PAGES.items():
        with open(source / "book" / "methods" / f"{name}.md", "a") as file:
            file.write("\n" + scores.section(rows))
    api.write(notebooks, source / "api")


def render(source: Path, out: Path, log: Path) -> int:
    """Build the pages of ``source`` below ``out``, and return 0 if nothing at all is wrong with them; what is, is printed."""
    program = str(Path(sys.executable).parent / "jupyter-book")
    command = [program, "build", "--all", "-W", "-n", "--keep-going", "--path-output", str(out), str(source)]
    print("building the pages ...", flush=True)
    with open(log, "w") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        print("\n".join(line for line in log.read_text().splitlines() if "WARNING" in line or "rror" in line))
        print(f"the book has faults, see {log}")
    return status


def main() -> int:
    """Parse the command line, run, build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="smoke", choices=["smoke", "laptop", "paper"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--in-place", action="store_true", help="store the outputs in notebooks/")
    parser.add_argument("--notebooks-only", action="store_true", help="do not build the HTML")
    parser.add_argument("--only", default="", metavar="NN", help="run this chapter alone, and do not build the HTML")
    options = parser.parse_args()
    os.environ["VOXUDA_BOOK"] = "1"
    parameters = {"scale": options.scale, "device": options.device}
    executed, source = BUILD / "executed", BUILD / "source"
    executed.mkdir(parents=True, exist_ok=True)
    notebooks = sorted((ROOT / "notebooks").glob(f"{options.only}*.ipynb"))
    if not notebooks:
        parser.error(f"{options.only}: no such chapter; choose from those of notebooks/, such as 04.")
    execute_all(notebooks, executed, parameters)
    if options.in_place:
        for notebook in notebooks:
            store(executed / notebook.name, notebook)
    if options.notebooks_only or options.only:
        return 0
    if wrong := ledger.faults():
        print("\n".join(["the fidelity ledger is not so any more:", *wrong]))
        return 1
    shutil.rmtree(source, ignore_errors=True)
    (source / "notebooks").mkdir(parents=True)
    documented = api.index()
    for notebook in notebooks:
        page(executed / notebook.name, source / "notebooks" / notebook.name, documented)
    assemble(notebooks, source)
    if status := render(source, BUILD / "jb", BUILD / "build.log"):
        return status
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    shutil.copytree(BUILD / "jb" / "_build" / "html", BUILD / "html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
