import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from voxuda.training.signs import SAMPLES, mirror_dice, read_signs


class Threshold(nn.Module):
    """Takes the brighter voxels for foreground; with a ``slope`` more of them towards one end of the last axis."""

    def __init__(self, level=0.0, slope=0.0, steep=50.0):
        super().__init__()
        self.level, self.slope, self.steep = nn.Parameter(torch.tensor(level)), slope, steep

    def forward(self, x):
        score = self.steep * (x + self.slope * torch.linspace(-1, 1, x.shape[-1]) - self.level)
        return torch.cat([torch.zeros_like(score), score], 1)


@settings(max_examples=20)
@given(st.integers(0, 999), st.floats(-2, 2))
def test_what_mirrors_with_the_sample_agrees_fully(seed, level):
    volumes = torch.randn(3, 1, 6, 7, 8, generator=torch.Generator().manual_seed(seed))
    found = read_signs(Threshold(level), volumes, 0.1)
    assert found.agreement == 1 and 0 <= found.entropy <= 1
    assert found.foreground_share == {"predicted": pytest.approx(float((volumes > level).float().mean())), "source": 0.1}


def test_one_axis_of_three_disagrees():
    found = read_signs(Threshold(slope=1.0), torch.zeros(2, 1, 4, 4, 4), 0.1)
    assert found.agreement == pytest.approx(2 / 3), "a half of the box, whose mirror image turned back is the other half"
    assert found.foreground_share["predicted"] == 0.5


def test_nothing_found_is_no_agreement():
    assert read_signs(Threshold(9.0), torch.zeros(2, 1, 4, 4, 4), 0.1).agreement == 0
    some, none = torch.ones(1, 2, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    assert [mirror_dice(*pair).item() for pair in ((some, some), (some, none), (none, none))] == [1, 0, 0]


def test_entropy_in_bits(generator):
    volumes = torch.randn(2, 1, 4, 4, 4, generator=generator)
    assert read_signs(Threshold(steep=0.0), volumes, 0.1).entropy == pytest.approx(1)
    p = Threshold(steep=1.0)(volumes).softmax(1).detach()
    wanted = float(-(p * p.log2()).sum(1).mean())
    assert read_signs(Threshold(steep=1.0), volumes, 0.1).entropy == pytest.approx(wanted, rel=1e-5)
    assert read_signs(Threshold(steep=1e6), volumes, 0.1).entropy == pytest.approx(0, abs=1e-6), "0 log 0 is 0"


def test_few_samples_are_looked_at(generator):
    volumes = torch.zeros(SAMPLES + 5, 1, 2, 2, 2)
    seen = []
    network = Threshold()
    network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    read_signs(network, volumes, 0.1)
    assert sum(seen) == 4 * SAMPLES
