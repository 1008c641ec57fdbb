"""Provenance of a run's results, beyond its configuration."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from voxuda import __version__

LIBRARIES = ("numpy", "scipy", "numba", "scikit-image", "lightning-fabric", "safetensors")
"""Distributions whose versions a run records."""


def provenance() -> dict:
    """Return the code, libraries and hardware that a run's results depend on, besides its configuration."""
    return {
        "voxuda": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "libraries": {name: version(name) for name in LIBRARIES},
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    """Return the commit of the checkout that holds this package; None if it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # else git looks in the folders above, which may be another project
        return None
    try:
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
        return subprocess.run(describe, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
