"""References on volumes whose best mask is known, and against a search that shares no code with theirs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from voxuda.data.domain import Domain
from voxuda.errors import InputError
from voxuda.experiments import references, tables
from voxuda.training.evaluation import iou_and_dice


def balls(centres, radius, deviation, generator, side=16):
    """Balls of brightness 1 in noise of brightness 0; the middle of a volume is 0."""
    axis = torch.arange(side) - side // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    masks = torch.stack([(grid - torch.tensor(c)[:, None, None, None]).square().sum(0) <= radius**2 for c in centres])[:, None]
    volumes = masks + deviation * torch.randn(masks.shape, generator=generator)
    return Domain(volumes, masks, ["ball"] * len(masks))


def score(name, source, test, generator):
    found = references.find(name, source, source, test, generator)
    return iou_and_dice(found.masks, test.masks[:, 0])[0], found.chosen


def test_blur_and_threshold_finds_a_bright_ball_anywhere(generator):
    source, test = (balls([(-2, 1, 0), (2, -2, 1), (0, 0, 2)], 5, 0.3, generator) for _ in range(2))
    iou, chosen = score("blur-threshold", source, test, generator)
    assert (iou > 0.9).all()
    assert abs(chosen["share"] - 515 / 16**3) < 0.01, "a ball of radius 5 has 515 voxels"
    iou, _ = score("otsu", source, test, generator)
    assert (iou > 0.9).all()


def test_a_ball_in_the_middle_has_the_radius_of_the_sources(generator):
    source = balls([(0, 0, 0)] * 3, 5, 9.0, generator)
    test = balls([(0, 0, 0), (16, 16, 16)], 5, 9.0, generator)
    iou, chosen = score("ball", source, test, generator)
    assert chosen == {"radius": 5.0} and iou.tolist() == [1, 0]


def test_what_is_chosen_is_what_a_search_voxel_by_voxel_chooses(generator):
    """Thresholds at the k-th brightest voxel, one volume and one setting at a time."""
    shape = (7, 1, 8, 6, 10)
    volumes = torch.randn(shape, generator=generator)
    source = Domain(volumes, volumes + torch.randn(shape, generator=generator) > 1.5, ["x"] * 7)

    def brightest(volume, sigma, share):
        blurred = ndimage.gaussian_filter(volume[0].numpy(), sigma)
        return blurred >= np.sort(blurred, axis=None)[-round(share * blurred.size)]

    def iou(sigma, share):
        pairs = [(brightest(v, sigma, share), m[0].numpy()) for v, m in zip(source.volumes, source.masks, strict=True)]
        return np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])

    table = [[iou(sigma, share) for share in references.SHARES] for sigma in references.SIGMAS]
    np.testing.assert_allclose(references.blur_scores(source), table, rtol=1e-12)
    i, j = np.unravel_index(np.argmax(table), np.shape(table))
    found = references.blur_threshold(source, source, volumes, generator)
    assert found.chosen == {"sigma": references.SIGMAS[i], "share": references.SHARES[j]}
    expected = [brightest(volume, *found.chosen.values()) for volume in volumes]
    np.testing.assert_array_equal(found.masks, expected)


@given(n=st.integers(2, 9), seed=st.integers(0, 2**32 - 1))
def test_the_mask_of_another_sample_is_never_its_own_and_each_is_given_once(n, seed):
    masks = torch.eye(n, dtype=torch.bool).reshape(n, 1, 1, 1, n)
    domain = Domain(torch.zeros(masks.shape), masks, ["x"] * n)
    given_to = references.find("other-mask", domain, domain, domain, torch.Generator().manual_seed(seed)).masks.reshape(n, n)
    assert not given_to.diagonal().any() and (given_to.sum(0) == 1).all() and (given_to.sum(1) == 1).all()


def test_of_one_sample_there_is_no_other(generator):
    mask = torch.ones(1, 1, 2, 2, 2, dtype=torch.bool)
    domain = Domain(torch.zeros(mask.shape), mask, ["x"])
    with pytest.raises(InputError, match="1 test sample; it needs at least 2"):
        references.find("other-mask", domain, domain, domain, generator)


@pytest.mark.parametrize("table", list(tables.TABLES))
def test_every_table_has_the_references_at_its_end(table):
    assert [row.method for row in tables.select(table)[-4:]] == list(references.REFERENCES)
    own = tables.TABLES[table][0]
    assert {row.source_set for row in tables.select(table)[-4:-1]} == {own.source_set}
