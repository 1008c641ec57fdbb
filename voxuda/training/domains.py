"""The samples of a run, loaded from folders or simulated."""

from __future__ import annotations

from functools import lru_cache

from voxuda.data.domain import Domain
from voxuda.data.subtomograms import load_domain
from voxuda.errors import InputError
from voxuda.simulation import molecules, quick, tilt_series
from voxuda.simulation.microscope import PHASE_PLATE
from voxuda.simulation.samples import from_simulation
from voxuda.training.config import SCALES, Config, Recipe, SourceSet


def load_domains(config: Config, *, progress: bool = False) -> tuple[Domain, Domain, Domain]:
    """Load or simulate the source, the target for training (60 % of each class) and the target for testing."""
    sizes = SCALES[config.scale]
    train, test = load_target(config, progress=progress)
    if config.source:
        source = load_domain(config.source)
    else:
        source = _simulated_source(config.source_set, sizes["per_source"], sizes["source_snr"], config.seed, progress)
    if source.masks is None:
        raise InputError(f"{config.source}: has no masks; the source domain must be labelled.")
    if source.volumes.shape[2:] != train.volumes.shape[2:]:
        raise InputError(
            f"source volumes are {tuple(source.volumes.shape[2:])} and target volumes {tuple(train.volumes.shape[2:])}; "
            "simulate both with the same --size."
        )
    return source, train, test


def load_target(config: Config, *, progress: bool = False) -> tuple[Domain, Domain]:
    """Load or simulate the target, split into disjoint parts for training and for testing.

    A folder holds few samples, so the split depends on the seed; simulated samples differ between seeds anyway.
    """
    if not config.target:
        simulated = _simulated_target(config.recipe, SCALES[config.scale]["per_target"], config.seed, progress)
        return simulated.split(0.6, seed=0)
    target = load_domain(config.target)
    if len(target) < 2:
        raise InputError(f"{config.target}: holds {len(target)} volume; training and testing need at least 2.")
    return target.split(0.6, seed=config.seed)


# The rows of a table and the evaluation of a run use the same samples, so the last ones are cached.
@lru_cache(maxsize=1)
def _simulated_source(which: SourceSet, n_per_molecule: int, snr: tuple[float, ...], seed: int, progress: bool) -> Domain:
    if which == "nine":
        names, n_per_molecule = list(molecules.NINE), -(-n_per_molecule // 3)  # as many samples as with the paper's three
    else:
        names = [molecules.STAND_INS.get(n, n) for n in molecules.PAPER_SOURCE_SETS[which]]
    library = [molecules.load(n) for n in names]
    samples = quick.simulate_source(library, n_per_molecule=n_per_molecule, snr=snr, seed=1000 + seed, progress=progress)
    return from_simulation(samples)


@lru_cache(maxsize=1)
def _simulated_target(recipe: Recipe, n_per_molecule: int, seed: int, progress: bool) -> Domain:
    names = molecules.TARGET_MOLECULES if recipe == "convolution" else molecules.IN_CELLS
    library = [molecules.load(n) for n in names]
    if recipe == "convolution":
        samples = quick.simulate_target(library, n_per_molecule=n_per_molecule, seed=2000 + seed, progress=progress)
    else:
        n, optics = n_per_molecule * len(library), PHASE_PLATE if recipe == "phase-plate" else {}
        samples = tilt_series.simulate_tilt_series(library, n=n, seed=2000 + seed, progress=progress, **optics)  # type: ignore[arg-type]
    return from_simulation(samples)
