"""Components found slab by slab are those that scipy finds in the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from voxuda.training.components import TOUCHING, Components


def by_slabs(mask, probability, sections):
    """Labels and table of a mask that is seen ``sections`` at a time."""
    components, pieces = Components(), []
    for start in range(0, len(mask), sections):
        pieces.append(components.add(mask[start : start + sections], probability[start : start + sections]))
    return np.concatenate(pieces), components


@given(seed=st.integers(0, 1000), share=st.floats(0, 0.4), sections=st.integers(1, 12), least=st.integers(0, 6))
@settings(deadline=None, max_examples=60)
def test_they_are_those_of_the_whole(seed, share, sections, least):
    rng = np.random.default_rng(seed)
    probability = rng.random((11, 7, 9))
    mask = probability > 1 - share
    pieces, components = by_slabs(mask, probability, sections)
    table = components.table(least)
    labels, count = ndimage.label(mask, TOUCHING)
    kept = [k for k in range(1, count + 1) if (labels == k).sum() >= least]
    assert len(table.voxels) == len(kept)
    found = table.labels[pieces]
    for k in kept:
        inside = labels == k
        (row,) = set(found[inside] - 1)
        assert row >= 0 and (found == row + 1).sum() == inside.sum() == table.voxels[row]
        np.testing.assert_allclose(table.centres[row], ndimage.center_of_mass(inside), atol=1e-9)
        assert table.probabilities[row] == pytest.approx(probability[inside].mean())
    assert (found > 0).sum() == sum((labels == k).sum() for k in kept)


def test_volumes_of_a_stack_do_not_touch():
    mask = np.ones((4, 3, 3), bool)
    components = Components()
    components.add(mask[:2], mask[:2].astype(float))
    components.separate()
    components.add(mask[2:], mask[2:].astype(float))
    assert components.table().voxels.tolist() == [18, 18]
