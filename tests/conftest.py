"""Shared fixtures."""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def molecule_files() -> Path:
    """Coordinates and maps from which the beads were derived: VOXUDA_DATA, or ../shared/data."""
    folder = Path(os.environ.get("VOXUDA_DATA", ROOT.parent / "shared" / "data")) / "molecules"
    if not folder.is_dir():
        pytest.skip("no molecule files: set VOXUDA_DATA to a folder that holds molecules/")
    return folder
