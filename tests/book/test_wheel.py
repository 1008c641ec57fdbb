"""The package as a wheel, used outside the checkout: it holds all that it needs, and it trains and segments."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import mrcfile
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys

import voxuda
from voxuda.commands.main import main

print(voxuda.__file__)
for line in sys.argv[1:]:
    assert main(line.split()) == 0, line
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout; its build backend comes from the environment, so nothing is downloaded."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT)], check=True)
    (built,) = out.glob("voxuda-*.whl")
    return built


def test_the_wheel_holds_the_package_and_its_molecules_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / "voxuda").rglob("*") if p.is_file() and "__pycache__" not in p.parts
    }
    assert held == package
    assert sum(name.startswith("voxuda/simulation/library/") for name in held) >= 9


TRAIN = "train --method vox-uda --scale smoke --epochs 1 --out run"
STORED = ROOT / "results" / "weights" / "balanced"


@pytest.mark.parametrize(
    "lines",
    [
        ("segment sub.mrc --out masks",),
        pytest.param((TRAIN, "segment sub.mrc --model run --out masks"), marks=pytest.mark.slow),
    ],
)
def test_the_wheel_works_outside_the_checkout(wheel, tmp_path, lines):
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-compile", "--target", str(installed), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    noise = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    mrcfile.write(elsewhere / "sub.mrc", noise, voxel_size=10)

    def run(*command: object) -> subprocess.CompletedProcess:
        return subprocess.run(map(str, command), cwd=elsewhere, env=environment, capture_output=True, text=True)

    used = run(sys.executable, "-c", SCRIPT, *lines)
    assert used.returncode == 0, used.stderr
    where = used.stdout.splitlines()[0]
    assert where == str(installed / "voxuda" / "__init__.py"), "the checkout would hide what the wheel lacks"
    assert set(np.unique(mrcfile.read(elsewhere / "masks" / "sub_mask.mrc"))) <= {0, 1}
    command = run(sys.executable, installed / "bin" / "voxuda", "results", "show", "table1")
    assert command.returncode == 2, command.stdout
    assert command.stderr.startswith(f"voxuda: {Path('results', 'laptop')}: holds no finished run of table1;")
