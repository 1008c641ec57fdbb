import pytest
import torch

from voxuda.networks.voxresnet import TAPS, PatchHead, VoxResNet, target_batch_norm


def test_voxresnet_sizes_as_published():
    network = VoxResNet(32)
    assert round(network.trunk_parameters() / 1e6, 3) == 1.635
    features = network.features(torch.zeros(1, 1, 32, 32, 32))
    shapes = {tap: tuple(features[tap].shape[1:]) for tap in TAPS}
    assert shapes == {"c": (32, 32, 32, 32), "v2": (64, 16, 16, 16), "v4": (64, 8, 8, 8), "v6": (64, 4, 4, 4)}
    assert network(torch.zeros(2, 1, 16, 24, 32)).shape == (2, 2, 16, 24, 32)


@pytest.mark.parametrize(("tap", "field"), [("c", 5), ("v2", 23)])
def test_receptive_field(tap, field):
    reached = torch.zeros(48, dtype=torch.bool)
    for seed in range(4):  # a ReLU may close the outermost paths of one network, not of all
        torch.manual_seed(seed)
        network = VoxResNet(4).double().eval()
        x = torch.randn(1, 1, 48, 48, 48, dtype=torch.float64, requires_grad=True)
        f = network.features(x)[tap]
        middle = f.shape[-1] // 2
        f[:, :, middle, middle, middle].sum().backward()
        reached |= x.grad[0, 0].abs().amax((1, 2)) > 0
    assert reached.sum() == field and reached.nonzero().max() - reached.nonzero().min() + 1 == field


@pytest.mark.parametrize("steps", [(2, 2, 2), (8, 8, 8), (1, 4, 4)])
def test_a_patch_head_is_a_transposed_convolution(steps, generator):
    head = PatchHead(6, 2, steps, stride=steps).double()
    x = torch.randn(3, 6, 2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    ours, theirs = head(x), torch.nn.functional.conv_transpose3d(x, head.weight, head.bias, stride=steps)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    wanted = torch.autograd.grad((theirs * weights).sum(), [x, *head.parameters()])
    for ours_of, theirs_of in zip(torch.autograd.grad((ours * weights).sum(), [x, *head.parameters()]), wanted, strict=True):
        torch.testing.assert_close(ours_of, theirs_of)


def test_target_statistics_do_not_depend_on_the_order_of_classes():
    torch.manual_seed(0)
    network = VoxResNet(2)
    two = torch.cat([torch.randn(16, 1, 16, 16, 16), 3 + 2 * torch.randn(17, 1, 16, 16, 16)])
    split = target_batch_norm(network, two, batch_size=11)
    whole = target_batch_norm(network, two, batch_size=33)
    for key in ("conv1b.0.running_mean", "conv1b.0.running_var"):
        torch.testing.assert_close(split[key], whole[key], rtol=0.1, atol=0.02)
    assert not torch.equal(split["conv1b.0.running_var"], whole["conv1b.0.running_var"])


def test_target_batch_norm_is_the_mean_of_the_target(generator):
    network = VoxResNet(2)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    x = 4 + torch.randn(8, 1, 16, 16, 16, generator=generator)
    statistics = target_batch_norm(network, x, batch_size=8)
    torch.testing.assert_close(statistics["conv1b.0.running_mean"], network.conv1a(x).mean((0, 2, 3, 4)), atol=1e-4, rtol=1e-3)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
