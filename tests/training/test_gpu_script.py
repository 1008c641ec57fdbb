"""The script for a GPU, tried on a processor: what it leaves can be carried home, and a second call goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 16 * 2**20
"""Bytes of a file that is carried home."""


def call(out):
    environment = {**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", "SCALE": "smoke", "OUT": str(out)}
    subprocess.run([ROOT / "benchmarks" / "gpu.sh"], env=environment, check=True, capture_output=True, text=True)
    return json.loads((out / "epochs.json").read_text())


def test_a_second_call_goes_on_where_the_first_ended(tmp_path):
    first = call(tmp_path)
    assert first["epochs"] == 2 and len(first["seconds"]) == 2
    parts = sorted((tmp_path / "run" / "checkpoint").glob("state.pt.*"))
    assert parts and not (tmp_path / "run" / "checkpoint" / "state.pt").exists()
    assert all(path.stat().st_size < LARGEST for path in tmp_path.rglob("*"))
    log = (tmp_path / "run" / "log.jsonl").read_text()
    (tmp_path / "run" / "weights.safetensors").unlink()
    # As if the first call had been ended after one epoch, the second trains what is left.
    assert call(tmp_path)["epochs"] == 2
    assert (tmp_path / "run" / "weights.safetensors").exists() and (tmp_path / "run" / "log.jsonl").read_text() == log
