import pytest
import torch

from voxuda import optics


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
