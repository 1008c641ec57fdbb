"""A step of Vox-UDA at scale desk: its share of the rate of matrix products, its parts, and what might shorten it.

Width 16, 16 pairs, bfloat16 and group norm.
"""

import test_step
import torch
from conftest import RESULTS
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from voxuda.methods import build
from voxuda.methods.losses import consistency_loss, segmentation_loss
from voxuda.methods.vox_uda import VoxUDA
from voxuda.training.run_folder import save_json

pytestmark = test_step.IN_BFLOAT16
WIDTH, PAIRS, SIDE = 16, 16, 2048
PARTS = {
    "convolutions forwards": ("aten::mkldnn_convolution",),
    "convolutions backwards": ("aten::convolution_backward",),
    "group norm": ("aten::native_group_norm", "aten::native_group_norm_backward"),
    "copies between layouts and types": ("aten::copy_",),
}
"""Operations of torch by part of a step; the rest is losses, activations, sums and the optimiser."""


class OnePass(VoxUDA):
    """Source, noised source and target in one pass of the student, which group norm allows."""

    def losses(self, batch, progress):
        volumes = torch.cat([batch.source, self.add_noise(batch), batch.target])
        features = self.student.features(volumes)
        logits = self.student.classify(features).chunk(3)
        clean, noised, target = ({tap: f.chunk(3)[i] for tap, f in features.items()} for i in range(3))
        return {
            "seg": sum(segmentation_loss(part, batch.source_labels) for part in logits[:2]) / 2,
            "con": consistency_loss(clean, noised, self.options.lambdas),
            "dis": self.adversarial(clean["v6"], target["v6"], progress),
            "pseudo": segmentation_loss(logits[2], self.pseudo_labels(batch)),
        }


class Taught(VoxUDA):
    """With the labels of the first step for ever, so without the teacher's pass."""

    def pseudo_labels(self, batch):
        if not hasattr(self, "first"):
            self.first = super().pseudo_labels(batch)
        return self.first


def step(make=VoxUDA, normalisation="group", half=True):
    def built(width):
        return make(width, normalisation=normalisation)

    return test_step.training_step(WIDTH, torch.channels_last_3d, half, PAIRS, make=built)


def test_one_pass_is_the_same_step():
    """Before it is timed: the losses are equal."""
    torch.manual_seed(0)
    made = test_step.batch(2)
    method = build("vox-uda", 8, normalisation="group")
    method.prepare(made.target)
    one = OnePass(8, normalisation="group")
    one.load_state_dict(method.state_dict())
    one.prepare(made.target)
    expected = method.losses(made, 0.5)
    torch.testing.assert_close(one.losses(test_step.batch(2), 0.5), expected)


def test_rate_of_matrix_products(against):
    """The ratio is the share of the processor's measured rate of bfloat16 matrix products."""
    with FlopCounterMode(display=False) as counter:
        step()()
    a, b = (torch.randn(SIDE, SIDE).bfloat16() for _ in range(2))
    against(
        "desk-step-matrices",
        "10^9 operations",
        counter.get_total_flops() / 1e9,
        step(),
        lambda: a @ b,
        f"products of bfloat16 matrices of side {SIDE}",
        peer_amount=2 * SIDE**3 / 1e9,
    )


def test_one_pass(against):
    peer = "its three passes of the student in one"
    against("desk-step-one-pass", "pairs", PAIRS, step(), step(OnePass), peer, rounds=7)


def test_no_teacher(against):
    peer = "the same without the teacher's pass"
    against("desk-step-no-teacher", "pairs", PAIRS, step(), step(Taught), peer, rounds=7)


def test_batch_norm(against):
    peer = "the same with batch norm"
    against("desk-step-batch-norm", "pairs", PAIRS, step(), step(normalisation="batch"), peer, rounds=7)


def test_float32(against):
    against("desk-step-float32", "pairs", PAIRS, step(), step(half=False), "the same in float32", rounds=7)


def test_parts(machine):
    """Share of each part of the time that the processor spends in torch's operations."""
    call = step()
    call()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    spent = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(spent.values())
    shares = {part: round(sum(spent[name] for name in names) / total, 4) for part, names in PARTS.items()}
    assert all(share > 0 for share in shares.values())
    save_json({"name": "desk-step-parts", "shares": shares, "machine": machine()}, RESULTS / "desk-step-parts.json")
