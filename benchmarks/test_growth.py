"""How time and memory grow with the side of a volume, the batch, the width and the number of samples."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import mrcfile
import numpy as np
import pytest
import torch

from voxuda.denoising.bilateral import improved_bilateral_filter
from voxuda.denoising.noise import noise_level
from voxuda.experiments import ladder
from voxuda.methods import Batch, build
from voxuda.networks.voxresnet import VoxResNet
from voxuda.simulation import molecules
from voxuda.simulation.quick import simulate_source
from voxuda.training.config import SegmentOptions
from voxuda.training.run_folder import save_json
from voxuda.training.segmentation import segment_files

RESULTS = Path(__file__).resolve().parent.parent / "results" / "benchmarks"


def cube(side, batch=1):
    return torch.rand(batch, 1, side, side, side, generator=torch.Generator().manual_seed(0))


def filtering(side):
    volume = cube(side)
    return lambda: improved_bilateral_filter(volume)


def level(side):
    volume = cube(side)
    return lambda: noise_level(volume)


def network(side):
    volume, model = cube(side), VoxResNet(8).eval().to(memory_format=torch.channels_last_3d)
    return lambda: torch.no_grad()(model)(volume)


def training(width, batch):
    generator = torch.Generator().manual_seed(0)
    volumes = cube(32, batch)
    made = Batch(volumes, (volumes[:, 0] > 0.95).long(), volumes, None, torch.arange(batch), generator)
    method = build("vox-uda", width).to(memory_format=torch.channels_last_3d).train()
    method.prepare(volumes.repeat(10, 1, 1, 1, 1))

    def step():
        torch.stack(list(method.losses(made, 0.5).values())).sum().backward()
        method.after_step()

    return step


def simulating(samples):
    library = [molecules.load(name) for name in ladder.SOURCE] * 2
    return lambda: simulate_source(library, n_per_molecule=samples // 12)


def segmenting(side):
    folder, count = Path(tempfile.mkdtemp()), iter(range(1000))
    path, section = folder / "t.mrc", np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    with mrcfile.new_mmap(path, (side, side, side), mrc_mode=2) as mrc:
        for z in range(side):
            mrc.data[z] = np.roll(section, (3 * z, 5 * z), (0, 1))
        mrc.voxel_size = 10.0
    return lambda: segment_files([path], folder / str(next(count)), SegmentOptions(picture=False, device="cpu"), progress=False)


CURVES = {
    "side-filter": ("voxels a side", [16, 32, 64, 128, 256], 3, filtering),
    "side-noise-level": ("voxels a side", [16, 32, 64, 128, 256], 3, level),
    "side-network": ("voxels a side", [16, 32, 64, 128, 256], 3, network),
    "side-segment": ("voxels a side", [64, 128, 256, 512], 3, segmenting),
    "batch-step": ("pairs a step", [1, 2, 4, 8, 16, 32], 1, lambda batch: training(8, batch)),
    "width-step": ("channels of the first stage", [8, 16, 32, 64], 2, lambda width: training(width, 2)),
    "samples-simulate": ("samples", [12, 48, 192, 768, 3072], 1, simulating),
}
"""What grows, its values, the power of it that the arithmetic has, and what is timed."""


def resident(which):
    """Megabytes of this process: VmRSS now, VmHWM at most so far (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def measure(name, value):
    """Least seconds of a call and the memory that it takes on top of what its input takes."""
    _, values, _, make = CURVES[name]
    make(values[0])()  # compiles what is compiled, loads what is loaded
    call = make(value)
    before = resident("VmRSS")
    seconds = []
    while (sum(seconds) < 4 and len(seconds) < 50) or (len(seconds) < 5 and sum(seconds) < 60):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return {"value": value, "seconds": min(seconds), "megabytes": resident("VmHWM") - before}


def slope(points, key):
    """Power law through the three largest points, least squares on log axes."""
    x, y = (np.log([max(point[k], 1e-9) for point in points[-3:]]) for k in ("value", key))
    return float(np.polyfit(x, y, 1)[0])


KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""Settings of glibc by which memory that is freed stays with the process."""


def apart(name, value, settings=None):
    """Measure in a process of its own, so that no peak of memory hides another."""
    command = [sys.executable, __file__, name, str(value)]
    environment = {**os.environ, **(settings or {})}
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.parametrize("name", CURVES)
def test_growth(machine, name):
    label, values, expected, _ = CURVES[name]
    points = [apart(name, value) for value in values]
    slopes = {f"slope_of_{key}": slope(points, key) for key in ("seconds", "megabytes")}
    result = {"name": f"growth-{name}", "grows": label, "expected_slope": expected, **slopes, "points": points}
    print(f"\n{result}")
    save_json({**result, "machine": machine()}, RESULTS / f"growth-{name}.json")


@pytest.mark.parametrize("name", ["side-filter", "side-noise-level", "width-step"])
def test_memory_kept(machine, name):
    """Why large volumes are steep: glibc returns arrays of over 32 MB to the system after each use, and new pages cost."""
    value = 32 if name == "width-step" else CURVES[name][1][-1]
    pairs = [(apart(name, value, KEPT)["seconds"], apart(name, value)["seconds"]) for _ in range(5)]
    kept, anew = np.array(pairs).T
    ratios = sorted(anew / kept)
    result = {"name": f"{name.split('-', 1)[1]}-{value}-memory-kept", "unit": "calls per second", "ours": 1 / np.median(kept)}
    result |= {"peer": "the same, memory returned to the system after each use", "peers": 1 / np.median(anew)}
    result |= {"ratio": np.median(ratios), "lowest_ratio": ratios[0], "highest_ratio": ratios[-1]}
    print(f"\n{result}")
    save_json({**result, "machine": machine()}, RESULTS / f"{result['name']}.json")


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
