"""The target by tilt series: samples a second, and its two heavy steps beside torch-fourier-slice on one cube."""

import torch
import torch_fourier_slice
from scipy.spatial.transform import Rotation

from voxuda.signal import tilts
from voxuda.simulation import molecules, tilt_series

ANGLES = tilts.tilt_angles(-60, 60)
SIDE = 96
VOLUME = torch.rand(SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
MATRICES = torch.from_numpy(Rotation.from_euler("y", ANGLES.numpy()[:, None], degrees=True).as_matrix()).float().transpose(1, 2)


def test_samples(against):
    targets = [molecules.load(name) for name in molecules.TARGET_MOLECULES]
    against("tilt-series-samples", "samples", 60, lambda: tilt_series.simulate_tilt_series(targets, n=60), rounds=3)


def test_matrices(against):
    """What the first specimen of each tilt range waits for."""

    def make():
        tilts._matrix.cache_clear()
        tilts.project(VOLUME[None], ANGLES)

    against("tilt-series-first-projection", "series of 41 tilts", 1, make)


def test_projection(against):
    against(
        "tilt-series-projection",
        "projections of 96³ voxels",
        len(ANGLES),
        lambda: tilts.project(VOLUME[None], ANGLES),
        lambda: torch_fourier_slice.project_3d_to_2d(VOLUME, MATRICES, zyx_matrices=False),
        "torch-fourier-slice project_3d_to_2d, of the cube alone; ours with copies beside it, its matrix made before",
    )


def test_back_projection(against):
    images = tilts.project(VOLUME[None], ANGLES)
    square = images[0, :, :, images.shape[3] // 2 - SIDE // 2 :][:, :, :SIDE].contiguous()
    weights = tilts.weighting(images.shape[3])

    def ours():
        spectrum = torch.fft.rfft(images) * weights
        return tilts.backproject(torch.fft.irfft(spectrum, n=images.shape[3]), ANGLES, SIDE, SIDE)

    against(
        "tilt-series-back-projection",
        "back-projections into 96³ voxels",
        len(ANGLES),
        ours,
        lambda: torch_fourier_slice.backproject_2d_to_3d(square, MATRICES, zyx_matrices=False),
        "torch-fourier-slice backproject_2d_to_3d; our matrix made before",
    )
