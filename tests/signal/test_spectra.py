import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxuda.signal import spectra as style


def phases_agree(a, b, axes=style.AXES):
    spectra = [torch.fft.rfftn(v.double(), dim=axes) for v in (a, b)]
    strong = (spectra[0].abs() > 1e-3) & (spectra[1].abs() > 1e-3)
    turn = (spectra[0] * spectra[1].conj()).angle()[strong]
    return turn.abs().max() < 1e-3


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.sampled_from([7, 8]), st.booleans(), st.integers(0, 99))
def test_swap_takes_low_amplitudes_and_leaves_every_phase(band, size, planar, seed):
    generator = torch.Generator().manual_seed(seed)
    content, other = torch.randn(2, 3, 1, size, size, size, generator=generator).double()
    swapped = style.swap_amplitude(content, other, band, planar=planar)
    axes = (-2, -1) if planar else (-3, -2, -1)
    k = (torch.fft.fftfreq(size) * size).abs() < band
    low = k[:, None] & k if planar else k[:, None, None] & k[:, None] & k
    mine, theirs, found = (torch.fft.fftn(v, dim=axes) for v in (content, other, swapped))
    torch.testing.assert_close(found.abs(), torch.where(low, theirs.abs(), mine.abs()), rtol=1e-9, atol=1e-9)
    assert phases_agree(content, swapped, axes)


def test_a_band_of_one_swaps_only_the_mean(generator):
    content, other = 3 + torch.randn(2, 2, 1, 8, 8, 8, generator=generator)
    swapped = style.swap_amplitude(content, other, 1)
    offset = other.mean((2, 3, 4), keepdim=True).abs() - content.mean((2, 3, 4), keepdim=True)
    torch.testing.assert_close(swapped, content + offset)


def test_slices_are_swapped_alone(generator):
    content, other = torch.randn(2, 1, 1, 6, 8, 8, generator=generator)
    changed = content.clone()
    changed[:, :, 2] += 1
    a, b = (style.swap_amplitude(c, other, 2, planar=True) for c in (content, changed))
    assert ((a - b).abs().amax((0, 1, 3, 4)) > 1e-3).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("size", [8, 9])
def test_matched_volumes_have_the_wanted_power_and_their_own_phases(size, generator):
    ours = torch.randn(3, 1, size, size, size, generator=generator)
    theirs = torch.randn(5, 1, size, size, size, generator=generator)
    theirs = 1.5 * theirs + 0.5 * theirs.roll(1, -1)
    power, wanted = style.radial_power(ours), style.radial_power(theirs)
    matched = style.match_power(ours, power, wanted)
    torch.testing.assert_close(style.radial_power(matched)[1:], wanted[1:], rtol=1e-3, atol=0)
    assert phases_agree(ours, matched)
    torch.testing.assert_close(style.match_power(ours, power, power), ours, rtol=0, atol=1e-5)


def test_noise_makes_up_what_cannot_be_amplified(generator):
    """A low-passed volume in the look of a white one: where it has nothing, only noise can give it power."""
    white = torch.randn(20, 1, 16, 16, 16, generator=generator)
    radius = style.shells(16, torch.device("cpu"))
    half = torch.fft.rfftn(torch.randn(20, 1, 16, 16, 16, generator=generator), dim=style.AXES)
    blurred = torch.fft.irfftn(half * (radius < 4), s=(16, 16, 16), dim=style.AXES)
    power, wanted = style.radial_power(blurred), torch.full((int(radius.max()) + 1,), 16.0**3)
    found = style.radial_power(style.match_power(blurred, power, wanted, white))
    torch.testing.assert_close(found[1:-1], wanted[1:-1], rtol=0.15, atol=0)  # the last shell is one frequency
    bare = style.radial_power(style.match_power(blurred, power, wanted))
    torch.testing.assert_close(bare[1:4], wanted[1:4], rtol=0.01, atol=0)
    assert bare[4:].max() < 1e-6


@pytest.mark.parametrize("size", range(2, 66))
def test_the_last_shell_is_known_from_the_size(size):
    assert style.last_shell(size) == style.shells(size, torch.device("cpu")).max()


def test_radial_power_of_one_wave():
    """Closed form: a cosine of 3 cycles has its power, (n³ / 2)² in two places, in shell 3."""
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(8) / 8).expand(1, 1, 8, 8, 8).contiguous()
    power = style.radial_power(wave)
    counts = torch.bincount(style.shells(8, torch.device("cpu")).flatten())
    assert power[3] * counts[3] == pytest.approx(256.0**2)  # the half spectrum holds one of the two
    assert power.sum() == pytest.approx(power[3].item())
