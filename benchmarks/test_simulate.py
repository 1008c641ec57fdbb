"""The simulator in samples a second, beside the loop over samples and tilts that scipy would take."""

import numpy as np
from scipy import ndimage

from voxuda.experiments import ladder
from voxuda.signal.tilts import tilt_angles
from voxuda.simulation import molecules
from voxuda.simulation.quick import simulate_source, simulate_target

PEER = "scipy affine_transform (order 1) of one density at 41 tilts and summed: projections alone, no optics or noise"
TARGETS = [molecules.load(name) for name in molecules.TARGET_MOLECULES]


def scipy_projections(count):
    """A call that projects ``count`` cubes of 32³ voxels at every tilt, one after the other."""
    cubes = np.random.default_rng(0).random((count, 32, 32, 32), np.float32)
    middle = np.array([16, 16, 16])
    turns = []
    for tilt in np.deg2rad(tilt_angles(-60, 60).numpy()):
        c, s = np.cos(tilt), np.sin(tilt)
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        turns.append((turn, middle - turn @ middle))

    def run():
        for cube in cubes:
            for turn, offset in turns:
                ndimage.affine_transform(cube, turn, offset, order=1).sum(0)

    return run


def compare(against, name, samples, ours):
    against(f"simulate-{name}", "samples", samples, ours, scipy_projections(8), PEER, peer_amount=8)


def test_source(against):
    library = [molecules.load(name) for name in ladder.SOURCE]
    compare(against, "source", 258, lambda: simulate_source(library, n_per_molecule=43))


def test_quick(against):
    compare(against, "quick", 258, lambda: simulate_target(TARGETS, n_per_molecule=86))
