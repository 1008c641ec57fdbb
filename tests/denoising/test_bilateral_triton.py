"""The GPU kernel; where there is no GPU, Triton's interpreter runs it on the CPU."""

import importlib
import sys

import pytest
import torch
import triton
from torch.nn.functional import pad

from voxuda.denoising.bilateral import gradients, reference_filter
from voxuda.errors import InputError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

with pytest.MonkeyPatch.context() as patch:  # triton.jit looks at the variable when the module defines its kernels
    if DEVICE == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    from voxuda.denoising import _bilateral_triton
    from voxuda.denoising._bilateral_triton import fused_filter


@pytest.fixture(autouse=True)
def one_program_a_volume(monkeypatch):
    if DEVICE == "cpu":  # the interpreter takes a second for a program
        monkeypatch.setattr(_bilateral_triton, "TILE", (4, 8))


def reference(x, sigma_d, sigma_r, gradient):
    x = x.cpu().double()
    features = gradients(x, 1) if gradient else pad(x, [1] * 6, mode="reflect")
    return reference_filter(x, features, sigma_d, sigma_r)


def assert_equals_the_equation(x, sigma_d, sigma_r, gradient):
    actual = fused_filter(x.to(DEVICE), sigma_d, sigma_r, gradient=gradient)
    assert actual.dtype == torch.float32 and actual.device.type == DEVICE
    torch.testing.assert_close(actual.cpu().double(), reference(x, sigma_d, sigma_r, gradient), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("gradient", "sigma_r"), [(True, 2.0), (False, 0.2)])
def test_equals_the_equation(generator, gradient, sigma_r):
    assert_equals_the_equation(torch.rand(2, 1, 5, 7, 6, generator=generator), 1.5, sigma_r, gradient)


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("sigma_r", [1e-3, 1e3])
def test_smallest_volume_with_weights_that_underflow_or_ignore_the_values(generator, gradient, sigma_r):
    assert_equals_the_equation(torch.rand(1, 1, 4, 4, 4, generator=generator), 1.5, sigma_r, gradient)


def test_seams_between_programs(generator, monkeypatch):
    monkeypatch.setattr(_bilateral_triton, "TILE", (2, 4))
    monkeypatch.setattr(_bilateral_triton, "MARCH", 3)
    assert_equals_the_equation(torch.rand(1, 1, 5, 5, 6, generator=generator), 0.9, 2.0, True)


def test_strided_volumes(generator):
    x = torch.rand(2, 1, 12, 5, 4, generator=generator).to(DEVICE)[1:, :, ::2].transpose(2, 4)
    assert not x.is_contiguous() and x.storage_offset() > 0
    assert_equals_the_equation(x, 1.5, 2.0, True)
    assert_equals_the_equation(x[:1, :, :1].expand(1, 1, 4, 5, 6), 1.5, 0.2, False)


@pytest.mark.parametrize(("gradient", "sigma_r"), [(True, 2.0), (False, 0.2)])
def test_bfloat16(generator, gradient, sigma_r):
    x = torch.rand(1, 1, 4, 5, 6, generator=generator).bfloat16()
    actual = fused_filter(x.to(DEVICE), 1.5, sigma_r, gradient=gradient)
    assert actual.dtype == torch.bfloat16
    one_ulp = 2**-7  # the interpreter truncates where a GPU rounds
    torch.testing.assert_close(actual.cpu().double(), reference(x, 1.5, sigma_r, gradient), atol=1e-5, rtol=one_ulp)


def test_constant_stays_constant_and_input_is_untouched():
    x = torch.full((1, 1, 4, 5, 4), 3.0, device=DEVICE)
    torch.testing.assert_close(fused_filter(x), torch.full_like(x, 3.0), atol=1e-6, rtol=0)
    assert (x == 3).all()


@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
@pytest.mark.parametrize(("gradient", "sigma_r"), [(True, 2.0), (False, 0.2)])
def test_volume_of_many_programs(generator, gradient, sigma_r):
    assert_equals_the_equation(torch.rand(2, 1, 100, 64, 96, generator=generator), 120.0, sigma_r, gradient)


@pytest.mark.parametrize(
    ("x", "sigma_r", "message"),
    [
        (torch.zeros(4, 4, 4), 1.0, "not a batch"),
        (torch.zeros(1, 1, 3, 4, 4), 1.0, "too small"),
        (torch.zeros(1, 1, 4, 4, 4), 0.0, "must be positive"),
        (torch.zeros(1, 1, 4, 4, 4, dtype=torch.float64), 1.0, "float32 or bfloat16"),
    ],
)
def test_bad_input(x, sigma_r, message):
    with pytest.raises(InputError, match=message):
        fused_filter(x.to(DEVICE), sigma_r=sigma_r)


def test_volumes_on_the_cpu(monkeypatch):
    monkeypatch.setattr(_bilateral_triton, "_filter", triton.JITFunction(_bilateral_triton._filter.fn))
    with pytest.raises(InputError, match="on a CUDA device"):
        fused_filter(torch.zeros(1, 1, 4, 4, 4))


def test_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "voxuda.denoising._bilateral_triton")
    with pytest.raises(ImportError, match=r"pip install 'voxuda\[triton\]'"):
        importlib.import_module("voxuda.denoising._bilateral_triton")
