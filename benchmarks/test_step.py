"""A training step beside its network passes alone and beside the default layout, and the network beside MONAI's.

In float32, and in bfloat16 where the processor multiplies it.
"""

import copy

import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity, cross_entropy

from voxuda.denoising.noise import highpass, noise_level
from voxuda.methods import Batch, build
from voxuda.networks.discriminators import Discriminator, reverse_gradient
from voxuda.networks.voxresnet import TAPS, VoxResNet

PAIRS = 8
IN_BFLOAT16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no instructions for bfloat16"
)


def batch(pairs=PAIRS, device="cpu"):
    generator = torch.Generator(device).manual_seed(0)
    volumes = torch.randn(2, pairs, 1, 32, 32, 32, generator=generator, device=device)
    labels = (torch.rand(pairs, 32, 32, 32, generator=generator, device=device) < 0.05).long()
    return Batch(volumes[0], labels, volumes[1], None, torch.arange(pairs, device=device), generator)


def bfloat16(enabled=True, device="cpu"):
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def training_step(width, layout, half=False, pairs=PAIRS, device="cpu", make=lambda width: build("vox-uda", width)):
    """A call that makes one whole step of Vox-UDA, warm-up over, as the training loop does; ``half`` in bfloat16."""
    torch.manual_seed(0)
    made = batch(pairs, device)
    method = make(width).to(device).to(memory_format=layout).train()
    method.prepare(made.target.repeat(2, 1, 1, 1, 1))
    optimizer = torch.optim.Adam((p for p in method.parameters() if p.requires_grad), lr=1e-3, fused=True)

    def step():
        with bfloat16(half, device):
            total = torch.stack(list(method.losses(made, 0.5).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        method.after_step()

    return step


def passes(width):
    """Only the four network passes of a step: three of the student, forward and backward, one of the teacher."""
    made = batch()
    student, teacher = (VoxResNet(width).to(memory_format=torch.channels_last_3d).train() for _ in range(2))

    def run():
        with torch.no_grad():
            teacher(made.target)
        logits = [student(volumes) for volumes in (made.source, made.source, made.target)]
        torch.stack([part.mean() for part in logits]).sum().backward()

    return run


def dice(foreground, truth):
    return 1 - (2 * (foreground * truth).sum() + 1) / (foreground.sum() + truth.sum() + 1)


def first_version(width):
    """The same step as one writes it first: torch's layers, losses and optimiser as they come, no layout or precision chosen.

    As in ours the teacher's input is filtered beforehand.
    """
    torch.manual_seed(0)
    made = batch()
    student, critic = VoxResNet(width).train(), Discriminator(2 * width)
    student.heads["c"] = nn.Conv3d(width, 2, 1)
    for tap, stride in (("v2", 2), ("v4", 4), ("v6", 8)):
        student.heads[tap] = nn.ConvTranspose3d(2 * width, 2, stride, stride=stride)
    teacher = copy.deepcopy(student)
    optimizer = torch.optim.Adam([*student.parameters(), *critic.parameters()], lr=1e-3)
    truth = (made.source_labels == 1).float()

    def supervised(volumes):
        features = student.features(volumes)
        logits = student.classify(features)
        return features, cross_entropy(logits, made.source_labels) + dice(logits.softmax(1)[:, 1], truth)

    def criticised(features, label):
        logit = critic(reverse_gradient(features["v6"], 1.0))
        return binary_cross_entropy_with_logits(logit, torch.full_like(logit, label)) / 2

    def step():
        sigma = highpass(made.target).std()
        clean, seg = supervised(made.source)
        noised, noised_seg = supervised(made.source + sigma * torch.randn_like(made.source))
        con = sum(0.25 * (1 - cosine_similarity(clean[tap], noised[tap], 1)).mean() for tap in TAPS)
        target = student.features(made.target)
        with torch.no_grad():
            sure, labels = teacher(made.target).softmax(1).max(1)
            labels[sure < 0.85] = -1
        logits = student.classify(target)
        counted = (labels >= 0).float()
        pseudo = cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / counted.sum().clamp_min(1)
        pseudo = pseudo + dice(logits.softmax(1)[:, 1] * counted, (labels == 1).float())
        total = (seg + noised_seg) / 2 + con + pseudo + criticised(clean, 0.0) + criticised(target, 1.0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.mul_(0.99).add_(theirs, alpha=0.01)

    return step


PEERS = {
    "first": (first_version, "the same step as one writes it first, in float32"),
    "layout": (lambda width: training_step(width, torch.contiguous_format), "the same step with channels first"),
    "passes": (passes, "its four network passes alone"),
}


@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("peer", PEERS)
def test_step(against, peer, width):
    make, name = PEERS[peer]
    against(f"step-{width}-{peer}", "pairs", PAIRS, training_step(width, torch.channels_last_3d), make(width), name, rounds=7)


@IN_BFLOAT16
@pytest.mark.parametrize("width", [16, 32])
def test_step_in_bfloat16(against, width):
    plain = training_step(width, torch.contiguous_format)
    mine = training_step(width, torch.channels_last_3d, half=True)
    against(f"step-{width}-bfloat16", "pairs", PAIRS, mine, plain, "the same step in float32 with channels first", rounds=7)


@IN_BFLOAT16
@pytest.mark.parametrize("width", [16, 32])
def test_step_in_bfloat16_beside_a_first_version(against, width):
    mine = training_step(width, torch.channels_last_3d, half=True)
    against(f"step-{width}-first-bfloat16", "pairs", PAIRS, mine, first_version(width), PEERS["first"][1], rounds=7)


@pytest.mark.parametrize("width", [16, 32])
def test_noise_level(against, width):
    volumes = torch.randn(10, 1, 32, 32, 32)
    against(
        f"step-{width}-noise-level",
        "calls",
        1,
        lambda: noise_level(volumes, 0.244),
        training_step(width, torch.channels_last_3d),
        "one whole training step of 8 pairs",
    )


def both_ways(model, half=False):
    """A call that takes four samples through a network and back."""
    volumes, labels = torch.randn(4, 1, 32, 32, 32), torch.zeros(4, 32, 32, 32, dtype=torch.long)

    def run():
        with bfloat16(half):
            loss = cross_entropy(model.train()(volumes), labels)
        loss.backward()

    return run


def voxresnet():
    return VoxResNet(32).to(memory_format=torch.channels_last_3d)


NETWORKS = {
    "segresnet": (lambda: SegResNet(init_filters=16), "MONAI SegResNet, 16 filters"),
    "dynunet": (
        lambda: DynUNet(3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, [16, 32, 64, 128]),
        "MONAI DynUNet, 16 to 128 filters",
    ),
    "compiled": (lambda: torch.compile(voxresnet(), dynamic=False), "the same through torch.compile"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(against, name):
    make, peer = NETWORKS[name]
    against(f"network-{name}", "samples forwards and backwards", 4, both_ways(voxresnet()), both_ways(make()), peer)


@IN_BFLOAT16
@pytest.mark.parametrize("name", ["segresnet", "dynunet"])
def test_network_in_bfloat16(against, name):
    make, peer = NETWORKS[name]
    ours, theirs = both_ways(voxresnet(), half=True), both_ways(make(), half=True)
    against(f"network-{name}-bfloat16", "samples forwards and backwards", 4, ours, theirs, f"{peer}, in bfloat16")
