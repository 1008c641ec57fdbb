"""Benchmarks: `make bench` times ours and a peer in the same run and writes `results/benchmarks/NAME.json`."""

import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from voxuda import runs

RESULTS = Path(__file__).resolve().parent.parent / "results" / "benchmarks"


@pytest.fixture
def against(benchmark):
    """Time ``ours`` and ``peer``, calls without arguments that each do ``amount`` of ``unit``, and record the ratio."""

    def compare(name, unit, amount, ours, peer=None, peer_name=None, rounds=5):
        benchmark.pedantic(ours, rounds=rounds, iterations=1, warmup_rounds=1)
        result = {"name": name, "unit": f"{unit} per second", "ours": amount / benchmark.stats.stats.median}
        if peer is not None:
            peer()
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                peer()
                times.append(time.perf_counter() - start)
            result |= {"peer": peer_name, "peers": amount / statistics.median(times)}
            result["ratio"] = result["ours"] / result["peers"]
        print(f"\n{result}")
        runs.save_json({**result, "machine": runs.provenance()}, RESULTS / f"{name}.json")

    RESULTS.mkdir(parents=True, exist_ok=True)
    return compare
