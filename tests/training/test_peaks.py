import numpy as np
import pytest

from voxuda.training.peaks import find_peaks


def ball(shape, centre, radius):
    grid = np.stack(np.indices(shape), -1)
    return (((grid - centre) ** 2).sum(-1) <= radius**2).astype(np.float32)


def search(volume, diameter, least=0.5, sections=32):
    return find_peaks(lambda start, stop: volume[start:stop], len(volume), diameter, least, sections=sections)


def test_a_ball_scores_one_and_a_ball_of_half_the_probability_half():
    centre = (40, 41, 42)
    peaks = search(ball((80, 80, 80), centre, 15), 30, 0.2)
    assert peaks.centres.tolist() == [[*centre]] and peaks.scores[0] == pytest.approx(1, abs=0.01)
    assert search(ball((80, 80, 80), centre, 15) / 2, 30, 0.2).scores[0] == pytest.approx(0.5, abs=0.01)


def test_touching_balls_are_two_particles_the_stronger_first():
    pair = 0.8 * ball((40, 60, 40), (20, 20, 20), 8) + ball((40, 60, 40), (20, 37, 20), 8)
    assert search(pair, 16, 0.4).centres.round().tolist() == [[20, 37, 20], [20, 20, 20]]


def test_size_position_and_value_decide_a_score():
    ground = np.full((60, 60, 60), 0.7, np.float32)  # sure of everything: no particle inside
    inside = [c for c in search(ground, 16).centres if ((c > 20) & (c < 40)).all()]
    assert not inside
    small, large = (search(ball((60, 60, 60), (30, 30, 30), r), 16, 0.1).scores.max(initial=0) for r in (4, 16))
    assert small < 0.5 and large < 0.5  # of other sizes than asked for
    assert len(search(np.zeros((20, 20, 20), np.float32), 16).centres) == 0


@pytest.mark.parametrize("sections", [1, 7, 64])
def test_pieces_do_not_matter(sections):
    volume = np.random.default_rng(0).random((50, 30, 40)).astype(np.float32)
    whole, found = search(volume, 8, 0.01, 1000), search(volume, 8, 0.01, sections)
    assert len(whole.scores) > 20
    np.testing.assert_array_equal(whole.centres, found.centres)
    np.testing.assert_array_equal(whole.scores, found.scores)
