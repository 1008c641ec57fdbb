"""A notebook runs again when something changed that it hangs on, and only then."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import fingerprint

ROOT = fingerprint.ROOT
LAZY = """import lazy_loader
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"tee": ["brew", "cup"]})
hot = 1
"""
FILES = {
    "voxuda/__init__.py": "",
    "voxuda/plain/__init__.py": "from voxuda.plain.one import f\n",
    "voxuda/plain/one.py": "def f(): from voxuda.plain import inner\n",
    "voxuda/plain/inner.py": "",
    "voxuda/plain/other.py": "",
    "voxuda/plain/beads/a.npz": "",
    "voxuda/plain/__pycache__/one.f.nbi": "",  # a cache of numba: every run may write it
    "voxuda/slow/__init__.py": LAZY,
    "voxuda/slow/tee.py": "from voxuda.plain import one\n",
    "voxuda/slow/other.py": "def read(): return RESULTS / 'kept.json'\n",
    "voxuda/slow/registry.py": "import importlib\nmake = importlib.import_module\n",
    "results/kept.json": "",
    "results/laptop/balanced/seed-0/log.jsonl": "",
    "results/laptop/balanced/seed-1/log.jsonl": "",
    "results/laptop/table.json": "",
}
PLAIN = {"plain/__init__", "plain/one", "plain/inner"}
SLOW = {"slow/__init__", "slow/tee", "slow/other", "slow/registry"}


@pytest.fixture
def tree(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import torch", set()),
        ("import voxuda.plain.other", PLAIN | {"plain/other"}),  # its package's ``__init__`` runs too
        ("def g():\n    from voxuda.plain import f", PLAIN),
        ("from voxuda.slow import brew", PLAIN | {"slow/__init__", "slow/tee"}),
        ("from voxuda.slow import tee as t", PLAIN | {"slow/__init__", "slow/tee"}),
        ("from voxuda.slow import hot", {"slow/__init__"}),
        ("from voxuda.slow import unlisted", PLAIN | SLOW),
        ("from voxuda import slow", PLAIN | SLOW),
        ("from voxuda.slow import registry", PLAIN | SLOW),
    ],
)
def test_imports_are_followed(tree, code, modules):
    inside = [path for path in fingerprint.files(code, tree) if path.is_relative_to(tree / "voxuda")]
    found = {path.relative_to(tree / "voxuda").with_suffix("").as_posix() for path in inside}
    assert found - {"__init__", "plain/beads/a"} == modules
    assert ("plain/beads/a" in found) == bool(modules & PLAIN), "data of a room count with it"


@pytest.mark.parametrize(
    ("code", "read"),
    [
        ("x = 1", set()),
        ("RESULTS / 'kept.json'", {"kept.json"}),
        (
            "(RESULTS / 'laptop').glob('*')",
            {"laptop/balanced/seed-0/log.jsonl", "laptop/balanced/seed-1/log.jsonl", "laptop/table.json"},
        ),
        ("folder.RESULTS / 'laptop' / name / 'seed-0'", {"laptop/balanced/seed-0/log.jsonl"}),
        ("RESULTS / f'laptop/{name}.json'", {"laptop/table.json"}),
        ("load(RESULTS)", {name.removeprefix("results/") for name in FILES if name.startswith("results/")}),
        ("from voxuda.slow import other", {"kept.json"}),
    ],
)
def test_results_are_those_that_are_read(tree, code, read):
    found = {path for path in fingerprint.files(code, tree) if path.is_relative_to(tree / "results")}
    assert found == {tree / "results" / name for name in read}


def test_an_edit_counts_where_it_is_imported(tmp_path):
    """The chapter on VoxResNet hangs on the network, and not on the tilt series."""
    shutil.copytree(ROOT / "voxuda", tmp_path / "voxuda")
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    chapter = ROOT / "notebooks" / "05_voxresnet.ipynb"

    def now(**parameters):
        return fingerprint.fingerprint(chapter, parameters, tmp_path)

    before = now()
    with open(tmp_path / "voxuda" / "simulation" / "tilt_series.py", "a") as file:
        file.write("# an edit\n")
    assert now() == before != now(scale="laptop")
    with open(tmp_path / "voxuda" / "networks" / "voxresnet.py", "a") as file:
        file.write("# an edit\n")
    assert now() != before
