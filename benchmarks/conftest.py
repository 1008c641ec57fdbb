"""Benchmarks: `make bench` times ours and a peer in the same run and writes `results/benchmarks/NAME.json`."""

import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from voxuda.training.provenance import provenance
from voxuda.training.run_folder import save_json

RESULTS = Path(__file__).resolve().parent.parent / "results" / "benchmarks"
BEFORE = provenance()


@pytest.fixture
def machine():
    """What the code was before results were written among it, and the threads of now."""
    return lambda: {**BEFORE, "threads": torch.get_num_threads()}


@pytest.fixture
def against(benchmark, machine):
    """Time ``ours`` and ``peer``, calls without arguments that each do ``amount`` of ``unit``, and record the ratio.

    A slow peer may do only ``peer_amount``.
    They take turns, so that a machine whose speed drifts is as fast for one as for the other; the ratio is the median of
    the rounds' ratios.
    """

    def compare(name, unit, amount, ours, peer=None, peer_name=None, rounds=5, peer_amount=None):
        peer_amount = peer_amount or amount
        times = []

        def run_peer():
            start = time.perf_counter()
            peer()
            times.append(time.perf_counter() - start)

        benchmark.pedantic(ours, setup=run_peer if peer else None, rounds=rounds, iterations=1, warmup_rounds=1)
        ours_times = benchmark.stats.stats.data
        result = {"name": name, "unit": f"{unit} per second", "ours": amount / statistics.median(ours_times)}
        if peer is not None:
            times = times[-rounds:]  # the first is the warm-up's
            ratios = sorted(amount / mine * theirs / peer_amount for theirs, mine in zip(times, ours_times, strict=True))
            result |= {"peer": peer_name, "peers": peer_amount / statistics.median(times), "ratio": statistics.median(ratios)}
            result |= {"lowest_ratio": ratios[0], "highest_ratio": ratios[-1]}
        print(f"\n{result}")
        save_json({**result, "machine": machine()}, RESULTS / f"{name}.json")

    RESULTS.mkdir(parents=True, exist_ok=True)
    return compare
