"""Every method keeps its tensors on the device of its data: shown without a GPU, on a device that holds no numbers."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration

from voxuda.methods import cbst, self_training
from voxuda.methods.base import Batch
from voxuda.methods.registry import METHODS, build


@pytest.fixture(scope="module")
def elsewhere():
    """A device on which shapes are computed and values are not; it complains of tensors of two devices, as CUDA does."""
    backend_registration._setup_privateuseone_for_python_backend("elsewhere")
    return torch.device("elsewhere", 0)


class Generator(torch.Generator):
    """A generator of a processor that says it is of another device."""

    device = torch.device("cpu")


@pytest.fixture
def method_on(elsewhere):
    def move(name: str) -> tuple[nn.Module, FakeTensorMode]:
        method, mode = build(name, 4), FakeTensorMode()

        def moved(tensor: torch.Tensor) -> FakeTensor:
            return FakeTensor(mode, tensor.detach().to("meta"), elsewhere)

        for module in method.modules():
            for key, value in module._parameters.items():
                if value is not None:
                    module._parameters[key] = nn.Parameter(moved(value), requires_grad=value.requires_grad)
            module._buffers.update({key: moved(value) for key, value in module._buffers.items() if value is not None})
        return method.train(), mode

    return move


@pytest.mark.parametrize("name", METHODS)
def test_losses_stay_on_one_device(name, method_on, elsewhere, monkeypatch):
    # What depends on values has no answer here. No backward pass: autograd counts devices before this one is there.
    monkeypatch.setattr(self_training, "mirror_axes", lambda generator: [-1])
    monkeypatch.setattr(cbst, "class_balanced_labels", lambda probability, portion: (probability > 0.5).long())
    monkeypatch.setattr(Generator, "device", elsewhere)
    method, mode = method_on(name)
    with mode:
        volumes = torch.empty(8, 1, 32, 32, 32, device=elsewhere)
        labels = torch.empty(4, 32, 32, 32, device=elsewhere, dtype=torch.long)
        method.prepare(volumes)
        batch = Batch(volumes[:4], labels, volumes[4:], labels, torch.arange(4, device=elsewhere), Generator())
        for progress in (0.0, 0.95):
            losses = method.losses(batch, progress)
            assert {loss.device for loss in losses.values()} == {elsewhere}
        method.after_step()


def test_tensors_of_two_devices_are_noticed(method_on, elsewhere):
    method, mode = method_on("source-only")
    with mode, pytest.raises(RuntimeError, match="at least two devices"):
        method.student(torch.empty(1, 1, 32, 32, 32))
