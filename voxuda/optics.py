"""Optics of an electron microscope as filters of a volume: low-pass, contrast transfer, missing wedge."""

from __future__ import annotations

import torch


def frequencies(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frequency grids ``kz, ky, kx`` in cycles per box, each broadcastable to ``(size, size, size // 2 + 1)``."""
    full = torch.fft.fftfreq(size) * size
    half = torch.fft.rfftfreq(size) * size
    return full[:, None, None], full[None, :, None], half[None, None, :]


def radius_grid(size: int) -> torch.Tensor:
    """Length of the frequency vector in cycles per box, ``(D, H, W // 2 + 1)``."""
    kz, ky, kx = frequencies(size)
    return (kz.square() + ky.square() + kx.square()).sqrt()


def spectrum(volumes: torch.Tensor) -> torch.Tensor:
    """Half spectrum ``(..., D, H, W // 2 + 1)`` of ``(..., D, H, W)`` volumes, in single precision for half precision."""
    return torch.fft.rfftn(volumes if volumes.dtype == torch.float64 else volumes.float(), dim=(-3, -2, -1))


def volume_of(half: torch.Tensor, width: int) -> torch.Tensor:
    """Inverse of :func:`spectrum`, for volumes of ``width`` voxels along x."""
    return torch.fft.irfftn(half, s=(*half.shape[-3:-1], width), dim=(-3, -2, -1))


def spectral_variance(half: torch.Tensor, width: int) -> torch.Tensor:
    """Variance of volumes from their half spectra, by Parseval: all power but that of frequency 0, ``(..., 1, 1, 1)``."""

    def power(part: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(part).flatten(-4).square().sum(-1)

    # Every plane of kx stands for its mirror image too, but the first and an even width's last.
    total = 2 * power(half) - power(half[..., :1]) - power(half[..., :1, :1, :1])
    if width % 2 == 0:
        total = total - power(half[..., -1:])
    return (total / (half.shape[-3] * half.shape[-2] * width) ** 2)[..., None, None, None]


def apply_filter(volumes: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    """Multiply the spectrum of ``(B, 1, D, H, W)`` volumes by a real filter ``(..., D, H, W // 2 + 1)``."""
    return volume_of(spectrum(volumes) * transfer, volumes.shape[-1])


def soft_lowpass(size: int, radius: float, sigma: float) -> torch.Tensor:
    """Low-pass ``(D, H, W // 2 + 1)``: 1 up to ``radius``, then exp(-(excess / sigma)²), in cycles per box."""
    excess = (radius_grid(size) - radius).clamp_min(0)
    return torch.exp(-(excess / sigma).square())


def wavelength(voltage: float) -> float:
    """Wavelength of an electron in angstrom, relativistic, from a voltage in volt."""
    return (150.4 / (voltage * (1 + voltage / 1022000))) ** 0.5


def contrast_transfer(
    f: torch.Tensor, defocus: torch.Tensor, *, voltage: float = 300e3, spherical_aberration: float = 2.0e7
) -> torch.Tensor:
    r"""Phase contrast transfer at frequencies ``f`` in 1/angstrom, of any shape that ``defocus`` in angstrom broadcasts to.

    :math:`-\sin\!\big(\tfrac{\pi}{2}(C_s\lambda^3 f^4 - 2\,\Delta z\,\lambda f^2)\big)`, positive at low frequency, so
    that protein is bright as in the published data; zero at frequency 0. Voltage in volt, spherical aberration in angstrom.
    """
    length = wavelength(voltage)
    return -torch.sin(torch.pi / 2 * (spherical_aberration * length**3 * f**4 - 2 * defocus * length * f**2))


def ctf(
    size: int,
    voxel_size: torch.Tensor | float,
    defocus: torch.Tensor | float,
    *,
    envelope: float = 0.4,
) -> torch.Tensor:
    r"""Phase contrast transfer as a 3D real filter: :func:`contrast_transfer` times the envelope :math:`e^{-(f/(0.4 f_N))^2}`.

    Parameters
    ----------
    size : int
        Side in voxels.
    voxel_size, defocus : float or Tensor
        Angstrom, one value or ``(B,)``; positive defocus is underfocus.
    envelope : float
        Width of the Gaussian envelope as a fraction of the Nyquist frequency.

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W // 2 + 1)`` with ``B = 1`` for plain numbers.
    """
    edge = torch.as_tensor(voxel_size, dtype=torch.float32).reshape(-1, 1, 1, 1, 1)
    underfocus = torch.as_tensor(defocus, dtype=torch.float32).reshape(-1, 1, 1, 1, 1)
    k = radius_grid(size)
    return contrast_transfer(k / (size * edge), underfocus) * torch.exp(-(2 * k / size / envelope).square())


def missing_wedge(size: int, angle: float = 30.0) -> torch.Tensor:
    """Measured frequencies ``(D, H, W // 2 + 1)`` for tilts about y: 1 where a tilt of up to ``90 - angle`` degrees reaches.

    A frequency is lost when it lies within ``angle`` degrees of the beam axis z, seen along y. The inscribed sphere bounds
    the rest.
    """
    kz, _, kx = frequencies(size)
    reached = kx.abs() >= kz.abs() * torch.tan(torch.deg2rad(torch.tensor(angle)))
    return (reached & (radius_grid(size) <= size / 2)).float()


def critical_exposure(k: torch.Tensor) -> torch.Tensor:
    """Electrons per Å² that leave 1/e of the signal's power at frequency ``k``, any shape, in 1/Å (Grant, Grigorieff 2015)."""
    return 0.245 * k.clamp_min(1e-6) ** -1.665 + 2.81
