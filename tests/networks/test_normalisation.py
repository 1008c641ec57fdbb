import copy

import pytest
import torch
from torch import nn

from voxuda.errors import InputError
from voxuda.networks.normalisation import BatchRenorm3d, SliceGroupNorm, mixed_batch_norm
from voxuda.networks.teacher import Teacher
from voxuda.networks.voxresnet import VoxResNet, target_batch_norm


@pytest.fixture
def layer(generator):
    """A layer of batch renormalisation that has seen some batches, with a scale and an offset of its own."""
    made = BatchRenorm3d(3).double()
    made.running_mean.copy_(torch.tensor([0.3, -0.2, 0.1]))
    made.running_var.copy_(torch.tensor([1.5, 0.7, 1.1]))
    with torch.no_grad():
        made.weight.copy_(torch.tensor([2.0, 0.5, 1.0]))
        made.bias.copy_(torch.tensor([0.1, -1.0, 0.0]))
    return made.train()


@pytest.fixture
def x(generator):
    return (0.5 + 1.5 * torch.randn(4, 3, 4, 5, 6, generator=generator, dtype=torch.float64)).requires_grad_()


def channels(values):
    return values.reshape(1, -1, 1, 1, 1)


def test_batch_renorm_begins_as_batch_norm(x):
    ours, theirs = BatchRenorm3d(3).double().train(), nn.BatchNorm3d(3).double().train()
    for _ in range(3):
        assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_batch_renorm_that_is_not_clipped_is_its_own_evaluation(layer, x):
    layer.num_batches_tracked.fill_(BatchRenorm3d.R_WIDE)
    wanted = copy.deepcopy(layer).eval()(x)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-6, atol=1e-6)  # the batch's moments are in single precision


@pytest.mark.parametrize(("seen", "r_max", "d_max"), [(50, 1, 0), (150, 1 + 2 * 100 / 350, 2.5), (225, 2, 4.375), (999, 3, 5)])
def test_batch_renorm_is_the_papers_equation_and_no_gradient_flows_through_r_and_d(layer, x, seen, r_max, d_max):
    far = (30 * x.detach()).requires_grad_()  # so that r is clipped
    layer.num_batches_tracked.fill_(seen)
    mean, variance = far.mean((0, 2, 3, 4)), far.var((0, 2, 3, 4), correction=0)
    deviation, running = (variance + layer.eps).sqrt(), (layer.running_var + layer.eps).sqrt()
    r = (deviation / running).clamp(1 / r_max, r_max).detach()
    d = ((mean - layer.running_mean) / running).clamp(-d_max, d_max).detach()
    normalised = (far - channels(mean)) / channels(deviation) * channels(r) + channels(d)
    wanted = channels(layer.weight) * normalised + channels(layer.bias)
    moved = 0.9 * layer.running_mean + 0.1 * mean.detach()
    found = layer(far)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.running_mean, moved)
    assert layer.num_batches_tracked == seen + 1
    weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).reshape(found.shape) ** 3
    ours, theirs = (torch.autograd.grad((y * weights).sum(), [far, layer.weight, layer.bias]) for y in (found, wanted))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_target_statistics_of_renormalised_networks_are_those_of_batch_norm(generator):
    torch.manual_seed(0)
    batch, renorm = VoxResNet(2), VoxResNet(2, normalisation="renorm")
    renorm.load_state_dict(batch.state_dict())
    renorm.conv1b[0].num_batches_tracked.fill_(999)
    volumes = 3 + torch.randn(5, 1, 16, 16, 16, generator=generator)
    ours, theirs = (target_batch_norm(network, volumes, batch_size=2) for network in (renorm, batch))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_a_teacher_uses_the_statistics_of_its_batch(generator):
    torch.manual_seed(0)
    networks = [VoxResNet(2), VoxResNet(2, normalisation="renorm")]
    networks[1].load_state_dict(networks[0].state_dict())
    for network in networks:
        network.conv1b[0].num_batches_tracked.fill_(999)
    volumes = 3 + torch.randn(5, 1, 16, 16, 16, generator=generator)
    assert torch.equal(*(Teacher(network).foreground(volumes) for network in networks))


def test_group_norm_knows_no_batch_and_has_nothing_to_measure(generator):
    network = VoxResNet(4, normalisation="group").train()
    volumes = torch.randn(3, 1, 16, 16, 16, generator=generator)
    together = network(volumes)
    for trained in (True, False):
        alone = torch.cat([network.train(trained)(volume[None]) for volume in volumes])
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    assert target_batch_norm(network, volumes) == {}
    with pytest.raises(InputError, match="width is 6; group norm has 4 groups"):
        VoxResNet(6, normalisation="group")


def test_slices_are_normalised_one_by_one(generator):
    layer, x = SliceGroupNorm(4, 8), torch.randn(2, 8, 3, 5, 6, generator=generator)
    wanted = torch.stack([nn.functional.group_norm(x[:, :, z], 4) for z in range(3)], 2)
    torch.testing.assert_close(layer(x), wanted)


def test_mixed_statistics_are_those_of_both_populations_together(generator):
    samples = [scale * torch.randn(500, 3, generator=generator) + shift for scale, shift in ((1.0, 0.0), (3.0, 2.0))]
    one, other = ({"a.running_mean": x.mean(0), "a.running_var": x.var(0, correction=0)} for x in samples)
    mixed, pooled = mixed_batch_norm({**one, "a.weight": torch.ones(3)}, other), torch.cat(samples)
    torch.testing.assert_close(mixed, {"a.running_mean": pooled.mean(0), "a.running_var": pooled.var(0, correction=0)})
    assert mixed_batch_norm(one, {}) == {}
