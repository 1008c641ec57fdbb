import numpy as np
import pytest

from voxuda.training.peaks import find_peaks


def ball(shape, centre, radius):
    """Ones inside, zeros outside, and a rim of one voxel between, so that a centre may lie between voxels."""
    distance = np.sqrt(((np.stack(np.indices(shape), -1) - centre) ** 2).sum(-1))
    return np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)


def search(volume, diameter, least=0.5, sections=32):
    return find_peaks(lambda start, stop: volume[start:stop], len(volume), diameter, least, sections=sections)


@pytest.mark.parametrize("diameter", [12, 30, 64])  # the larger two on averages over 2 and 6 voxels
def test_a_ball_scores_one_and_a_ball_of_half_the_probability_half(diameter):
    side = 3 * diameter
    centre = np.array([side / 2 + 0.3, side / 2, side / 2 - 0.4])
    whole = ball((side, side + 1, side + 2), centre, diameter / 2)
    for factor in (1, 0.5):
        peaks = search(factor * whole, diameter, 0.2)
        assert len(peaks.scores) == 1 and peaks.scores[0] == pytest.approx(factor, abs=0.03)
        np.testing.assert_allclose(peaks.centres[0], centre, atol=0.3)


def test_touching_balls_are_two_particles_the_stronger_first():
    pair = 0.8 * ball((40, 60, 40), (20, 20, 20), 8) + ball((40, 60, 40), (20, 37, 20), 8)
    np.testing.assert_allclose(search(pair, 16, 0.4).centres, [[20, 37, 20], [20, 20, 20]], atol=1)


def test_one_ball_between_voxels_is_one_particle():
    grid = np.stack(np.indices((32, 32, 32)), -1)
    exact = (((grid - 15.5) ** 2).sum(-1) <= 36).astype(np.float32)  # eight equal maxima
    peaks = search(exact, 12)
    assert len(peaks.scores) == 1 and np.abs(peaks.centres[0] - 15.5).max() <= 0.5


def test_peaks_nearer_than_a_radius_are_one():
    near = ball((40, 40, 40), (20, 17, 20), 2) + 0.9 * ball((40, 40, 40), (20, 23, 20), 2)
    assert len(search(near, 8, 0.1).scores) == 2  # apart by more than 4 voxels
    assert len(search(near, 16, 0.01).scores) == 1
    centres = search(np.random.default_rng(1).random((50, 50, 50)).astype(np.float32), 8, 0.0).centres
    apart = np.abs(centres[:, None] - centres).max(2)[~np.eye(len(centres), dtype=bool)]
    assert len(centres) > 50 and apart.min() >= 4


def test_size_and_surroundings_decide_a_score():
    ground = np.full((60, 60, 60), 0.7, np.float32)  # sure of everything: no particle inside
    assert not [c for c in search(ground, 16).centres if ((c > 20) & (c < 40)).all()]
    small, large = (search(ball((60, 60, 60), (30, 30, 30), r), 16, 0.1).scores.max(initial=0) for r in (4, 16))
    assert small < 0.5 and large < 0.5  # of other sizes than asked for
    assert len(search(np.zeros((20, 20, 20), np.float32), 16).centres) == 0


def test_outside_the_volume_the_probability_is_zero():
    """Half a ball at the face scores as half a ball in the middle."""
    half = ball((60, 40, 40), (30, 20, 20), 8)
    half[:30] = 0
    whole, cut = search(half, 16, 0.05), search(half[30:], 16, 0.05)
    assert cut.scores[0] == pytest.approx(whole.scores[0], abs=0.01)


@pytest.mark.parametrize("sections", [1, 7, 64])
@pytest.mark.parametrize("diameter", [8, 24])
def test_pieces_do_not_matter(sections, diameter):
    volume = np.random.default_rng(0).random((50, 30, 40)).astype(np.float32)
    whole, found = search(volume, diameter, 0.01, 1000), search(volume, diameter, 0.01, sections)
    assert len(whole.scores) > (20 if diameter == 8 else 2)
    np.testing.assert_allclose(whole.centres, found.centres, atol=1e-9)
    np.testing.assert_array_equal(whole.scores, found.scores)
