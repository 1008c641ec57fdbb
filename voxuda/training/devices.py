"""Device on which a network runs outside training."""

from __future__ import annotations

from typing import Literal

import torch

from voxuda.errors import InputError


def choose_device(name: Literal["cpu", "cuda", "auto"]) -> torch.device:
    """Choose a device by the rules of lightning-fabric, without importing it, which is slow.

    Raises
    ------
    InputError
        The machine has no such device.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InputError("device cuda is not available on this machine; choose cpu or auto.")
    if name != "cpu" and has_gpu:
        return torch.device("cuda", 0)
    if name == "auto" and torch.backends.mps.is_available():
        return torch.device("mps", 0)
    return torch.device("cpu")
