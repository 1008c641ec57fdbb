import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxuda import molecules, rendering


def cloud(count, reach, seed):
    generator = torch.Generator().manual_seed(seed)
    positions = reach * (2 * torch.rand(count, 3, generator=generator) - 1)
    return positions, 100 + 900 * torch.rand(count, generator=generator), 10 * torch.rand(count, generator=generator)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.sampled_from([8, 15, 16, 32]), st.floats(6, 15), st.floats(10, 400), st.integers(0, 1000))
def test_agrees_with_the_density_of_every_bead_everywhere(count, size, voxel_size, reach, seed):
    """Against the sum without windows, with beads in and out of the crop."""
    beads = cloud(count, reach, seed)
    fast = rendering.render_beads(*(b.numpy() for b in beads), size, voxel_size)
    slow = molecules.density(*(b[None] for b in beads), size, voxel_size)[0, 0]
    np.testing.assert_allclose(fast, slow.numpy(), atol=2e-5 * 1000 * count, rtol=1e-3)


def test_a_bead_in_the_middle_of_a_voxel():
    """Closed form: a Gaussian whose variance is its own and that of the kernel which spreads it."""
    one = np.zeros((1, 3), np.float32), np.array([1000], np.float32), np.array([15], np.float32)
    volume = rendering.render_beads(*one, 32, 10.0)
    variance = 15.0**2 + 100 / 6
    assert volume[16, 16, 16] == pytest.approx(1000 * 1000 / (2 * np.pi * variance) ** 1.5, rel=1e-4)
    assert volume.sum() == pytest.approx(1000, rel=1e-4)


def test_no_bead_in_sight():
    far = np.full((3, 3), 1e4, np.float32), np.ones(3, np.float32), np.ones(3, np.float32)
    assert not rendering.render_beads(*far, 8, 10.0).any()
    assert not rendering.render_beads(*(values[:0] for values in far), 8, 10.0).any()


def test_threads_keep_the_order_and_pass_errors_on():
    found = rendering.in_threads(lambda i: np.full((2, 2, 2), i, np.float32), range(7))
    assert found.shape == (7, 1, 2, 2, 2) and found[:, 0, 0, 0, 0].tolist() == list(range(7))

    def fails(i):
        raise ValueError("no density")

    with pytest.raises(ValueError, match="no density"):
        rendering.in_threads(fails, range(3))
