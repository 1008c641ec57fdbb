"""Electron wavelength, contrast transfer, missing wedge and radiation damage."""

from __future__ import annotations

import torch

from voxuda.signal.fourier import frequencies, radius_grid

VOLTAGE = 300e3  # volt
SPHERICAL_ABERRATION = 2.0e7  # angstrom


def wavelength(voltage: float) -> float:
    """Compute the relativistic wavelength of an electron in angstrom from a voltage in volt."""
    # torch-ctf's is longer by 4e-5, which would shift the phases in the stored runs' samples by up to 3e-4 rad.
    return (150.4 / (voltage * (1 + voltage / 1022000))) ** 0.5


def contrast_transfer(f: torch.Tensor, defocus: torch.Tensor) -> torch.Tensor:
    r"""Compute the contrast transfer at frequencies ``f`` in 1/Å for ``defocus`` in Å; the two shapes broadcast.

    :math:`-\sin\!\big(\tfrac{\pi}{2}(C_s\lambda^3 f^4 - 2\,\Delta z\,\lambda f^2)\big)`, positive at low frequency, so
    that protein is bright as in the published data; zero at frequency 0. The voltage is 300 kV, the spherical aberration 2 mm.
    """
    length = wavelength(VOLTAGE)
    return -torch.sin(torch.pi / 2 * (SPHERICAL_ABERRATION * length**3 * f**4 - 2 * defocus * length * f**2))


def ctf(size: int, voxel_size: torch.Tensor | float, defocus: torch.Tensor | float, *, envelope: float = 0.4) -> torch.Tensor:
    r"""Compute phase contrast transfer as a real 3D filter.

    This is :func:`contrast_transfer` times the envelope :math:`e^{-(f/(w f_N))^2}`.

    Parameters
    ----------
    size : int
        Side in voxels.
    voxel_size, defocus : float or Tensor
        Angstrom, one value or ``(B,)``; positive defocus is underfocus.
    envelope : float
        Width :math:`w` of the Gaussian envelope as a fraction of the Nyquist frequency :math:`f_N`.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W // 2 + 1)``, with ``B = 1`` for plain numbers.
    """
    edge = torch.as_tensor(voxel_size, dtype=torch.float32).reshape(-1, 1, 1, 1, 1)
    underfocus = torch.as_tensor(defocus, dtype=torch.float32).reshape(-1, 1, 1, 1, 1)
    k = radius_grid(size)
    return contrast_transfer(k / (size * edge), underfocus) * torch.exp(-(2 * k / size / envelope).square())


def missing_wedge(size: int, angle: float = 30.0) -> torch.Tensor:
    """Return a mask ``(D, H, W // 2 + 1)``, 1 for frequencies that tilts about y of up to ``90 - angle`` degrees measure.

    A frequency is lost (0) when it lies within ``angle`` degrees of the beam axis z, seen along y, or outside the inscribed
    sphere.
    """
    kz, _, kx = frequencies(size)
    reached = kx.abs() >= kz.abs() * torch.tan(torch.deg2rad(torch.tensor(angle)))
    return (reached & (radius_grid(size) <= size / 2)).float()


def critical_exposure(k: torch.Tensor) -> torch.Tensor:
    """Compute the exposure in e/Å² that leaves 1/e of the power at frequencies ``k`` in 1/Å (Grant and Grigorieff 2015)."""
    return 0.245 * k.clamp_min(1e-6) ** -1.665 + 2.81
