"""Run the tests of the package under other Pythons and library versions, each installed in an environment of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from voxuda.training.provenance import provenance
from voxuda.training.run_folder import save_json

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = ["tests/book", "tests/browser", "tests/notebooks", "tests/experiments"]
"""Tests of the built book, and the sweep over all rows."""

VERSIONS = """
import json, platform
from importlib.metadata import version
names = ("torch", "numpy", "scipy", "numba", "scikit-learn", "mrcfile")
print(json.dumps({"python": platform.python_version(), **{name: version(name) for name in names}}))
"""


def run(python: str) -> dict:
    """The versions in one environment, how many tests pass, fail and are skipped there, and why."""
    said = subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        ignored = [f"--ignore={path}" for path in LEFT_OUT]
        side_by_side = ["-n", "2", "--dist", "loadscope"]
        command = [python, "-m", "pytest", "tests", *ignored, *side_by_side, "-p", "no:cacheprovider", f"--junit-xml={report}"]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
        found = ElementTree.parse(report)
    suite = next(found.iter("testsuite")).attrib
    failed, skipped = int(suite["failures"]) + int(suite["errors"]), int(suite["skipped"])
    counts = {"passed": int(suite["tests"]) - failed - skipped, "failed": failed, "skipped": skipped}
    reasons = Counter(case.attrib["message"] for case in found.iter("skipped"))
    return {"commit": provenance()["commit"], **json.loads(said), **counts, "reasons": dict(reasons.most_common())}


def main() -> int:
    """Parse the command line, run the tests everywhere, and keep what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="+", help="interpreters of environments that have voxuda[test]")
    parser.add_argument("--out", type=Path, default=Path("results/trust/versions.json"))
    options = parser.parse_args()
    found = [run(python) for python in options.pythons]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_json({"left_out": LEFT_OUT, "runs": found}, options.out)
    print(json.dumps(found, indent=2), file=sys.stderr)
    return 1 if any(entry["failed"] for entry in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
