import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from voxuda import bilateral, bilateral_loops
from voxuda.bilateral_loops import exp2_below_0

REFLECT = dict(mode="reflect")


def test_exponential_has_the_stated_error():
    x = np.concatenate([-100 * np.random.default_rng(0).random(20_000), -np.arange(101.0)]).astype(np.float32)
    found = exp2_below_0(x).astype(np.float64)
    assert len(found) == len(x) and np.abs(found / np.exp2(x.astype(np.float64)) - 1).max() < 5e-7
    smallest = np.float32(2.0**-100) * exp2_below_0(np.zeros(1, np.float32))
    assert (exp2_below_0(np.array([-101, -1e30, -np.inf], np.float32)) == smallest).all()
    assert np.isnan(exp2_below_0(np.array([np.nan], np.float32))).all() and len(exp2_below_0(x[:0])) == 0


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
    assert bilateral_loops.apply_to(x)
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
    monkeypatch.setattr(bilateral_loops, "SLAB", 5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    again = [f(x, window=w) for f in (bilateral.bilateral_filter, bilateral.improved_bilateral_filter) for w in (3, 5)]
    for a, b in zip(whole, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_strided_volume_and_one_that_is_not_a_number(generator):
    x = torch.rand(1, 1, 8, 9, 10, generator=generator)
    turned = x.transpose(2, 4).contiguous().transpose(2, 4)
    assert torch.equal(bilateral.improved_bilateral_filter(turned), bilateral.improved_bilateral_filter(x))
    x[0, 0, 4, 4, 4] = torch.nan
    plain, improved = bilateral.bilateral_filter(x), bilateral.improved_bilateral_filter(x)
    assert torch.equal(plain.isnan(), bilateral.reference_filter(x, pad(x, [1] * 6, **REFLECT), 120.0, 1.2).isnan())
    gradient = bilateral.gradients(x.double(), 1)
    assert torch.equal(improved.isnan(), bilateral.reference_filter(x, gradient, 120.0, 1.2).isnan())
    assert plain[0, 0, 3:6, 3:6, 3:6].isnan().all() and plain.isnan().sum() == 27, "it spreads to its neighbours, no further"


def test_other_numbers_go_by_rows(generator):
    x = torch.rand(1, 1, 8, 8, 8, generator=generator, dtype=torch.float64)
    assert not bilateral_loops.apply_to(x) and bilateral.improved_bilateral_filter(x).dtype == torch.float64
