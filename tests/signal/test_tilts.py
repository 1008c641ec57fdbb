import numpy as np
import pytest
import torch
import torch_fourier_slice
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxuda.errors import InputError
from voxuda.signal import fourier, optics, tilts


def blobs(size=48):
    """A smooth asymmetric phantom that fills the middle of a cube."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(size).float() - size // 2] * 3, indexing="ij"), -1)
    spots = torch.tensor([[0.0, 0, 0], [6, -2, 3], [-4, 5, 7], [3, 6, -8]])
    return sum(torch.exp(-(grid - spot).square().sum(-1) / 8) for spot in spots)


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def test_dose_symmetric_takes_the_two_sides_in_turn():
    assert tilts.tilt_angles(-60, 60, 3)[:5].tolist() == [0, 3, -3, 6, -6]
    assert len(tilts.tilt_angles(-60, 60, 3)) == 41


def test_bidirectional_from_the_middle_of_a_lamella():
    angles = tilts.tilt_angles(-50, 70, 3, "bidirectional")
    assert angles[:2].tolist() == [10, 13] and angles[21:23].tolist() == [7, 4]
    assert angles.min() == -50 and angles.max() == 70


@pytest.mark.parametrize("arguments", [(60, -60), (-60, 90), (-60, 60, 0)])
def test_a_range_that_is_none(arguments):
    with pytest.raises(InputError, match="rising range"):
        tilts.tilt_angles(*arguments)


def test_an_even_slab_is_thicker_when_tilted():
    """Closed form: every ray of an endless slab of depth d meets d / cos θ of it."""
    angles = torch.tensor([0.0, 30, -45, 60])
    seen = tilts.project(torch.ones(1, 20, 1, 24), angles)[0, :, 0]
    for row, angle in zip(seen, angles, strict=True):
        # Neighbouring pixels share the voxels unevenly where the grid is cut askew; three of them hold the mean.
        smooth = row[3:-3].unfold(0, 3, 1).mean(-1)
        torch.testing.assert_close(smooth.mean(), 20 / torch.deg2rad(angle).cos(), rtol=0.01, atol=0)
        assert smooth.std() < 0.1 * smooth.mean()


@pytest.mark.parametrize("angle", [-60.0, -20.0, 0.0, 45.0])
def test_projection_against_rotation_by_splines(angle):
    volume = blobs()
    ours = tilts.project(volume[None], torch.tensor([angle]))[0, 0]
    middle = ours.shape[1] // 2
    ours = ours[:, middle - 24 : middle + 24]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    matrix = np.array(
        [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    )  # from (w, y, u) on the tilted grid to (z, y, x): x = u cos θ - w sin θ
    turned = ndimage.affine_transform(volume.numpy(), matrix, offset=24 - matrix @ [24, 24, 24], order=3)
    # The plane repeats every 48 voxels, and at 60 degrees the copies come near; what the rotated cube lost does not.
    assert correlation(ours[:, 12:36], turned.sum(0)[:, 12:36]) > 0.995


def test_projection_against_torch_fourier_slice():
    volume = blobs()
    angles = torch.tensor([-40.0, 0.0, 25.0])
    ours = tilts.project(volume[None], angles)[0]
    middle = ours.shape[2] // 2
    matrices = torch.from_numpy(Rotation.from_euler("y", angles.numpy()[:, None], degrees=True).as_matrix()).float()
    theirs = torch_fourier_slice.project_3d_to_2d(volume, matrices.transpose(1, 2), zyx_matrices=False)
    for a, b in zip(ours[:, :, middle - 12 : middle + 12], theirs[:, :, 12:36], strict=True):
        assert correlation(a, b) > 0.995


def test_a_single_pixel_is_smeared_along_its_ray():
    angles = torch.tensor([30.0])
    images = torch.zeros(1, 1, 3, tilts.detector_width(32, 32, angles))
    images[0, 0, 1, images.shape[-1] // 2] = 1
    back = tilts.backproject(images, angles, 32, 32)[0]
    assert back[:, [0, 2]].abs().max() == 0
    z, x = back[:, 1].nonzero().T - 16
    # On the ray, x cos θ + z sin θ = 0, up to the width of a pixel.
    assert (x * np.cos(np.pi / 6) + z * np.sin(np.pi / 6)).abs().max() < 1
    torch.testing.assert_close(back[16, 1, 16], torch.tensor(1.0))


def test_back_projection_of_weighted_projections_is_the_volume_but_for_the_wedge():
    volume = blobs()
    angles = tilts.tilt_angles(-60, 60, 2)
    images = tilts.project(volume[None], angles)
    spectrum = torch.fft.rfft(images) * tilts.weighting(images.shape[-1])
    back = tilts.backproject(torch.fft.irfft(spectrum, n=images.shape[-1]), angles, 48, 48)[0]
    wedged = fourier.apply_filter(volume[None, None], optics.missing_wedge(48, 30.0))[0, 0]
    inside = slice(10, 38), slice(10, 38), slice(10, 38)
    assert correlation(back[inside], wedged[inside]) > 0.97 > correlation(back.flip(2)[inside], wedged[inside]) + 0.2


def test_sirt_weighting_is_that_of_gradient_descent():
    """N steps x += k1 (b - x / k) on one frequency, whose solution is b k."""
    pixels, steps = 64, 20
    k = torch.fft.rfftfreq(pixels)[1:]
    x = torch.zeros_like(k)
    for _ in range(steps):
        x = x + k[0] * (1 - x / k)
    torch.testing.assert_close(tilts.weighting(pixels, "sirt", steps)[1:], 2 * x)
    torch.testing.assert_close(tilts.weighting(pixels, "sirt", 100_000), tilts.weighting(pixels, "ramp"))


def test_images_of_another_width_are_refused():
    with pytest.raises(InputError, match="pixels wide"):
        tilts.backproject(torch.zeros(1, 1, 4, 10), torch.tensor([0.0]), 16, 16)
    with pytest.raises(InputError, match="weighting"):
        tilts.weighting(8, "hamming")
    with pytest.raises(InputError, match="tilt scheme"):
        tilts.tilt_angles(-60, 60, 3, "random")
