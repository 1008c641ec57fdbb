import math

import numpy as np
import pytest
import torch

from voxuda.signal import fourier, optics


def test_ctf_closed_form():
    size, edge, defocus = 32, 10.0, 50e3
    k = 5.0
    wavelength = (150.4 / (300e3 * (1 + 300e3 / 1022000))) ** 0.5
    f = k / (size * edge)
    phase = torch.pi / 2 * (2e7 * wavelength**3 * f**4 - 2 * defocus * wavelength * f**2)
    expected = -torch.sin(torch.tensor(phase)) * torch.exp(torch.tensor(-((2 * k / size / 0.4) ** 2)))
    transfer = optics.ctf(size, edge, defocus)[0, 0]
    torch.testing.assert_close(transfer[5, 0, 0], expected, atol=1e-5, rtol=1e-4)
    assert wavelength == pytest.approx(0.01969, abs=1e-5) and transfer[0, 0, 0] == 0


def test_missing_wedge_is_along_z_for_tilts_about_y():
    wedge = optics.missing_wedge(32)
    assert wedge[8, 0, 0] == 0 and wedge[0, 8, 0] == 1 and wedge[0, 0, 8] == 1


def test_a_filter_of_ones_changes_nothing(generator):
    x = torch.randn(2, 1, 12, 12, 12, generator=generator)
    torch.testing.assert_close(fourier.apply_filter(x, torch.ones(12, 12, 7)), x, atol=1e-5, rtol=1e-5)


def test_lowpass_closed_form():
    lowpass = fourier.soft_lowpass(32, 8, 2.0)
    assert lowpass[0, 0, 8] == 1 and lowpass[8, 0, 0] == 1
    assert lowpass[0, 0, 10] == pytest.approx(math.exp(-1))
    assert lowpass[3, 0, 0] == lowpass[-3, 0, 0], "the filter is real and even"


def test_wedge_keeps_two_thirds_of_the_sphere():
    wedge = optics.missing_wedge(64)
    sphere = fourier.radius_grid(64) <= 32
    assert wedge[~sphere].max() == 0
    # a half spectrum holds every plane but two once for two
    twice = torch.full((33,), 2.0)
    twice[0] = twice[-1] = 1
    assert (wedge * twice).sum() / (sphere * twice).sum() == pytest.approx(2 / 3, abs=0.01)


def test_frequencies_against_numpy():
    kz, ky, kx = fourier.frequencies(10)
    np.testing.assert_allclose(kz[:, 0, 0], np.fft.fftfreq(10) * 10)
    np.testing.assert_allclose(ky[0, :, 0], np.fft.fftfreq(10) * 10)
    np.testing.assert_allclose(kx[0, 0], np.fft.rfftfreq(10) * 10)


def test_critical_exposure_at_the_fit_of_its_paper():
    k = torch.tensor([0.05, 0.1, 1 / 3])
    expected = torch.tensor([0.245 * x**-1.665 + 2.81 for x in k.tolist()])
    torch.testing.assert_close(optics.critical_exposure(k), expected)
    assert optics.critical_exposure(k)[2] == pytest.approx(4.3, abs=0.1)
    assert optics.critical_exposure(torch.tensor(0.0)) > 1e6
