"""The start of the command line in CPU seconds, beside ``import torch`` alone."""

import subprocess
import sys

import numpy as np
import pytest

from voxuda.data.mrc import write_mrc


@pytest.mark.parametrize(
    "name, arguments", [("help", ["--help"]), ("train-help", ["train", "--help"]), ("segment", ["segment"])]
)
def test_start(against, tmp_path, name, arguments):
    volume = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    path, count = write_mrc(tmp_path / "a.mrc", volume, 13.5), iter(range(1000))

    def python(*of):
        subprocess.run([sys.executable, *of], check=True, capture_output=True)

    def ours():
        more = [str(path), "--out", str(tmp_path / f"masks-{next(count)}")] if name == "segment" else []
        python("-m", "voxuda", *arguments, *more)

    against(f"start-{name}", "starts", 1, ours, lambda: python("-c", "import torch"), "import torch", rounds=7)
