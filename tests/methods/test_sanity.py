"""Numbers stay sane where data are not: constant, huge, tiny, half precision, one sample, one class, one NaN."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxuda import methods
from voxuda.data.domain import Domain
from voxuda.denoising import noise
from voxuda.denoising.bilateral import bilateral_filter, improved_bilateral_filter
from voxuda.methods import losses
from voxuda.methods.pseudo_labels import IGNORE, balanced_labels, class_balanced_labels, confident_labels
from voxuda.networks.voxresnet import VoxResNet, target_batch_norm
from voxuda.signal import spectra
from voxuda.signal.normalise import unit_range, zscore
from voxuda.training import evaluation, loop
from voxuda.training.domains import load_domains

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
FILTERS = [bilateral_filter, improved_bilateral_filter]


def some(generator, *shape):
    return torch.randn(*shape, generator=generator)


# --- intensities ---------------------------------------------------------------------------------------------------


@given(NUMBERS, st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
def test_a_constant_volume_becomes_zeros(value, dtype):
    largest = torch.finfo(dtype).max
    flat = torch.full((1, 1, 9, 10, 11), value, dtype=torch.float64).clamp(-largest, largest).to(dtype)
    assert torch.equal(zscore(flat), torch.zeros_like(flat))
    assert torch.equal(unit_range(flat), torch.zeros_like(flat))


@given(NUMBERS)
def test_a_constant_volume_has_no_noise_and_no_edges(value):
    flat = torch.full((2, 1, 8, 8, 8), value)
    scale = abs(value) + 1e-30
    assert noise.noise_level(zscore(flat)).max() == 0
    for filtered in FILTERS:
        assert (filtered(unit_range(flat)) == 0).all()
    swapped = spectra.swap_amplitude(flat / scale, flat / scale)
    torch.testing.assert_close(swapped, flat / scale, atol=1e-5, rtol=0)


@settings(max_examples=30)
@given(st.integers(-140, 120), st.integers(0, 2**32 - 1))
def test_normalising_does_not_know_the_unit(exponent, seed):
    """A power of two apart, so that the samples are the same; down to numbers that float32 holds with few digits."""
    x = torch.randint(-99, 99, (2, 1, 8, 8, 8), generator=torch.Generator().manual_seed(seed)).float()
    unit = torch.ldexp(x, torch.tensor(exponent))
    assert torch.equal(zscore(unit), zscore(x)) and torch.equal(unit_range(unit), unit_range(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_single_precision_with_fewer_digits(generator, dtype):
    x = (100 * some(generator, 2, 1, 16, 16, 16)).to(dtype)
    close = dict(atol=0.05, rtol=0.05)
    for function in (zscore, unit_range):
        torch.testing.assert_close(function(x.to(torch.int16)), function(x.to(torch.int16).float()))
        found = function(x)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), function(x.float()), **close)
    for filtered in FILTERS:
        found = filtered(unit_range(x), 120.0, 0.3)
        torch.testing.assert_close(found.float(), filtered(unit_range(x.float()), 120.0, 0.3), **close)
    found, expected = noise.noise_level(zscore(x)), noise.noise_level(zscore(x.float()))
    torch.testing.assert_close(found.float(), expected, **close)


def test_nan_is_not_hidden_by_normalising(generator):
    x = some(generator, 2, 1, 4, 4, 4)
    x[0, 0, 0, 0, 0] = float("nan")
    for function in (zscore, unit_range):
        found = function(x)
        assert torch.isnan(found[0]).all() and torch.isfinite(found[1]).all()


def test_one_nan_stays_within_the_window(generator):
    x = unit_range(some(generator, 1, 1, 12, 12, 12))
    x[0, 0, 6, 6, 6] = float("nan")
    inside = torch.zeros(12, 12, 12, dtype=torch.bool)
    for filtered, reach in zip(FILTERS, (1, 2), strict=True):  # the gradient reaches one voxel further
        inside[:] = False
        inside[(slice(6 - reach, 7 + reach),) * 3] = True
        assert torch.equal(torch.isnan(filtered(x))[0, 0] & ~inside, torch.zeros_like(inside))
        assert torch.isnan(filtered(x))[0, 0, 6, 6, 6]


# --- masks and labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [0, 1, IGNORE])
def test_one_class_only_has_a_loss_and_a_gradient(generator, label):
    logits = some(generator, 2, 2, 4, 4, 4).requires_grad_()
    loss = losses.segmentation_loss(logits, torch.full((2, 4, 4, 4), label))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    assert (loss == 0) == (label == IGNORE) == (logits.grad.abs().max() == 0)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_pseudo_labels_of_a_teacher_that_sees_no_difference(probability):
    flat = torch.full((2, 4, 4, 4), probability)
    said = {
        "confident": confident_labels(flat),
        "balanced": balanced_labels(flat),
        "class-balanced": class_balanced_labels(flat, 0.2),
    }
    assert all(len(labels.unique()) == 1 for labels in said.values())
    certain = {0.0: 0, 1.0: 1}.get(probability, IGNORE)
    assert (said["confident"] == certain).all()
    assert (said["balanced"] == 1).all()  # all voxels are among the most probable


@pytest.mark.parametrize("truth", [False, True])
def test_masks_of_one_class_are_scored(truth):
    domain = Domain(torch.zeros(2, 1, 8, 8, 8), torch.full((2, 1, 8, 8, 8), truth), ["a", "b"])
    predicted = torch.full((2, 8, 8, 8), True)
    assert evaluation.scores(predicted, domain).overall.iou == float(truth)
    assert evaluation.scores(~predicted, domain).overall.iou == float(not truth)


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", methods.METHODS)
def test_one_sample_a_batch(tmp_path, tiny, method):
    trained = loop.train(tiny(method=method, batch_size=1, epochs=1), tmp_path / "run", progress=False)
    assert all(torch.isfinite(p).all() for p in trained.parameters())


def test_one_target_sample(generator):
    network = VoxResNet(2)
    found = target_batch_norm(network, some(generator, 1, 1, 16, 16, 16))
    assert all(torch.isfinite(value).all() for value in found.values())


@pytest.mark.parametrize("kind", ["background", "foreground", "constant"])
@pytest.mark.parametrize("method", ["vox-uda", "pdam", "asc", "le-uda", "cbst"])
def test_training_on_data_that_teach_nothing(tmp_path, tiny, monkeypatch, kind, method):
    """Source masks without molecule or without background, or a target without any signal: finite, if useless."""

    def useless(config, *, progress=False):
        source, target, test = load_domains(config)
        if kind == "constant":
            return source, dataclasses.replace(target, volumes=torch.zeros_like(target.volumes)), test
        masks = torch.full_like(source.masks, kind == "foreground")
        return dataclasses.replace(source, masks=masks), target, test

    monkeypatch.setattr(loop, "load_domains", useless)
    trained = loop.train(tiny(method=method, epochs=1), tmp_path / "run", progress=False)
    assert all(torch.isfinite(p).all() for p in trained.parameters())
