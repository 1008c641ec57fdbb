import collections
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxuda.data.subtomograms import SubtomogramFolder, load_domain
from voxuda.denoising import noise
from voxuda.errors import InputError
from voxuda.signal import optics, tilts
from voxuda.signal.normalise import zscore
from voxuda.signal.resize import fourier_resize
from voxuda.simulation import microscope, molecules, specimen, tilt_series
from voxuda.simulation.samples import from_simulation, save_samples
from voxuda.simulation.specimen import FIELD, PIXEL_SIZE, build_specimen

TARGETS = [molecules.load(name) for name in molecules.IN_CELLS]

SERIES = microscope.Series(
    angles=tilts.tilt_angles(-60, 60),
    dose=100.0,
    defocus=40e3,
    astigmatism=0.0,
    astigmatism_angle=0.0,
    thickness=1000.0,
    offset=0.0,
    misalignment=0.0,
    weighting="ramp",
)


def test_interaction_constant_at_300_kilovolt():
    assert microscope.interaction_constant(300.0) == pytest.approx(6.526e-4, rel=1e-3)  # rad / (V Å), as tabulated


def test_protein_exceeds_ice_by_the_potential_of_its_atoms():
    """Electron scattering factors at angle 0 in Å, Peng et al. 1996, and the average residue of proteins."""
    factor = {"H": 0.529, "C": 2.509, "N": 2.211, "O": 1.983, "S": 5.161}
    residue = {"C": 4.9384, "H": 7.7583, "N": 1.3577, "O": 1.4773, "S": 0.0417}
    per_dalton = sum(factor[e] * n for e, n in residue.items()) / 111.1254
    protein = 47.878 * per_dalton * specimen.PROTEIN_DENSITY / 1000
    molecules_of_ice = 0.93 / 18.015 * 0.60221  # per Å³
    ice = 47.878 * (factor["O"] + 2 * factor["H"]) * molecules_of_ice
    assert ice == pytest.approx(4.53, abs=0.02)
    assert protein - ice == pytest.approx(specimen.PROTEIN_POTENTIAL, abs=0.03)


def test_signal_fades_with_the_order_of_recording():
    kept = microscope.exposure_filter(SERIES, (32, 32))
    assert (kept[0] == 1).all() and (kept[1:, 3, 3] < kept[:-1, 3, 3]).all()
    k = 3 / (32 * PIXEL_SIZE)
    spent = 100.0 * 40 / 41
    expected = math.exp(-spent / (2 * optics.critical_exposure(torch.tensor(k)).item()))
    assert kept[40, 0, 3] == pytest.approx(expected, rel=1e-4)


def test_contrast_transfer_is_the_textbook_formula():
    shape = (64, 64)
    ours = microscope._contrast_transfer(torch.tensor([30e3]), SERIES, shape)[0]
    k = microscope._frequency(shape).double()
    wave = 0.0196875  # Å
    phase = math.pi * wave * 30e3 * k**2 - math.pi / 2 * 2.7e7 * wave**3 * k**4 + math.asin(0.07)
    torch.testing.assert_close(ours.double(), torch.sin(phase), rtol=0, atol=2e-3)


def test_counts_of_empty_ice():
    """Mean by Beer-Lambert, variance by Poisson and the detector's transfer."""
    empty = torch.zeros(40, FIELD, FIELD)
    counts = microscope.record(empty, SERIES, torch.Generator().manual_seed(0))
    for t in (0, 40):
        path = 1000.0 / math.cos(math.radians(SERIES.angles[t]))
        expected = 0.6 * 100.0 / 41 * PIXEL_SIZE**2 * math.exp(-path / 3950)
        assert counts[t].mean() == pytest.approx(expected, rel=0.005)
        ky, kx = np.fft.fftfreq(FIELD), np.fft.fftfreq(counts.shape[2])
        # Ours is a third of the detector's resolution: at our Nyquist frequency its transfer is 0.4 to the power 1/9.
        transfer = 0.4 ** ((ky[:, None] ** 2 + kx**2) / 0.25 / 9)
        assert counts[t].var() == pytest.approx(expected * (transfer**2).mean(), rel=0.05)


def point_image(series, x, defocus=None):
    """Image of one voxel at ``x``, and what it would be with one defocus everywhere."""
    point = torch.zeros(20, FIELD, FIELD)
    point[10, FIELD // 2, x] = 1.0
    seen = microscope.ideal_images(point, series)[0]
    phase = microscope.interaction_constant(300.0) * PIXEL_SIZE * specimen.PROTEIN_POTENTIAL / specimen.PROTEIN_DENSITY
    projected = torch.fft.rfft2(tilts.project(point[None], series.angles)[0, 0] * phase)

    def error(defocus):
        transfer = microscope._contrast_transfer(torch.tensor([defocus]), series, tuple(seen.shape))[0]
        flat = torch.fft.irfft2(-2 * transfer * projected, s=seen.shape)
        u = round((x - FIELD // 2) * math.cos(math.radians(series.angles[0]))) + seen.shape[1] // 2
        window = slice(FIELD // 2 - 8, FIELD // 2 + 8), slice(u - 8, u + 8)
        return float((seen - flat)[window].norm() / seen[window].norm())

    return error


def test_a_field_off_the_axis_is_seen_at_another_defocus():
    """A field 20,000 Å from the axis rises by sin 45° of it."""
    series = dataclasses.replace(SERIES, angles=torch.tensor([45.0]), offset=20e3)
    error = point_image(series, FIELD // 2)
    right, wrong = error(40e3 - 20e3 * math.sin(math.pi / 4)), error(40e3 + 20e3 * math.sin(math.pi / 4))
    assert right < 0.05 < 0.3 < wrong and error(20e3) > 0.1


@pytest.mark.parametrize("angle", [60.0, -60.0])
def test_defocus_changes_across_the_image(angle):
    """A point at x rises by x sin θ."""
    series = dataclasses.replace(SERIES, angles=torch.tensor([angle]), defocus=20e3)
    rise = (84 - FIELD // 2) * PIXEL_SIZE * math.sin(math.radians(angle))
    error = point_image(series, 84)
    assert error(20e3 - rise) < 0.02 < 0.05 < error(20e3 + rise)


def test_ice_full_of_protein_is_no_darker_with_a_phase_plate():
    """A phase that is the same everywhere is that of the undiffracted beam, too."""
    series = dataclasses.replace(SERIES, angles=torch.tensor([0.0]), defocus=5e3, phase_shift=90.0)
    made = build_specimen([TARGETS[0]], [molecules.load("2cg9")], 1000.0, 140, torch.Generator().manual_seed(0))
    contrast, fuller = (microscope.ideal_images(made.density + more, series) for more in (0.0, 300.0))
    assert contrast.mean().abs() < 1e-3 and contrast.std() > 0.1
    torch.testing.assert_close(fuller, contrast, rtol=0, atol=2e-3)


def test_misaligned_images_are_shifted_by_the_deviation_asked_for():
    """The same specimen and electrons, still and shifted: phase correlation finds where the images went."""
    made = build_specimen([TARGETS[0]], [molecules.load("2cg9")], 1000.0, 140, torch.Generator().manual_seed(0))
    series = dataclasses.replace(SERIES, dose=1000.0, misalignment=3.0)
    still, moved = (
        microscope.record(made.density, s, torch.Generator().manual_seed(1))
        for s in (dataclasses.replace(series, misalignment=0.0), series)
    )
    cross = torch.fft.irfft2(torch.fft.rfft2(moved).conj() * torch.fft.rfft2(still), s=still.shape[1:])
    peak = cross.flatten(1).argmax(1)
    height, width = still.shape[1:]
    shifts = torch.stack(
        [(peak // width + height // 2) % height - height // 2, (peak % width + width // 2) % width - width // 2]
    )
    assert shifts.float().square().mean().sqrt() == pytest.approx(3.0, rel=0.25)


def test_the_tomogram_shows_the_specimen_protein_bright_and_not_its_mirror_image():
    generator = torch.Generator().manual_seed(0)
    made = build_specimen([TARGETS[0]] * 3, [molecules.load("2cg9")], 1000.0, 140, generator)
    series = dataclasses.replace(SERIES, astigmatism=500.0, astigmatism_angle=30.0, offset=1000.0)
    images = microscope.record(made.density, series, generator)
    assert images.min() >= -50 and images.mean() > 100
    tomogram = microscope.reconstruct(images, series, 140)
    centres = made.centres.round().long()
    seen = tilt_series.cut(tomogram, centres, 36)
    true = tilt_series.truth(made, centres, 36, PIXEL_SIZE)

    def agreement(volumes):
        return np.corrcoef(volumes.flatten(), true.flatten())[0, 1]

    mirrored = max(agreement(seen.flip(axis)) for axis in (2, 3, 4))
    assert agreement(seen) > 0.2 and agreement(seen) > mirrored + 0.1, f"{agreement(seen):.2f}, mirrored {mirrored:.2f}"
    assert agreement(tilt_series.cut(microscope.reconstruct(images, series, 140, correct=False), centres, 36)) < agreement(seen)


@given(st.integers(1, 2000), st.lists(st.integers(1, 900), min_size=1, max_size=5))
def test_counts_of_classes_add_up_and_are_near_their_share(total, proportions):
    counts = tilt_series.class_counts(total, proportions)
    assert sum(counts) == total
    assert all(abs(c - total * p / sum(proportions)) < 1 for c, p in zip(counts, proportions, strict=True))


def test_the_papers_proportions():
    assert tilt_series.class_counts(1033, tilt_series.PROPORTIONS) == [901, 66, 66]


@pytest.fixture(scope="module")
def samples():
    return tilt_series.simulate_tilt_series(TARGETS, n=14, proportions=(2, 1, 1), seed=5)


def test_samples_of_the_recipe(samples):
    assert samples.volumes.shape == (14, 1, 32, 32, 32) and torch.isfinite(samples.volumes).all()
    assert collections.Counter(row["molecule"] for row in samples.table) == {"6qzp": 7, "4cr2": 4, "4v94": 3}
    assert torch.equal(samples.masks, samples.densities > 300)
    assert len({row["dose"] for row in samples.table}) == len({row["specimen"] for row in samples.table}) >= 3
    # The molecule is where its mask is, in every sample taken together: brighter inside than outside.
    bright = zscore(samples.volumes)
    inside = (bright * samples.masks).sum((1, 2, 3, 4)) / samples.masks.sum((1, 2, 3, 4))
    assert (inside > 0).float().mean() > 0.9 and inside.mean() > 0.5
    assert noise.noise_level(bright) > 0.2, "nothing for the noise generation module to measure"


def test_no_specimen_is_in_both_parts_of_a_split(samples):
    """Crops of one specimen overlap, so training on one would be training on part of the other."""
    domain = from_simulation(samples)
    train, test = domain.split(0.6, seed=0)
    assert set(train.groups).isdisjoint(test.groups) and len(train) + len(test) == len(samples.table)
    assert set(train.groups) | set(test.groups) == {str(row["specimen"]) for row in samples.table}


def test_specimens_survive_the_disk(samples, tmp_path):
    groups = from_simulation(samples).groups
    assert load_domain(save_samples(samples, tmp_path / "target")).groups == groups
    converted = SubtomogramFolder(tmp_path / "target", size=24).save(tmp_path / "converted")
    assert load_domain(converted).groups == groups


def test_same_seed_same_samples(samples):
    again = tilt_series.simulate_tilt_series(TARGETS, n=14, proportions=(2, 1, 1), seed=5)
    assert torch.equal(samples.volumes, again.volumes) and samples.table == again.table
    other = tilt_series.simulate_tilt_series(TARGETS[:1], n=2, seed=6, size=16)
    assert other.volumes.shape == (2, 1, 16, 16, 16)


@pytest.mark.parametrize("size", [16, 24, 32, 40, 48, 56, 64])
def test_the_middle_voxel_stays_in_the_middle_when_rescaled(size):
    box = 2 * round(tilt_series.BOX / 32 * size / 2)
    axis = torch.arange(box) - box // 2
    blob = torch.exp(-(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / 18.0)
    small = fourier_resize(blob[None, None], (size, size, size))[0, 0]
    centre = (small.sum((1, 2)) * torch.arange(size)).sum() / small.sum()
    assert centre == pytest.approx(size // 2, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(n=0), "at least 1"),
        (dict(size=20), "multiple of 8"),
        (dict(proportions=(1, 2)), "one positive number per molecule"),
        (dict(proportions=(1, 1, float("inf"))), "one positive number per molecule"),
        (dict(dose=(100.0, 10.0)), "the lower first"),
        (dict(dose=(1e-6, 10.0)), "dose is 1e-06"),
        (dict(thickness=(0.0, 10.0)), "between 600 and 5000"),
        (dict(defocus=(float("nan"), 1e4)), "defocus is nan"),
    ],
)
def test_values_that_no_microscope_has(changes, message):
    with pytest.raises(InputError, match=message):
        tilt_series.simulate_tilt_series(TARGETS, **changes)
