from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn.functional import pad

from voxuda.denoising.bilateral import bilateral_filter, gradients, improved_bilateral_filter, reference_filter
from voxuda.errors import InputError


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("gradient", ["sobel", "sobel_magnitude"])
def test_ibf_equals_the_equation(generator, window, gradient):
    x = torch.rand(2, 1, 9, 10, 11, generator=generator)
    features = gradients(x.double(), window // 2, gradient)
    expected = reference_filter(x, features, 1.5, 1.2, window)
    actual = improved_bilateral_filter(x, 1.5, 1.2, window, gradient)
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [3, 5])
def test_bf_equals_the_equation(generator, window):
    x = torch.rand(2, 1, 9, 10, 11, generator=generator)
    padded = pad(x, [window // 2] * 6, mode="reflect")
    expected = reference_filter(x, padded, 1.5, 0.3, window)
    torch.testing.assert_close(bilateral_filter(x, 1.5, 0.3, window).double(), expected, atol=1e-5, rtol=0)


def test_reference_equals_a_loop_over_voxels(generator):
    x = torch.rand(1, 1, 5, 5, 5, generator=generator, dtype=torch.float64)
    values = np.pad(x[0, 0].numpy(), 1, mode="reflect")
    expected = np.zeros((5, 5, 5))
    for z, y, x_ in product(range(5), repeat=3):
        centre = values[z + 1, y + 1, x_ + 1]
        block = values[z : z + 3, y : y + 3, x_ : x_ + 3]
        grid = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"))
        weight = np.exp(-(grid**2).sum(0) / (2 * 0.9**2)) * np.exp(-((block - centre) ** 2) / (2 * 0.4**2))
        expected[z, y, x_] = (weight * block).sum() / weight.sum()
    features = pad(x, [1] * 6, mode="reflect")
    np.testing.assert_allclose(reference_filter(x, features, 0.9, 0.4)[0, 0].numpy(), expected, atol=1e-12)


def test_sobel_against_scipy(generator):
    x = torch.rand(1, 1, 8, 9, 10, generator=generator)
    mine = gradients(x, 0)[0].numpy()
    for axis in range(3):
        np.testing.assert_allclose(mine[axis], ndimage.sobel(x[0, 0].numpy(), axis, mode="mirror"), atol=1e-5)


def test_bf_with_wide_range_is_a_gaussian_and_agrees_with_simpleitk(generator):
    import SimpleITK as sitk

    x = torch.rand(1, 1, 12, 12, 12, generator=generator)
    mine = bilateral_filter(x, 0.4, 0.5)[0, 0].numpy()
    theirs = sitk.GetArrayFromImage(sitk.Bilateral(sitk.GetImageFromArray(x[0, 0].numpy()), 0.4, 0.5, 1000))
    inner = (slice(2, -2),) * 3  # borders are handled differently
    np.testing.assert_allclose(mine[inner], theirs[inner], atol=5e-3)


@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5), sigma=st.floats(0.05, 5))
@settings(max_examples=15, deadline=None)
def test_shift_and_range_invariants(seed, shift, sigma):
    x = torch.rand(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(seed))
    for f in (bilateral_filter, improved_bilateral_filter):
        out = f(x, 120.0, sigma)
        assert out.min() >= x.min() - 1e-5 and out.max() <= x.max() + 1e-5
        torch.testing.assert_close(f(x + shift, 120.0, sigma), out + shift, atol=2e-4, rtol=0)
        torch.testing.assert_close(f(x.flip(2), 120.0, sigma), out.flip(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(f(x.transpose(2, 4), 120.0, sigma), out.transpose(2, 4), atol=1e-5, rtol=0)


def test_constant_stays_constant_and_input_is_untouched(generator):
    x = torch.full((1, 1, 6, 6, 6), 3.0)
    torch.testing.assert_close(improved_bilateral_filter(x), x)
    y = torch.rand(1, 1, 6, 6, 6, generator=generator)
    before = y.clone()
    bilateral_filter(y)
    assert torch.equal(y, before)


@pytest.mark.parametrize("bad", [{"window": 4}, {"window": 1}, {"sigma_d": 0.0}, {"sigma_r": -1.0}])
def test_bad_arguments(bad):
    with pytest.raises(InputError):
        improved_bilateral_filter(torch.rand(1, 1, 8, 8, 8), **bad)


def test_bad_shapes():
    with pytest.raises(InputError, match="not a batch"):
        bilateral_filter(torch.rand(8, 8, 8))
    with pytest.raises(InputError, match="too small"):
        bilateral_filter(torch.rand(1, 1, 3, 8, 8))
