import dataclasses
import shutil

import pytest
import torch

from voxuda import methods, runs, training
from voxuda.methods import VoxUDAOptions
from voxuda.volumes import InputError, read_mrc, write_mrc


def step(tiny, progress=1.0, **changes):
    """A Vox-UDA of width 2, a batch and its losses."""
    source, target, _ = runs.load_domains(tiny())
    torch.manual_seed(0)
    method = methods.build("vox-uda", 2, VoxUDAOptions(**changes))
    method.prepare(target.volumes)
    batch = training.make_batch(source, target, 0, 0, tiny(), 1)
    return method, batch, method.losses(batch, progress)


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
    from voxuda.noise import noise_level

    # All six target samples are drawn, so the level does not depend on the draw.
    assert added.std() == pytest.approx(noise_level(method.target).item(), rel=0.05)


def test_pseudo_labels_come_from_the_teacher_and_the_denoised_target(tiny):
    method, batch, _ = step(tiny)
    with torch.no_grad():
        for p in method.student.parameters():
            p.zero_()  # the teacher must not notice
    foreground = method.teacher.foreground(method.denoised[batch.target_index])
    expected = torch.where(foreground >= 0.85, 1, torch.where(foreground <= 0.15, 0, -1))
    assert torch.equal(method.pseudo_labels(batch), expected)


def test_share_can_be_estimated_from_the_source(tiny):
    method, batch, _ = step(tiny, pseudo="balanced", share=None)
    labels = method.pseudo_labels(batch)
    assert (labels == 1).float().mean() == pytest.approx(batch.source_labels.float().mean().item(), abs=1e-3)


def test_only_supervised_reads_target_labels(folders, tmp_path, tiny):
    copy = tmp_path / "target"
    shutil.copytree(folders / "target", copy)
    masks = copy / "masks.mrcs"
    write_mrc(masks, 1 - read_mrc(masks).data, overwrite=True)
    for name in methods.METHODS:
        setting = tiny(method=name, epochs=1)
        a = training.train(setting, tmp_path / f"{name}-a", progress=False).student.state_dict()
        b = training.train(dataclasses.replace(setting, target=str(copy)), tmp_path / f"{name}-b", progress=False)
        assert torch.equal(a["conv1a.weight"], b.student.state_dict()["conv1a.weight"]) == (name != "supervised")


def test_dann_pushes_features_together_and_the_discriminator_apart(tiny):
    source, target, _ = runs.load_domains(tiny())
    torch.manual_seed(0)
    method = methods.build("dann", 2)
    batch = training.make_batch(source, target, 0, 0, tiny(), 1)

    def gradients(progress):
        method.zero_grad()
        method.losses(batch, progress)["dis"].backward()
        return method.student.conv1a.weight.grad.clone(), method.discriminator.logit.weight.grad.clone()

    (student_none, judge), (student, judge_again) = gradients(0.0), gradients(1.0)
    assert student_none.abs().max() == 0 < student.abs().max()  # the reversal grows from 0
    torch.testing.assert_close(judge, judge_again)  # the discriminator's own gradient is not reversed


def test_zero_shot_sees_no_target_and_noise_of_many_levels(tiny):
    source, target, _ = runs.load_domains(tiny())
    torch.manual_seed(0)
    method = methods.build("zero-shot", 2)
    batch = training.make_batch(source, target, 0, 0, tiny(batch_size=8), 1)
    state = batch.generator.get_state()
    losses = method.losses(batch, 0.5)
    assert set(losses) == {"seg", "con"}
    batch.generator.set_state(state)
    batch.target = torch.full_like(batch.target, torch.nan)
    assert method.losses(batch, 0.5) == losses
    noised = method.randomise(batch)
    torch.testing.assert_close(noised.var((1, 2, 3, 4), correction=0), torch.ones(8))
    # The correlation with the source tells each sample's level: r = 1 / sqrt(1 + sigma²).
    r = (noised * batch.source).mean((1, 2, 3, 4))
    sigma = (1 / r**2 - 1).clamp_min(0).sqrt()
    assert sigma.min() < 0.8 and sigma.max() > 1.2 and sigma.max() < 2.1
