"""Rotate a map, and compare two maps."""

from __future__ import annotations

import torch


def place(volume: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Rotate a map ``(N, N, N)`` about its centre voxel ``N // 2``, with linear interpolation and 0 outside.

    The result is ``out(x) = volume(Rᵀ x)``. ``rotation`` is ``(3, 3)`` on x, y, z, for example that of a
    :class:`~voxuda.data.tilt_stacks.Particle`, which maps the reference to the specimen.
    """
    axis = torch.arange(len(volume)) - len(volume) // 2
    zyx = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).float()
    return sample(volume[None], zyx.flip(-1) @ rotation)[0]


def sample(channels: torch.Tensor, xyz: torch.Tensor) -> torch.Tensor:
    """Interpolate maps ``(C, N, N, N)`` at points ``(I, J, K, 3)``, and return ``(C, I, J, K)``.

    Points are x, y, z in voxels from voxel ``N // 2``.
    """
    n = channels.shape[-1]
    grid = (xyz + n // 2) / (n - 1) * 2 - 1
    return torch.nn.functional.grid_sample(channels[None].float(), grid[None], align_corners=True)[0]


def fourier_shell_correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    r"""Compute the Fourier shell correlation :math:`\mathrm{Re}\sum AB^*/\sqrt{\sum|A|^2\sum|B|^2}` over each shell.

    Parameters
    ----------
    first, second : Tensor
        ``(N, N, N)``.

    Returns
    -------
    Tensor
        ``(N // 2 - 1,)``, for the shells 1 to ``N // 2 - 1`` in cycles per box.
    """
    # torch-fourier-shell-correlation splits each frequency between two shells, which correlates neighbouring shells.
    size = len(first)
    k = torch.fft.fftfreq(size) * size
    shell = (k[:, None, None].square() + k[:, None].square() + k.square()).sqrt().round().long()
    a, b = torch.fft.fftn(first.double()), torch.fft.fftn(second.double())

    def total(product: torch.Tensor) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.float64).index_add_(0, shell.flatten(), product.flatten())[1 : size // 2]

    return (total((a * b.conj()).real) / (total(a.abs().square()) * total(b.abs().square())).sqrt()).float()
