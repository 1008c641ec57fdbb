import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxuda.errors import InputError
from voxuda.simulation import molecules, rendering
from voxuda.simulation.packing import random_rotations


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
    reach = 5 * variance**0.5 / 10
    apart = np.abs(np.indices(volume.shape) - 16).max(0)
    assert (volume[apart > reach] == 0).all() and (volume[apart < reach] > 0).all()


def test_no_bead_in_sight():
    far = np.full((3, 3), 1e4, np.float32), np.ones(3, np.float32), np.ones(3, np.float32)
    assert not rendering.render_beads(*far, 8, 10.0).any()
    assert not rendering.render_beads(*(values[:0] for values in far), 8, 10.0).any()


@pytest.mark.parametrize(("size", "voxel_size", "spread"), [(32, 1.0, 3.0), (48, 0.5, 2.0), (40, 0.25, 3.0)])
def test_a_bead_that_reaches_beyond_one_vector(size, voxel_size, spread):
    """Fine voxels, so that a bead takes several vectors along each axis, or all of the crop."""
    beads = torch.tensor([[1.3, -2.1, 0.4], [-4.0, 3.0, 2.5]]), torch.tensor([500.0, 200.0]), torch.full((2,), spread)
    fast = rendering.render_beads(*(b.numpy() for b in beads), size, voxel_size)
    slow = molecules.density(*(b[None] for b in beads), size, voxel_size)[0, 0].numpy()
    np.testing.assert_allclose(fast, slow, atol=2e-5 * slow.max(), rtol=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([8, 15, 32]), st.integers(0, 1000))
def test_beads_are_turned_then_moved_then_added(size, seed):
    generator = torch.Generator().manual_seed(seed)
    positions, masses, spreads = cloud(30, 60, seed)
    (turned,), at = random_rotations(1, generator), 40 * torch.rand(3, generator=generator)
    beads = [b.numpy() for b in (masses, spreads)]
    volume = np.ones((size, size, -(-size // 16) * 16), np.float32)
    rendering.add_beads(volume, positions.numpy(), *beads, 10.0, turned.numpy(), at.numpy())
    expected = 1 + rendering.render_beads((positions @ turned.T + at).numpy(), *beads, size, 10.0)
    np.testing.assert_allclose(volume[..., :size], expected, atol=1e-3 * expected.max(), rtol=1e-4)


@pytest.mark.parametrize("size", [8, 15, 16])
def test_nothing_is_written_outside_of_the_crop(size):
    line = -(-size // 16) * 16
    memory = np.full(4096 + size * size * line + 4096, 7, np.float32)
    volume = memory[4096:-4096].reshape(size, size, line)
    rendering.add_beads(volume, *(b.numpy() for b in cloud(500, 8 * size, 0)), 10.0)
    assert (memory[:4096] == 7).all() and (memory[-4096:] == 7).all() and (volume != 7).any()


def inputs(count=4):
    beads = [b.numpy() for b in cloud(count, 60, 0)]
    return [np.zeros((16, 16, 16), np.float32), *beads, 10.0, np.eye(3, dtype=np.float32), np.zeros(3, np.float32)]


@pytest.mark.parametrize("shape", [(15, 15, 15), (16, 15, 16), (16, 16, 32)])
def test_a_crop_of_another_shape_is_refused(shape):
    _, *others = inputs()
    with pytest.raises(InputError, match="multiple of 16"):
        rendering.add_beads(np.zeros(shape, np.float32), *others)


def test_a_crop_that_may_not_be_written_to_is_refused():
    volume, *others = inputs()
    volume.flags.writeable = False
    with pytest.raises(InputError, match="writable"):
        rendering.add_beads(volume, *others)


@pytest.mark.parametrize("which", [1, 2, 3, 5, 6])
def test_beads_of_another_shape_are_refused(which):
    wrong = inputs()
    wrong[which] = wrong[which][:-1]
    with pytest.raises(InputError, match="are not those of positions"):
        rendering.add_beads(*wrong)
    assert not wrong[0].any()


@pytest.mark.parametrize("kind", [np.float64, np.float16, list])
def test_other_numbers_and_strided_ones_are_taken_as_they_are_meant(kind):
    plain, other = inputs(), inputs()
    rounded = np.float16 if kind is np.float16 else np.float32
    for which in (1, 2, 3, 5, 6):
        plain[which] = plain[which].astype(rounded).astype(np.float32)
        other[which] = plain[which].tolist() if kind is list else np.asfortranarray(plain[which].astype(kind))
    rendering.add_beads(*plain)
    rendering.add_beads(*other)
    assert np.array_equal(plain[0], other[0]) and plain[0].any()


def test_without_vectors_it_is_the_same(root, tmp_path):
    """The plainest processor that numba knows."""
    beads = [b.numpy() for b in cloud(40, 100, 3)]
    np.savez(tmp_path / "beads.npz", *beads)
    program = (
        "import sys, numpy as np; from voxuda.simulation import rendering\n"
        "b = np.load(sys.argv[1]); np.save(sys.argv[2], rendering.render_beads(*(b[f'arr_{i}'] for i in range(3)), 16, 10.0))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "beads.npz"), str(tmp_path / "there.npy")]
    subprocess.run(command, env={**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}, check=True)
    here = rendering.render_beads(*beads, 16, 10.0)
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), here, atol=1e-6 * here.max(), rtol=1e-5)
    # What numba keeps has the digest of the file of lanes in its name, so it is compiled again when they change.
    digest = hashlib.sha256((root / "voxuda" / "signal" / "_lanes.py").read_bytes()).hexdigest()[:12]
    kept = [path.name for path in tmp_path.rglob("*.nbi")]
    assert kept and all(digest in name for name in kept)


def test_threads_keep_the_order_and_pass_errors_on():
    def fill(i, volume):
        volume[:] = i

    found = rendering.render_each(7, 8, fill)
    assert found.shape == (7, 1, 8, 8, 8) and found[:, 0, 0, 0, 0].tolist() == list(range(7)) and found.is_contiguous()

    def fails(i, volume):
        raise ValueError("no density")

    with pytest.raises(ValueError, match="no density"):
        rendering.render_each(3, 8, fails)
