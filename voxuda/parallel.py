"""Several processes that train as one.

``torchrun`` starts the processes. Each holds all samples and a copy of the networks and takes its part of the one global batch.
Whatever is taken over a batch (batch norm, sums and means of the losses, thresholds) is taken over all parts, so every process
has the loss L of the whole batch. Autograd sees through these sums and differentiates what all processes minimise together,
which is ``size()`` times L; so the mean of their gradients is the gradient of L, and every copy takes the step of one process.

The gradients are averaged in one message after the backward pass. DistributedDataParallel would overlap that message with the
computation, but it follows one ``forward``, and here terms and parts of the networks join and leave during training.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed, nn
from torch.nn import functional as F

from voxuda.errors import InputError


def size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process; process 0 alone writes files and talks."""
    return distributed.get_rank() if size() > 1 else 0


def local_rank() -> int:
    """Number of this process on its machine, and so of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if size() > 1 else 0


@contextmanager
def processes() -> Iterator[None]:
    """Within the block this process and the others that ``torchrun`` started are one; without ``torchrun`` nothing changes."""
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    except InputError:
        if rank() > 0:
            raise SystemExit(0) from None  # process 0 says what is wrong, and fails for all
        raise
    finally:
        distributed.destroy_process_group()


@contextmanager
def together() -> Iterator[None]:
    """An ``InputError`` that one process meets in the block is raised by all at its end, lest the others wait for it."""
    error = None
    try:
        yield
    except InputError as caught:
        if size() == 1:
            raise
        error = caught
    if size() > 1:
        messages: list[str | None] = [None] * size()
        distributed.all_gather_object(messages, None if error is None else str(error))
        for message in filter(None, messages):
            raise InputError(message) from error


def part(whole: torch.Tensor) -> torch.Tensor:
    """This process's part ``(B / size(), ...)`` of what belongs to the samples of a global batch, ``(B, ...)``."""
    return whole.chunk(size())[rank()]


def draw(random: Callable[[torch.Tensor], torch.Tensor], mine: torch.Tensor) -> torch.Tensor:
    """This process's part of random numbers that are drawn for the whole batch, in the order of one process.

    Parameters
    ----------
    random : callable
        From a tensor of the whole batch, ``(B, ...)``, to random numbers of that shape. It sees the samples of this process
        in every part of the batch, so its numbers may depend on a sample, not on the others.
    mine : Tensor
        ``(B / size(), ...)``, the samples of this process.

    Returns
    -------
    Tensor
        ``(B / size(), ...)``.
    """
    return random(mine) if size() == 1 else part(random(torch.cat([mine] * size())))


def gather(x: torch.Tensor) -> torch.Tensor:
    """The tensors ``(...)`` of all processes, ``(size(), ...)``, without a gradient."""
    if size() == 1:
        return x[None]
    parts = x.new_empty(size(), *x.shape)
    distributed.all_gather(list(parts), x.contiguous())
    return parts


class _Total(torch.autograd.Function):
    """Sum over processes. Each summand reaches the loss of every process, so the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return _Total.apply(gradient)


def total(x: torch.Tensor) -> torch.Tensor:
    """Sum over processes of tensors of one shape, with a gradient."""
    return x if size() == 1 else _Total.apply(x)


def mean(x: torch.Tensor) -> torch.Tensor:
    """Mean over processes of tensors of one shape, with a gradient."""
    return total(x) / size()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the mean over processes of the gradients of ``parameters``, in one message."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= size()
    for gradient, values in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(values.view_as(gradient))


class _BatchNorm(torch.autograd.Function):
    """Batch norm of ``(B, C, D, H, W)`` by mean and variance ``(C,)`` over all processes, which it returns too."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):  # type: ignore[override]
        mean, variance = torch.zeros_like(weight), torch.zeros_like(weight)
        n = x.numel() / len(weight)
        F.batch_norm(x, mean, variance, training=True, momentum=1.0)  # writes down the statistics of this part
        means, variances = gather(torch.stack([mean, variance * (n - 1) / n])).unbind(1)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.n = eps, n * size()
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    def backward(ctx, gradient, *_):  # type: ignore[override]
        x, weight, mean, variance = ctx.saved_tensors
        to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True] * 3
        )  # with the statistics held fixed; what follows is the way through them, Eq of Ioffe and Szegedy (2015)
        all_to_weight, all_to_bias = gather(torch.stack([to_weight, to_bias])).sum(0) / ctx.n
        scale = (variance + ctx.eps).rsqrt()
        slope = weight * scale.square() * all_to_weight
        offset = weight * scale * all_to_bias - slope * mean
        slope, offset = (v.view(-1, 1, 1, 1) for v in (slope, offset))
        return (to_x - (x * slope + offset)).to(x.dtype), to_weight, to_bias, None


def _normalise(layer: nn.BatchNorm3d, x: torch.Tensor) -> torch.Tensor:
    """Forward pass of a batch norm in training mode, ``(B, C, D, H, W)``, over all processes."""
    y, mean, variance = _BatchNorm.apply(x, layer.weight, layer.bias, layer.eps)
    n = size() * x.numel() / x.shape[1]
    running_mean, running_var, batches = layer.buffers()
    momentum: float = layer.momentum  # type: ignore[assignment]
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * n / (n - 1), momentum)
    batches += 1
    return y


@contextmanager
def global_batch_norm(module: nn.Module) -> Iterator[None]:
    """Within the block every batch norm of ``module``, in training mode, has the statistics of the batch of all processes.

    torch's ``SyncBatchNorm`` does this on GPUs alone.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm3d)] if size() > 1 else []
    for layer in layers:
        layer.forward = functools.partial(_normalise, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
