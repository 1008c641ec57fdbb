import numpy as np
import pytest
import torch

from voxuda.denoising import noise
from voxuda.errors import InputError


@pytest.mark.parametrize(("rho", "half"), list(zip(noise.PAPER_RATES, (7, 9, 10, 12), strict=True)))
def test_paper_rates_are_cubes(rho, half):
    assert noise.half_width(rho, 32) == half
    assert round((2 * half / 32) ** 3, 3) == rho


@pytest.mark.parametrize("rho", noise.PAPER_RATES)
@pytest.mark.parametrize("reading", ["cube_removed", "cube_kept"])
def test_highpass_against_numpy_full_spectrum(generator, rho, reading):
    x = torch.randn(32, 32, 32, generator=generator)
    r = noise.half_width(rho, 32)
    spectrum = np.fft.fftn(x.numpy().astype(np.float64))
    if reading == "cube_removed":
        spectrum = np.fft.fftshift(spectrum)
        spectrum[16 - r : 16 + r, 16 - r : 16 + r, 16 - r : 16 + r] = 0
        spectrum = np.fft.ifftshift(spectrum)
    else:
        kept = np.zeros_like(spectrum)
        corner = (slice(16 - r, 16 + r),) * 3
        kept[corner] = spectrum[corner]
        spectrum = kept
    expected = np.fft.ifftn(spectrum).real
    np.testing.assert_allclose(noise.highpass(x, rho, reading).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("reading", ["cube_removed", "cube_kept"])
@pytest.mark.parametrize("size", [16, 32])
def test_parseval_level_equals_the_measured_one(generator, reading, size):
    x = torch.randn(5, 1, size, size, size, generator=generator)
    measured = noise.highpass(x, 0.244, reading).var(dim=(1, 2, 3, 4), correction=0).mean().sqrt()
    torch.testing.assert_close(noise.noise_level(x, 0.244, reading), measured, rtol=1e-4, atol=1e-6)


def test_level_scales_and_ignores_the_mean(generator):
    x = torch.randn(4, 1, 16, 16, 16, generator=generator)
    torch.testing.assert_close(noise.noise_level(3 * x + 7), 3 * noise.noise_level(x), rtol=1e-4, atol=1e-5)


def test_the_two_averages_differ_by_root_n(generator):
    x = torch.randn(9, 1, 32, 32, 32, generator=generator)
    ratio = noise.noise_level(x) / noise.noise_level(x, average="volumes")
    assert ratio == pytest.approx(3.0, rel=0.02)


def test_generated_noise(generator):
    x = torch.randn(2, 1, 32, 32, 32, generator=generator)
    gaussian = noise.generate_noise(x, 0.7, generator)
    assert gaussian.std() == pytest.approx(0.7, rel=0.02) and abs(gaussian.mean()) < 0.02
    poisson = noise.generate_noise(x, 0.7, generator, "poisson")
    assert torch.equal(poisson, poisson.round()) and poisson.mean() == pytest.approx(0.7, rel=0.05)
    speckle = noise.generate_noise(torch.zeros_like(x), 0.7, generator, "speckle")
    assert speckle.abs().max() == 0
    with pytest.raises(InputError, match="not a kind of noise"):
        noise.generate_noise(x, 0.7, generator, "pink")


def test_denoising_and_noise_add_up(generator):
    x = torch.randn(2, 1, 16, 16, 16, generator=generator)
    torch.testing.assert_close(noise.ngm_denoise(x) + noise.highpass(x), x)


def test_bad_arguments(generator):
    x = torch.randn(2, 1, 16, 16, 16, generator=generator)
    with pytest.raises(InputError, match="rho"):
        noise.noise_level(x, 1.5)
    with pytest.raises(InputError, match="not a reading"):
        noise.highpass(x, 0.1, "sphere")
    with pytest.raises(InputError, match="not a way to average"):
        noise.noise_level(x, average="medians")
