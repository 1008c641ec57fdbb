import pytest
import torch

from voxuda.signal.resize import linear_weights


@pytest.mark.parametrize(("old", "new"), [(30, 30), (30, 12), (12, 30), (31, 7), (5, 1)])
def test_linear_weights_keep_constants_and_ramps(old, new):
    weights = linear_weights(old, new)
    torch.testing.assert_close(weights.sum(1), torch.ones(new))
    assert (weights >= 0).all() and (new >= old or (weights.sum(0) > 0).all()), "a voxel that no new one sees"
    ramp = (torch.arange(old) + 0.5) / old
    inner = slice(1, -1) if new > 2 else slice(0, 0)
    torch.testing.assert_close((weights @ ramp)[inner], ((torch.arange(new) + 0.5) / new)[inner], atol=5e-4, rtol=0)


def test_linear_weights_are_those_of_torch():
    image = torch.randn(1, 1, 20, 31, generator=torch.Generator().manual_seed(0))
    for shape in ((9, 50), (40, 12)):
        expected = torch.nn.functional.interpolate(image, shape, mode="bilinear", antialias=True, align_corners=False)
        ours = linear_weights(20, shape[0]) @ image[0, 0] @ linear_weights(31, shape[1]).T
        torch.testing.assert_close(ours, expected[0, 0], atol=1e-5, rtol=0)
