import pytest
import torch

from voxuda import methods
from voxuda.denoising.bilateral import bilateral_filter, improved_bilateral_filter
from voxuda.denoising.noise import generate_noise, ngm_denoise, noise_level
from voxuda.errors import InputError
from voxuda.methods import VoxUDAOptions, self_training, vox_uda
from voxuda.methods.base import supervised_pass
from voxuda.methods.losses import adversarial_loss, consistency_loss, segmentation_loss
from voxuda.methods.pseudo_labels import confident_labels
from voxuda.networks.discriminators import reversal_strength
from voxuda.signal.fourier import radius_grid, spectrum, volume_of
from voxuda.signal.normalise import unit_range, zscore
from voxuda.signal.spectra import radial_power
from voxuda.training import loop
from voxuda.training.domains import load_domains


def built(tiny, name, options=None, **changes):
    """A method of width 2, prepared, and a batch."""
    source, target, _ = load_domains(tiny())
    torch.manual_seed(0)
    method = methods.build(name, 2, options)
    method.prepare(target.volumes)
    return method, loop.make_batch(source, target, 0, 0, tiny(**changes), 1)


def step(tiny, progress=1.0, **changes):
    """A Vox-UDA of width 2, a batch and its losses."""
    method, batch = built(tiny, "vox-uda", VoxUDAOptions(**changes))
    return method, batch, method.losses(batch, progress)


def rewind(batch):
    batch.generator.manual_seed(batch.generator.initial_seed())


def test_vox_uda_options_switch_terms(tiny):
    def terms(**changes):
        return set(step(tiny, **changes)[2])

    assert terms() == {"seg", "con", "dis", "pseudo"}
    assert terms(progress=0.0) == {"seg", "con", "dis"}
    assert terms(noise="none") == {"seg", "dis", "pseudo"}
    assert terms(pseudo="none", adversary=0.0) == {"seg", "con"}
    for denoiser in ("ngm", "bf", "ibf", "none"):
        assert "pseudo" in terms(denoiser=denoiser)
    with pytest.raises(InputError, match="denoiser is median; choose from ngm, bf, ibf, none"):
        terms(denoiser="median")


def test_vox_uda_adds_noise_of_the_level_of_the_target(tiny):
    method, batch, _ = step(tiny, n_sampled=6)
    added = method.add_noise(batch) - batch.source
    # All six target samples are drawn, so the level does not depend on the draw.
    assert added.std() == pytest.approx(noise_level(method.target).item(), rel=0.05)


def test_vox_uda_draws_its_noise_as_its_options_say(tiny):
    options = VoxUDAOptions(n_sampled=2, rho=0.5, reading="cube_kept", average="volumes", noise="speckle")
    method, batch = built(tiny, "vox-uda", options)
    found = method.add_noise(batch)
    rewind(batch)
    sampled = method.target[torch.randperm(6, generator=batch.generator)[:2]]
    sigma = noise_level(sampled, 0.5, "cube_kept", "volumes")
    torch.testing.assert_close(found, batch.source + generate_noise(batch.source, sigma, batch.generator, "speckle"))


@pytest.mark.parametrize(
    ("name", "noise", "lambdas"),
    [("vox-uda", "add_noise", (0.4, 0.3, 0.2, 0.1)), ("zero-shot", "randomise", (0.2, 0.2, 0.3, 0.3))],
)
def test_the_noised_source_is_segmented_too_and_tied_to_the_source(tiny, name, noise, lambdas):
    method, batch = built(tiny, name, VoxUDAOptions(lambdas=lambdas))
    found = method.losses(batch, 0.5)
    rewind(batch)
    noised = getattr(method, noise)(batch)
    (a, seg), (b, noised_seg) = (supervised_pass(method.student, x, batch.source_labels) for x in (batch.source, noised))
    torch.testing.assert_close(found["seg"], (seg + noised_seg) / 2)
    torch.testing.assert_close(found["con"], consistency_loss(a, b, lambdas))


@pytest.mark.parametrize("change", [{"noise": "none"}, {"segment_noised": False}])
def test_vox_uda_can_segment_the_source_alone(tiny, change):
    method, batch, found = step(tiny, **change)
    torch.testing.assert_close(found["seg"], supervised_pass(method.student, batch.source, batch.source_labels)[1])


@pytest.mark.parametrize(
    ("denoiser", "filtered"),
    [
        ("ngm", lambda x: ngm_denoise(x, 0.5, "cube_kept")),
        ("bf", lambda x: bilateral_filter(x, 1.5, 1.0, 5)),
        ("ibf", lambda x: improved_bilateral_filter(x, 1.5, 1.0, 5, "sobel_magnitude")),
        ("none", lambda x: x),
    ],
)
def test_each_denoiser_is_the_filter_of_its_name(denoiser, filtered, generator):
    ours = VoxUDAOptions(denoiser, 1.5, 1.0, window=5, gradient="sobel_magnitude", rho=0.5, reading="cube_kept")
    volumes = torch.randn(2, 1, 16, 16, 16, generator=generator)
    torch.testing.assert_close(vox_uda.denoise(volumes, ours), zscore(filtered(unit_range(volumes))))


def test_pseudo_labels_come_from_the_teacher_and_the_denoised_target(tiny):
    method, batch, _ = step(tiny)
    with torch.no_grad():
        for p in method.student.parameters():
            p.zero_()  # the teacher must not notice
    foreground = method.teacher.foreground(method.denoised[batch.target_index])
    expected = torch.where(foreground >= 0.85, 1, torch.where(foreground <= 0.15, 0, -1))
    assert torch.equal(method.pseudo_labels(batch), expected)


def test_pseudo_labels_supervise_the_student_on_the_target_as_it_is(tiny):
    method, batch, found = step(tiny, eta=0.6)
    labels = confident_labels(method.teacher.foreground(method.denoised[batch.target_index]), 0.6)
    assert labels.unique().tolist() == [-1, 0, 1]
    torch.testing.assert_close(found["pseudo"], segmentation_loss(method.student(batch.target), labels))


def test_pseudo_labels_count_when_the_warm_up_ends(tiny):
    method, batch = built(tiny, "vox-uda", VoxUDAOptions(warm_up=0.6))
    assert "pseudo" not in method.losses(batch, 0.59) and "pseudo" in method.losses(batch, 0.6)


def test_the_teacher_of_vox_uda_has_the_decay_of_the_options(tiny):
    assert built(tiny, "vox-uda", VoxUDAOptions(ema=0.5))[0].teacher.decay == 0.5


def test_share_can_be_estimated_from_the_source(tiny):
    method, batch, _ = step(tiny, pseudo="balanced", share=None)
    labels = method.pseudo_labels(batch)
    assert (labels == 1).float().mean() == pytest.approx(batch.source_labels.float().mean().item(), abs=1e-3)


def test_dann_pushes_features_together_and_the_discriminator_apart(tiny):
    method, batch = built(tiny, "dann")

    def gradients(progress):
        method.zero_grad()
        method.losses(batch, progress)["dis"].backward()
        return method.student.conv1a.weight.grad.clone(), method.discriminator.logit.weight.grad.clone()

    (student_none, judge), (student, judge_again) = gradients(0.0), gradients(1.0)
    assert student_none.abs().max() == 0 < student.abs().max()  # the reversal grows from 0
    torch.testing.assert_close(judge, judge_again)  # the discriminator's own gradient is not reversed


@pytest.mark.parametrize(("name", "weight"), [("dann", 1.0), ("vox-uda", 0.5)])
def test_the_adversary_tells_the_deepest_features_and_what_the_student_gets_is_reversed(tiny, name, weight):
    method, batch = built(tiny, name, VoxUDAOptions(adversary=weight))
    deepest = [method.student.features(volumes)["v6"] for volumes in (batch.source, batch.target)]
    own = adversarial_loss(*(method.discriminator(part) for part in deepest))
    dis = method.losses(batch, 0.1)["dis"]
    torch.testing.assert_close(dis, own)
    reversed_, straight = (torch.autograd.grad(loss, method.student.conv1a.weight)[0] for loss in (dis, own))
    torch.testing.assert_close(reversed_, -weight * reversal_strength(0.1) * straight, rtol=1e-3, atol=1e-7)


def test_zero_shot_sees_no_target_and_noise_of_many_levels(tiny):
    method, batch = built(tiny, "zero-shot", batch_size=8)
    losses = method.losses(batch, 0.5)
    assert set(losses) == {"seg", "con"}
    rewind(batch)
    batch.target = torch.full_like(batch.target, torch.nan)
    assert method.losses(batch, 0.5) == losses
    noised = method.randomise(batch)
    torch.testing.assert_close(noised.var((1, 2, 3, 4), correction=0), torch.ones(8))
    # The correlation with the source tells each sample's level: r = 1 / sqrt(1 + sigma²).
    r = (noised * batch.source).mean((1, 2, 3, 4))
    sigma = (1 / r**2 - 1).clamp_min(0).sqrt()
    assert sigma.min() < 0.8 and sigma.max() > 1.2 and sigma.max() < 2.1


def test_a_resized_source_keeps_its_labels_on_its_molecules(generator, monkeypatch):
    """A bright ball and its mask stay together; mirrored and resized, the share of the mask grows as the cube of the factor."""
    z, y, x = torch.meshgrid(*(torch.arange(32.0) - place for place in (13.0, 16.0, 18.0)), indexing="ij")
    ball = ((z**2 + y**2 + x**2) < 36).float()
    volumes = ball.expand(4, 1, -1, -1, -1) + 0.1 * torch.randn(4, 1, 32, 32, 32, generator=generator)
    labels = ball.long().expand(4, -1, -1, -1)
    for factor in (0.8, 1.0, 1.5):
        monkeypatch.setattr(self_training, "SIZES", (factor, factor))
        shown, found = self_training.resize_at_random(volumes, labels, generator)
        assert set(found.unique().tolist()) == {0, 1} and shown.shape == volumes.shape
        torch.testing.assert_close(shown.var((1, 2, 3, 4), correction=0), torch.ones(4))
        grown = found.float().mean((1, 2, 3)) / labels.float().mean((1, 2, 3))
        torch.testing.assert_close(grown, torch.full((4,), factor**3), rtol=0.12, atol=0)
        inside, outside = ((shown[:, 0] * where).sum() / where.sum() for where in (found == 1, found == 0))
        assert inside - outside > 3


def test_resizing_by_1_mirrors_at_most(generator, monkeypatch):
    monkeypatch.setattr(self_training, "SIZES", (1.0, 1.0))
    monkeypatch.setattr(self_training, "mirror_axes", lambda _: [-1])
    volumes = zscore(torch.randn(2, 1, 16, 16, 16, generator=generator))
    labels = (volumes[:, 0] > 0.5).long()
    shown, found = self_training.resize_at_random(volumes, labels, generator)
    torch.testing.assert_close(shown, volumes.flip(-1), rtol=1e-4, atol=1e-4)
    assert (found == labels.flip(-1)).float().mean() > 0.999


def test_self_training_noise_has_the_targets_colour_in_half_of_the_samples(tiny, monkeypatch):
    method, batch = built(tiny, "self-training", batch_size=8)
    target = torch.randn(20, 1, 16, 16, 16, generator=batch.generator)
    target = target + 3 * volume_of(spectrum(target) * torch.exp(-(radius_grid(16) ** 2) / 8), 16)
    method.prepare(target)
    monkeypatch.setattr(self_training, "COLOURED", 1.0)
    noise = method.noise(batch.source, batch.generator)
    torch.testing.assert_close(noise.var((1, 2, 3, 4), correction=0), torch.ones(8))
    wanted, found = (radial_power(zscore(volumes)) for volumes in (target, noise))
    assert torch.corrcoef(torch.stack([wanted[1:8].log(), found[1:8].log()]))[0, 1] > 0.9


def test_self_training_labels_what_the_teacher_is_sure_of(tiny):
    method, batch = built(tiny, "self-training", batch_size=4)
    assert set(method.losses(batch, 0.1)) == {"seg", "con"} and set(method.losses(batch, 0.5)) == {"seg", "con", "pseudo"}
    method.teacher.foreground = lambda volumes: volumes[:, 0].sigmoid()  # brightness, which mirroring leaves alone
    believed = method.denoised[batch.target_index][:, 0].sigmoid()
    expected = torch.where(believed >= 0.65, 1, torch.where(believed <= 0.35, 0, -1))
    assert torch.equal(method.pseudo_labels(batch), expected)
