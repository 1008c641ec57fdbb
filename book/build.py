"""Execute the notebooks with papermill, then build the HTML book; a notebook runs again only when something changed."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import api
import check
import exercises
import ledger
import nbformat
import papermill
import psutil
import scores
import torch
import trusting

from voxuda.networks.voxresnet import VoxResNet

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
PLOTLY = "application/vnd.plotly.v1+json"

LOOPS = 300
"""What a notebook may take at scale smoke, as a multiple of the calibration loop; of memory it may take what its first cell
says. More is reported, not refused, for a machine that is busy with other things is slow."""


def fingerprint(notebook: Path, parameters: dict) -> str:
    """Hash of all that decides a notebook's outputs: its cells, package, results, pinned versions, parameters."""
    digest = hashlib.sha256(repr(sorted(parameters.items())).encode())
    for cell in nbformat.read(notebook, as_version=4).cells:
        digest.update(repr((cell.cell_type, cell.source, cell.metadata.get("tags"), cell.metadata.get("mystnb"))).encode())
    package = [p for p in (ROOT / "voxuda").rglob("*") if p.suffix in (".py", ".npz")]
    results = [p for p in (ROOT / "results").rglob("*") if p.suffix in (".json", ".jsonl", ".safetensors")]
    for path in [ROOT / "constraints.txt", *sorted(package), *sorted(results)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def calibration() -> float:
    """Seconds that this machine takes for a fixed piece of work, the best of three: one small network, there and back."""
    network, volumes = VoxResNet(8), torch.randn(8, 1, 32, 32, 32)

    def loop() -> float:
        start = time.perf_counter()
        network(volumes).square().mean().backward()
        return time.perf_counter() - start

    return min(loop() for _ in range(4))  # the first warms up


def execute(notebook: Path, out: Path, parameters: dict) -> None:
    """Run one notebook; ``out`` holds it with outputs and with the time and memory it took. On the way each exercise's stub is
    proved to fail its check. It runs in an empty folder, which proves that it needs no file of where it is run."""
    key = out.with_suffix(".key")
    wanted = fingerprint(notebook, parameters)
    if out.exists() and key.exists() and key.read_text() == wanted:
        print(f"{notebook.name}: unchanged")
        return
    print(f"{notebook.name}: running ...", end=" ", flush=True)
    proved = out.with_suffix(".proved.ipynb")
    nbformat.write(exercises.with_proofs(nbformat.read(notebook, as_version=4)), proved)
    with peak_memory() as peak, tempfile.TemporaryDirectory() as empty:
        papermill.execute_notebook(
            proved, out, parameters,
            cwd=empty, kernel_name="python3", progress_bar=False, execution_timeout=7200,
            extra_arguments=["--log-level=ERROR"],  # the kernel warns that it is reached over TCP, which is local
        )  # fmt: skip
    proved.unlink()
    content = exercises.without_proofs(nbformat.read(out, as_version=4))
    seconds, memory = content.metadata.papermill.duration, peak[0] / 1e9
    loops = seconds / calibration()
    content.metadata["voxuda_cost"] = (
        f"{seconds:.0f} s, {loops:.0f} times the calibration loop, {memory:.1f} GB of memory, {os.cpu_count()} processor cores"
    )
    nbformat.write(content, out)
    print(content.metadata["voxuda_cost"])
    says = re.search(check.NEEDS, content.cells[0].source)
    if parameters["scale"] == "smoke" and says and (loops > LOOPS or memory > float(says[1])):
        print(f"    over its budget of {LOOPS} loops and the {says[1]} GB it says it needs")
    key.write_text(wanted)


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """A list whose one number is, at the end, the most memory that this process's children held at once, in bytes."""
    peak, finished = [0], threading.Event()

    def watch() -> None:
        while not finished.wait(0.2):
            held = 0
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it may just have ended
                    held += child.memory_info().rss
            peak[0] = max(peak[0], held)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        finished.set()
        thread.join()


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
    differ from the notebook's own; what this run took is said at the top, what it uses of the package at the end.
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
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(PLOTLY, None)
    nbformat.write(content, out)


def launch_buttons(repository: str | None) -> str:
    """Settings for buttons that open a chapter on a Binder, and the repository; only who publishes knows its address."""
    if not repository:
        return ""
    if not repository.startswith("https://"):
        raise SystemExit(f"VOXUDA_REPOSITORY is {repository}; it must be the repository's https address.")
    return (
        f"repository:\n  url: {repository}\n  branch: main\n  path_to_book: ''\n"
        "launch_buttons:\n  notebook_interface: jupyterlab\n  binderhub_url: https://mybinder.org\n"
    )


def assemble(notebooks: list[Path], source: Path) -> None:
    """Put everything but the notebooks where Sphinx finds it: settings, written pages, generated pages and parts of pages."""
    shutil.copy(ROOT / "_toc.yml", source)
    settings = (ROOT / "_config.yml").read_text() + launch_buttons(os.environ.get("VOXUDA_REPOSITORY"))
    (source / "_config.yml").write_text(settings)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    shutil.copytree(ROOT / "book" / "_ext", source / "book" / "_ext", dirs_exist_ok=True)
    shutil.copy(ROOT / "CITATION.cff", source / "book")
    (source / "book" / "ledger.md").write_text(ledger.page({path.stem: api.title(path) for path in notebooks}))
    (source / "book" / "trust.md").write_text(trusting.page((ROOT / "book" / "trust.md").read_text()))
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
    options = parser.parse_args()
    os.environ["VOXUDA_BOOK"] = "1"
    parameters = {"scale": options.scale, "device": options.device}
    executed, source = BUILD / "executed", BUILD / "source"
    executed.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(source, ignore_errors=True)
    (source / "notebooks").mkdir(parents=True)
    notebooks, documented = sorted((ROOT / "notebooks").glob("*.ipynb")), api.index()
    for notebook in notebooks:
        execute(notebook, executed / notebook.name, parameters)
        if options.in_place:
            store(executed / notebook.name, notebook)
        page(executed / notebook.name, source / "notebooks" / notebook.name, documented)
    if options.notebooks_only:
        return 0
    if wrong := ledger.faults():
        print("\n".join(["the fidelity ledger is not so any more:", *wrong]))
        return 1
    assemble(notebooks, source)
    if status := render(source, BUILD / "jb", BUILD / "build.log"):
        return status
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    shutil.copytree(BUILD / "jb" / "_build" / "html", BUILD / "html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
