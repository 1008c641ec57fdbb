import os
import subprocess
import sys

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from voxuda.denoising import _bilateral_loops, bilateral
from voxuda.signal._lanes import exp2_below_0

REFLECT = dict(mode="reflect")
NOT_NUMBERS = np.array([0x7FC00000, 0x7FC00001, 0x7FC00080, 0xFFC00000, 0xFFFFFFFF], np.uint32).view(np.float32)
"""A NaN has many faces: the last is memory filled with ones."""


def test_exponential_has_the_stated_error():
    x = np.concatenate([-126 * np.random.default_rng(0).random(20_000), -np.arange(127.0)]).astype(np.float32)
    found = exp2_below_0(x).astype(np.float64)
    assert len(found) == len(x) and np.abs(found / np.exp2(x.astype(np.float64)) - 1).max() < 5e-7
    assert (exp2_below_0(np.array([-126.6, -127, -128, -1e30, -np.inf], np.float32)) == 0).all()
    assert len(exp2_below_0(x[:0])) == 0
    assert np.isnan(exp2_below_0(NOT_NUMBERS)).all()


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 3),
    st.tuples(st.integers(6, 12), st.integers(6, 12), st.integers(6, 35)),
    st.sampled_from([3, 5]),
    st.sampled_from([0.05, 1.2]),
    st.integers(0, 99),
)
def test_loops_equal_the_equation(batch, shape, window, sigma_r, seed):
    x, radius = torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(seed)), window // 2
    expected = {
        "bf": bilateral.reference_filter(x, pad(x, [radius] * 6, **REFLECT), 1.5, sigma_r, window),
        "ibf": bilateral.reference_filter(x, bilateral.gradients(x.double(), radius), 1.5, sigma_r, window),
    }
    assert _bilateral_loops.apply_to(x)
    found = {
        "bf": bilateral.bilateral_filter(x, 1.5, sigma_r, window),
        "ibf": bilateral.improved_bilateral_filter(x, 1.5, sigma_r, window),
    }
    for name, filtered in found.items():
        torch.testing.assert_close(filtered.double(), expected[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_equal_the_equation_too(generator, dtype):
    """The way for other devices and other types of number."""
    x = torch.rand(2, 1, 9, 10, 11, generator=generator, dtype=dtype)
    padded = pad(x, [1] * 6, **REFLECT)
    for features in (padded, bilateral.gradients(x, 1)):
        found = bilateral.weighted_mean_of_rows(padded, features, 1, 1.5, 0.3)
        expected = bilateral.reference_filter(x, features, 1.5, 0.3)
        torch.testing.assert_close(found.double(), expected, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=0)


def test_slabs_and_threads_change_nothing(generator, monkeypatch):
    x = torch.rand(2, 1, 33, 8, 9, generator=generator)
    whole = [f(x, window=w) for f in (bilateral.bilateral_filter, bilateral.improved_bilateral_filter) for w in (3, 5)]
    monkeypatch.setattr(_bilateral_loops, "SLAB", 5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    again = [f(x, window=w) for f in (bilateral.bilateral_filter, bilateral.improved_bilateral_filter) for w in (3, 5)]
    for a, b in zip(whole, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_strided_volume(generator):
    x = torch.rand(1, 1, 8, 9, 10, generator=generator)
    turned = x.transpose(2, 4).contiguous().transpose(2, 4)
    assert torch.equal(bilateral.improved_bilateral_filter(turned), bilateral.improved_bilateral_filter(x))


@pytest.mark.parametrize("odd", [*NOT_NUMBERS, np.float32(np.inf), np.float32(-np.inf)])
def test_a_voxel_that_is_no_number_spreads_as_in_the_equation(generator, odd):
    x = torch.rand(1, 1, 8, 9, 10, generator=generator)
    x[0, 0, 4, 4, 4] = torch.from_numpy(np.array([odd]))[0]
    plain, improved = bilateral.bilateral_filter(x), bilateral.improved_bilateral_filter(x)
    neighbours = bilateral.reference_filter(x, pad(x, [1] * 6, **REFLECT), 120.0, 1.2).isnan()
    neighbours[0, 0, 4, 4, 4] = False  # q = p has weight 1 here, and in the equation exp(-(inf - inf)²), which is a NaN
    assert torch.equal(plain.isnan() & neighbours, neighbours) and neighbours.sum() == 26
    assert not plain[0, 0, 4, 4, 4].isfinite() and plain.isfinite().sum() == x.numel() - 27, "no further than its neighbours"
    gradient = bilateral.gradients(x.double(), 1)
    assert torch.equal(improved.isnan(), bilateral.reference_filter(x, gradient, 120.0, 1.2).isnan())


def test_rows_of_another_type_are_refused():
    steps, nearness, given, rows = np.array([1]), np.zeros(1, np.float32), np.zeros((1, 4, 4, 4)), np.zeros((4, 512))
    with pytest.raises(numba.errors.TypingError, match="not float32"):
        slabs, scale = np.array([[0, 0, 4]]), np.float32(1)
        _bilateral_loops._filter_slabs(given, slabs, 2, 1, steps, nearness, scale, rows[0], tuple(rows[1:]), rows[0], given)


def test_no_volumes_at_all():
    assert bilateral.bilateral_filter(torch.zeros(0, 1, 8, 8, 8)).shape == (0, 1, 8, 8, 8)


def test_smallest_volumes_and_a_wide_window(generator):
    for side, window in ((4, 3), (5, 5), (6, 7), (35, 7)):
        x, radius = torch.rand(2, 1, side, side, side + 1, generator=generator), window // 2
        expected = bilateral.reference_filter(x, bilateral.gradients(x.double(), radius), 1.5, 0.3, window)
        found = bilateral.improved_bilateral_filter(x, 1.5, 0.3, window)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_without_vectors_and_without_a_cache_it_is_the_same(generator, tmp_path):
    """The plainest processor that numba knows, and no folder that it may write to."""
    x = torch.rand(1, 1, 8, 9, 10, generator=generator)
    torch.save(x, tmp_path / "x.pt")
    program = (
        "import sys, numba.core.caching as caching; caching.CompileResultCacheImpl._locator_classes = []\n"
        "import torch; from voxuda.denoising import bilateral\n"
        "x = torch.load(sys.argv[1], weights_only=True)\n"
        "torch.save([bilateral.bilateral_filter(x), bilateral.improved_bilateral_filter(x)], sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.pt"), str(tmp_path / "y.pt")]
    subprocess.run(command, env={**os.environ, "NUMBA_CPU_NAME": "generic"}, check=True)
    here = bilateral.bilateral_filter(x), bilateral.improved_bilateral_filter(x)
    for a, b in zip(torch.load(tmp_path / "y.pt", weights_only=True), here, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_other_numbers_go_by_rows(generator):
    x = torch.rand(1, 1, 8, 8, 8, generator=generator, dtype=torch.float64)
    assert not _bilateral_loops.apply_to(x) and bilateral.improved_bilateral_filter(x).dtype == torch.float64
