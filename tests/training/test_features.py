import numpy as np
import pytest
import torch

from voxuda.networks.voxresnet import VoxResNet
from voxuda.training import features, loop


def test_separability_of_alike_and_of_different(generator):
    a, b = torch.randn(2, 200, 4, generator=generator).numpy()
    assert features.separability(a, b) == pytest.approx(0.5, abs=0.1)
    assert features.separability(a, b + np.array([3, 0, 0, 0])) > 0.9
    assert features.separability(a, np.concatenate([b, b, b])) == pytest.approx(0.5, abs=0.1), "the larger set is thinned"


def test_features_are_means_of_the_deepest_tap(generator):
    torch.manual_seed(0)
    network, volumes = VoxResNet(2).eval(), torch.randn(20, 1, 16, 16, 16, generator=generator)
    with torch.no_grad():
        expected = network.features(volumes)["v6"].mean((2, 3, 4))
    torch.testing.assert_close(features.deep_features(network, volumes), expected)


def test_a_map_of_a_run(tiny, tmp_path):
    loop.train(tiny(), tmp_path / "run", progress=False)
    found = features.embed(tmp_path / "run")
    assert found["domain"].count("source") == 8 and found["domain"].count("target") == 4
    assert np.array(found["points"]).shape == (12, 2) and np.isfinite(found["points"]).all()
    assert found == features.embed(tmp_path / "run"), "the same seed, the same map"
