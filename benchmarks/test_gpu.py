"""On a GPU: a training step beside the card's rate of matrix products, the fused filter beside torch, and the card's limits."""

from itertools import product

import pytest
import test_step
import torch
from torch.nn.functional import pad
from torch.utils.flop_counter import FlopCounterMode

from voxuda.denoising.bilateral import gradients, improved_bilateral_filter

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CALLS = 10
"""Calls between two looks at the clock."""


def waited(call):
    """``CALLS`` calls, and the GPU has finished them."""

    def run():
        for _ in range(CALLS):
            call()
        torch.cuda.synchronize()

    return run


def matrices(dtype, side=8192):
    """A product of two random square matrices, and its operations in units of 10^12, as counted for a step."""
    a, b = (torch.randn(side, side, device="cuda").to(dtype) for _ in range(2))
    return lambda: a @ b, 2 * side**3 / 1e12


def operations_of_a_pair(width=32):
    """Floating-point operations of one pair in a step, in units of 10^12."""
    with FlopCounterMode(display=False) as counter:
        test_step.training_step(width, torch.contiguous_format, pairs=2)()
    return counter.get_total_flops() / 2 / 1e12


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("pairs", [16, 64])
def test_step_of_the_paper(against, pairs, half):
    """The ratio is the share of the card's measured rate of bfloat16 matrix products; 16 pairs are the paper's batch."""
    step = test_step.training_step(32, torch.channels_last_3d, half, pairs, "cuda")
    multiply, of_product = matrices(torch.bfloat16)
    against(
        f"gpu-step-32-{pairs}-{'bfloat16' if half else 'float32'}",
        "10^12 operations",
        CALLS * pairs * operations_of_a_pair(),
        waited(step),
        waited(multiply),
        "products of bfloat16 matrices of side 8192",
        peer_amount=CALLS * of_product,
    )


def shifted_means(padded, features):
    """The improved filter for torch.compile: 27 shifted copies. Left out is the domain kernel, which is 1 to four digits."""
    sides = padded.shape[2:]
    total, weights = 0.0, 0.0
    here = features[..., 1:-1, 1:-1, 1:-1]
    for offset in product((0, 1, 2), repeat=3):
        window = (..., *(slice(o, o + n - 2) for o, n in zip(offset, sides, strict=True)))
        weight = torch.exp(-(features[window] - here).square().sum(1, keepdim=True) / (2 * 1.2**2))
        total, weights = total + weight * padded[window], weights + weight
    return total / weights


@pytest.mark.parametrize("peer", ["rows", "compiled"])
def test_fused_filter(against, peer):
    """Voxels of tomograms; ``peer`` is what the package does without the kernel, or torch.compile in two stages."""
    from voxuda.denoising._bilateral_triton import fused_filter

    volumes = torch.rand(64, 1, 128, 128, 128, device="cuda")
    small = volumes[:4]
    first, second = torch.compile(gradients), torch.compile(shifted_means)
    peers = {
        "rows": lambda: improved_bilateral_filter(small),
        "compiled": lambda: second(pad(small, [1] * 6, mode="reflect"), first(small, 1)),
    }
    torch.testing.assert_close(fused_filter(small), peers[peer](), atol=1e-4, rtol=0)
    against(
        f"gpu-filter-ibf-{peer}",
        "million voxels",
        CALLS * volumes.numel() / 1e6,
        waited(lambda: fused_filter(volumes)),
        waited(peers[peer]),
        {"rows": "by rows, in plain torch", "compiled": "27 shifts through torch.compile, gradients apart"}[peer],
        peer_amount=CALLS * small.numel() / 1e6,
    )


def test_multiply_adds(against, monkeypatch):
    """The limit of arithmetic: 259 instructions a voxel are the least, as many as there are multiply-adds here."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    multiply, operations = matrices(torch.float32)
    against("gpu-limit-multiply-add", "million multiply-adds", CALLS * operations / 2 * 1e6, waited(multiply))


def test_copy(against):
    """The limit of memory: each voxel read and written once."""
    large = torch.rand(2**30, device="cuda")
    copy = torch.empty_like(large)
    against("gpu-limit-copy", "million voxels", CALLS * 2**30 / 1e6, waited(lambda: copy.copy_(large)))
