"""Simulated samples as a domain in memory, or as a new folder."""

from __future__ import annotations

from pathlib import Path

from voxuda.data.domain import Domain
from voxuda.data.subtomograms import write_samples
from voxuda.signal.normalise import zscore
from voxuda.simulation.quick import Subtomograms


def from_simulation(samples: Subtomograms) -> Domain:
    """Return simulated samples as a domain, normalised, with classes named by molecule."""
    groups = [str(row["specimen"]) for row in samples.table] if "specimen" in samples.table[0] else None
    return Domain(zscore(samples.volumes), samples.masks, [row["molecule"] for row in samples.table], groups)


def save_samples(samples: Subtomograms, out: str | Path) -> Path:
    """Write ``volumes.mrcs``, ``masks.mrcs``, ``densities.mrcs`` and ``samples.csv`` into a new folder, all or none.

    Raises
    ------
    InputError
        The folder is not empty, or cannot be written.
    """
    stacks = {"volumes": samples.volumes, "masks": samples.masks, "densities": samples.densities}
    return write_samples(out, stacks, samples.voxel_size, samples.table)
