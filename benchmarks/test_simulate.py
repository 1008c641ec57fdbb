"""Both quick recipes in samples a second, beside the order of one thousand that lets a training set be made on the fly."""

from voxuda import ladder, molecules
from voxuda.simulate import simulate_source, simulate_target


def test_source(against):
    library = [molecules.load(name) for name in ladder.SOURCE]
    samples = 10 * 2 * len(library)
    against("simulate-source", "samples", samples, lambda: simulate_source(library, n_per_molecule=10), rounds=3)


def test_target(against):
    library = [molecules.load(name) for name in molecules.TARGET_MOLECULES]
    samples = 20 * len(library)
    against("simulate-target", "samples", samples, lambda: simulate_target(library, n_per_molecule=20), rounds=3)
