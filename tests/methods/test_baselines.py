"""What marks each method, beside that it runs; Vox-UDA, DANN and zero-shot are in test_methods.py."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from voxuda import methods
from voxuda.errors import InputError
from voxuda.methods import asc, le_uda, losses, mean_teacher, mic, pdam
from voxuda.methods.base import supervised_pass
from voxuda.methods.pseudo_labels import IGNORE, class_balanced_labels, ramp_up
from voxuda.networks.discriminators import reversal_strength
from voxuda.signal.normalise import zscore
from voxuda.signal.spectra import radial_power, swap_amplitude
from voxuda.training import loop
from voxuda.training.domains import load_domains


@pytest.fixture
def made(tiny):
    """A method of width 2, prepared, and a batch of four pairs."""
    source, target, _ = load_domains(tiny())

    def make(name):
        torch.manual_seed(0)
        method = methods.build(name, 2)
        method.prepare(target.volumes)
        return method.train(), loop.make_batch(source, target, 0, 0, tiny(), 1)

    return make


def gradient(loss, parameter):
    return torch.autograd.grad(loss, parameter, retain_graph=True)[0]


def rewind(batch):
    batch.generator.manual_seed(batch.generator.initial_seed())


def assert_same(found, expected, rtol=1e-5):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=0)  # some terms are less than the default atol


def estrange(method):
    """Make the teacher another network than the student."""
    with torch.no_grad():
        for parameter in method.teacher.network.parameters():
            parameter.mul_(0.7)


@pytest.mark.parametrize("name", ["source-only", "dann", "le-uda", "mean-teacher", "minent", "advent", "cbst", "mic", "tent"])
def test_the_source_is_segmented_as_it_is(made, name):
    method, batch = made(name)
    expected = supervised_pass(method.student, batch.source, batch.source_labels)[1]
    assert_same(method.losses(batch, 0.5)["seg"], expected)


def test_supervised_segments_the_target(made):
    method, batch = made("supervised")
    expected = supervised_pass(method.student, batch.target, batch.target_labels)[1]
    assert_same(method.losses(batch, 0.5)["seg"], expected)


@pytest.mark.parametrize("name", ["vox-uda", "asc", "le-uda", "mean-teacher", "mic"])
def test_teachers_follow_their_students_after_a_step(made, name):
    method, _ = made(name)
    before = method.teacher.network.conv1a.weight.clone()
    with torch.no_grad():
        method.student.conv1a.weight += 1
    method.after_step()
    torch.testing.assert_close(method.teacher.network.conv1a.weight, before + 0.5)


def test_the_ramp():
    assert ramp_up(0) == pytest.approx(math.exp(-5)) and ramp_up(1) == 1
    assert ramp_up(0.5) == pytest.approx(math.exp(-1.25))


def test_self_information_is_the_entropy(generator):
    logits = torch.randn(2, 2, 3, 4, 5, generator=generator)
    expected = torch.distributions.Categorical(logits=logits.movedim(1, -1)).entropy() / math.log(2)
    torch.testing.assert_close(losses.self_information(logits).sum(1), expected)
    assert losses.self_information(torch.zeros(1, 2, 1, 1, 1)).sum() == 1  # one bit
    assert torch.isfinite(losses.self_information(torch.tensor([1e4, -1e4]).reshape(1, 2, 1, 1, 1))).all()


def test_mean_teacher_agrees_with_itself(made):
    method, batch = made("mean-teacher")
    noised = mean_teacher.jitter(batch.target, batch.generator)
    assert 0.05 < (noised - batch.target).std() < 0.1 and (noised - batch.target).abs().max() <= 0.2 + 1e-6
    con = method.losses(batch, 1.0)["con"]
    with torch.no_grad():
        student = method.student(batch.target).softmax(1)[:, 1]
    assert 0 < con < 0.1 * (student - 0.5).square().mean() + 1e-4, "teacher and student are the same network"
    method.losses(batch, 1.0)["con"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_mean_teacher_shows_the_noise_to_the_teacher(made):
    method, batch = made("mean-teacher")
    estrange(method)
    con = method.losses(batch, 0.5)["con"]
    rewind(batch)
    wanted = method.teacher.foreground(mean_teacher.jitter(batch.target, batch.generator))
    distance = (method.student(batch.target).softmax(1)[:, 1] - wanted).square().mean()
    assert_same(con, 0.1 * math.exp(-1.25) * distance)


def test_fda_trains_on_the_source_in_the_look_of_the_target(made):
    method, batch = made("fda")
    seg = method.losses(batch, 0.0)["seg"]
    translated = zscore(swap_amplitude(batch.source, batch.target, 2))
    assert (translated - batch.source).abs().max() > 0.1
    torch.testing.assert_close(seg, supervised_pass(method.student, translated, batch.source_labels)[1])


@pytest.mark.parametrize(("name", "of_one_bit"), [("minent", 1e-3), ("fda", 0.005)])
def test_entropy_is_lowered_and_weighs_as_published(made, name, of_one_bit):
    method, batch = made(name)
    ent = method.losses(batch, 0.0)["ent"]
    head = method.student.heads["c"].weight
    with torch.no_grad():
        head -= 50 * gradient(ent, head) / gradient(ent, head).norm()
    assert method.losses(batch, 0.0)["ent"] < ent
    with torch.no_grad():
        for parameter in method.student.heads.parameters():
            parameter.zero_()
    assert method.losses(batch, 0.0)["ent"].item() == pytest.approx(of_one_bit, rel=1e-5)


@pytest.mark.parametrize(("name", "weight", "power"), [("minent", 1e-3, 1), ("fda", 0.005, 4), ("tent", 1, 1)])
def test_entropy_is_that_of_the_target_to_its_power(made, name, weight, power):
    method, batch = made(name)
    entropy = losses.self_information(method.student(batch.target)).sum(1)
    assert_same(method.losses(batch, 0.95)["ent"], weight * entropy.pow(power).mean())


def test_advent_tells_entropy_maps_of_source_and_target(made):
    method, batch = made("advent")
    maps = [losses.self_information(method.student(volumes)) for volumes in (batch.source, batch.target)]
    expected = losses.adversarial_loss(*(method.discriminator(part) for part in maps))
    assert_same(method.losses(batch, 0.5)["dis"], expected)


def test_advent_reverses_what_reaches_the_student_at_its_weight(made, monkeypatch):
    """What the student gets is -1e-3 of the gradient of the target's own binary cross entropy."""
    method, batch = made("advent")
    dis = method.losses(batch, 0.5)["dis"]
    student, judge = method.student.conv1a.weight, method.discriminator.logit.weight
    reversed_, own = gradient(dis, student), gradient(dis, judge)
    maps = losses.self_information(method.student(batch.target))
    own_loss = nn.functional.softplus(-method.discriminator(maps)).mean()  # binary cross entropy of label 1
    torch.testing.assert_close(reversed_, -1e-3 * gradient(own_loss, student), rtol=1e-3, atol=1e-12)
    monkeypatch.setattr(methods.advent, "reverse_gradient", lambda x, _: x)
    torch.testing.assert_close(own, gradient(method.losses(batch, 0.5)["dis"], judge))


@pytest.mark.parametrize("portion", [0.2, 0.5, 1.0])
def test_cbst_threshold_is_the_quantile(portion, generator):
    foreground = torch.rand(2, 8, 8, 8, generator=generator) ** 3  # a rare class
    labels = class_balanced_labels(foreground, portion)
    ratios = []
    for p in (1 - foreground, foreground):
        predicted = p[p >= 0.5].numpy()
        threshold = np.quantile(predicted, 1 - round(portion * len(predicted)) / len(predicted), method="higher")
        ratios.append(p / threshold)
    background, molecule = ratios
    expected = torch.where(molecule > background, 1, 0)
    expected[torch.maximum(background, molecule) < 1] = IGNORE
    assert (labels != expected).float().mean() < 0.005  # voxels at a threshold itself
    share = (labels == 1).sum() / (foreground >= 0.5).sum()
    assert share == pytest.approx(portion, abs=0.03)


def test_cbst_without_one_of_the_classes_and_with_a_bad_portion():
    assert (class_balanced_labels(torch.full((1, 2, 2, 2), 0.1), 0.5) == 0).all()
    assert (class_balanced_labels(torch.full((1, 2, 2, 2), 0.9), 0.5) == 1).all()
    with pytest.raises(InputError, match=r"portion is 0\.0"):
        class_balanced_labels(torch.ones(1, 2, 2, 2), 0.0)


def test_cbst_waits_and_then_takes_more_and_more(made):
    method, batch = made("cbst")
    assert set(method.losses(batch, 0.29)) == {"seg"} and set(method.losses(batch, 0.3)) == {"seg", "pseudo"}
    assert (method.portion(0.3), method.portion(1.0)) == (0.2, pytest.approx(0.5))


def test_cbst_learns_from_class_balanced_labels_of_its_own(made):
    method, batch = made("cbst")
    logits = method.student(batch.target)
    labels = class_balanced_labels(logits.detach().softmax(1)[:, 1], 0.35)
    assert_same(method.losses(batch, 0.65)["pseudo"], losses.segmentation_loss(logits, labels))


def test_mic_hides_whole_blocks_from_the_student_alone(made):
    method, batch = made("mic")
    batch.target = torch.ones(64, 1, 16, 16, 20)
    masked = method.mask(batch)
    blocks = masked[:, :, :8, 8:, :8]
    assert ((blocks == 0).flatten(1).all(1) | (blocks == 1).flatten(1).all(1)).all() and set(masked.unique().tolist()) == {0, 1}
    assert (masked[..., :16] == 0).float().mean() == pytest.approx(mic.MIC.MASKED, abs=0.06)
    assert masked[..., 16:].unique().numel() == 2, "a side that is no multiple of the block"


def test_mic_weighs_by_how_sure_the_teacher_is(made, monkeypatch):
    method, batch = made("mic")
    unsure, sure = torch.full((4, 16, 16, 16), 0.9), torch.full((4, 16, 16, 16), 0.99)
    found = []
    for probability in (unsure, torch.where(torch.arange(16) < 4, sure, unsure), sure):
        monkeypatch.setattr(method.teacher, "foreground", lambda _, p=probability: p)
        batch.generator.manual_seed(0)
        found.append(method.losses(batch, 0.0)["masked"].item())
    assert found[0] == 0 < found[1] == pytest.approx(found[2] / 4, rel=1e-4)


def test_mic_wants_of_the_masked_target_what_the_teacher_says_of_the_whole(made):
    method, batch = made("mic")
    estrange(method)
    foreground = method.teacher.foreground(batch.target)
    method.SURE = torch.maximum(foreground, 1 - foreground).median().item()  # of about half of the voxels
    found = method.losses(batch, 0.5)["masked"]
    rewind(batch)
    share = (torch.maximum(foreground, 1 - foreground) > method.SURE).float().mean()
    wanted = losses.segmentation_loss(method.student(method.mask(batch)), (foreground > 0.5).long())
    assert_same(found, share * wanted)


def test_tent_moves_batch_norm_alone_and_lowers_the_entropy(made):
    method, batch = made("tent")
    assert set(method.losses(batch, 0.89)) == {"seg"} and all(p.requires_grad for p in method.student.parameters())
    before = {name: p.detach().clone() for name, p in method.student.named_parameters()}
    optimizer = torch.optim.Adam(method.student.parameters(), lr=1e-2, fused=True)
    entropies = []
    for _ in range(10):
        found = method.losses(batch, 0.9)
        assert set(found) == {"ent"}
        optimizer.zero_grad()
        found["ent"].backward()
        optimizer.step()
        entropies.append(found["ent"].item())
    assert entropies[-1] < entropies[0]
    affine = {
        f"{prefix}.{name}"
        for prefix, layer in method.student.named_modules()
        if isinstance(layer, nn.BatchNorm3d)
        for name in ("weight", "bias")
    }
    moved = {name for name, p in method.student.named_parameters() if not torch.equal(p, before[name])}
    assert moved == affine
    assert (method.rate(0.0), method.rate(0.5), method.rate(0.9)) == (1, 0.1, 1)


def test_the_learning_rate_falls_to_a_tenth_after_each_third():
    method = methods.build("source-only", 2)
    assert [round(math.log10(method.rate(epoch / 300))) for epoch in (0, 99, 100, 199, 200, 299)] == [0, 0, -1, -1, -2, -2]


def test_domain_randomisation_varies_colour_blur_and_noise_without_the_target(made):
    method, batch = made("domain-randomisation")
    batch.source, batch.target = batch.source[:1].repeat(64, 1, 1, 1, 1), torch.full_like(batch.target, torch.nan)
    changed = method.randomise(batch)
    torch.testing.assert_close(changed.var((1, 2, 3, 4), correction=0), torch.ones(64))
    likeness = (changed * batch.source[:1]).mean((1, 2, 3, 4))
    assert likeness.min() < 0.5 < 0.8 < likeness.max()
    assert len(likeness.unique()) == 64
    method.COLOUR = method.BLUR = method.NOISE = 0.0
    torch.testing.assert_close(method.randomise(batch), batch.source, rtol=1e-3, atol=1e-3)


def test_domain_randomisation_segments_the_randomised_source(made):
    method, batch = made("domain-randomisation")
    seg = method.losses(batch, 0.5)["seg"]
    rewind(batch)
    assert_same(seg, supervised_pass(method.student, method.randomise(batch), batch.source_labels)[1])


def test_pdam_inpaints_hallucinations_only():
    volume, labels = torch.zeros(1, 1, 16, 16, 24), torch.zeros(1, 16, 16, 24, dtype=torch.long)
    volume[..., :6], labels[..., :6] = 1.0, 1  # the molecule
    volume[0, 0, 6:11, 6:11, 14:19] = 1.5  # as bright, and not in the mask
    volume[0, 0, 3, 3, 20] = 9.0  # a peak of noise
    found = pdam.inpaint(volume, labels)
    changed = (found != volume)[0, 0]
    assert changed[8, 8, 16] and found[0, 0, 8, 8, 16] < 1.5 and not changed[3, 3, 20]
    assert not changed[..., :9].any() and not changed[..., 21:].any()
    assert torch.equal(pdam.inpaint(volume, torch.zeros_like(labels)), volume), "without a mask nothing tells"


def test_pdam_does_not_take_noise_for_molecules(generator):
    """At a low signal-to-noise ratio peaks of noise are brighter than a molecule; hardly any voxel may change."""
    labels = torch.zeros(4, 24, 24, 24, dtype=torch.long)
    labels[:, 8:15, 8:15, 8:15] = 1
    noisy = labels[:, None] + 2 * torch.randn(4, 1, 24, 24, 24, generator=generator)
    changed = pdam.inpaint(noisy, labels) != noisy
    assert changed.float().mean() < 0.02 and (noisy > 1).float().mean() > 0.25


def test_pdam_weighs_the_source_by_the_odds_of_its_adversary():
    def weight(*logits):
        return pdam.source_weight(torch.tensor(logits).reshape(-1, 1)).item()

    assert weight(0.0) == 1 and weight(-9.0) == 0.5 and weight(9.0) == 1.5
    p = torch.sigmoid(-torch.tensor([0.2, -0.3]))  # of source, where logits speak of the target
    assert weight(0.2, -0.3) == pytest.approx(((1 - p) / p).mean().item())
    assert not pdam.source_weight(torch.zeros(2, 1, requires_grad=True)).requires_grad


def test_pdam_has_two_adversaries_that_are_reversed(made, monkeypatch):
    method, batch = made("pdam")
    student = method.student.conv1a.weight

    def gradients(progress):
        batch.generator.manual_seed(0)
        found = method.losses(batch, progress)
        return [gradient(found[name], student) for name in ("dis", "dis_entropy")]

    none, some = gradients(0.0), gradients(1.0)
    monkeypatch.setattr(pdam, "reverse_gradient", lambda x, _: x)
    for nothing, reversed_, straight in zip(none, some, gradients(1.0), strict=True):
        assert nothing.abs().max() == 0 < straight.abs().max()
        torch.testing.assert_close(reversed_, -reversal_strength(1.0) * straight, rtol=1e-3, atol=1e-9)


def test_pdam_weighs_what_it_translated_and_inpainted_and_shows_it_to_both_adversaries(made):
    method, batch = made("pdam")
    found = method.losses(batch, 0.5)
    rewind(batch)
    translated = pdam.translate(batch.source, radial_power(batch.source), method.target_power, batch.generator)
    inpainted = pdam.inpaint(translated, batch.source_labels)
    assert not torch.equal(inpainted, translated)
    features, seg = supervised_pass(method.student, inpainted, batch.source_labels)
    target = method.student.features(batch.target)
    deep = [method.on_features(part["v6"]) for part in (features, target)]
    maps = [method.on_entropy(losses.self_information(method.student.classify(part))) for part in (features, target)]
    weight = (pdam.source_weight(deep[0]) + pdam.source_weight(maps[0])) / 2
    assert_same(found["seg"], weight * seg)
    assert_same(found["dis"], losses.adversarial_loss(*deep))
    assert_same(found["dis_entropy"], losses.adversarial_loss(*maps))


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_box_is_a_cube_of_the_published_sides(seed):
    box = asc.cut_box(torch.Size([40, 40, 40]), torch.Generator().manual_seed(seed))
    sides = [int(box.any(a).any(b - 1).sum()) for a, b in ((1, 2), (0, 2), (0, 1))]
    assert box.sum() == np.prod(sides) and max(sides) - min(sides) <= 1
    assert min(sides) >= 40 * 0.25**0.5 - 1 and max(sides) <= 40 * 0.5**0.5 + 1


def test_asc_agrees_with_itself_where_both_looks_are_one(made, monkeypatch):
    method, batch = made("asc")
    monkeypatch.setattr(asc, "swap_amplitude", lambda content, *_, **__: content)
    monkeypatch.setattr(asc, "cut_box", lambda shape, _: torch.zeros(shape, dtype=torch.bool))
    found = method.losses(batch, 1.0)
    assert found["con"].item() == pytest.approx(0, abs=1e-6), "student and teacher are the same network"
    once = supervised_pass(method.student, zscore(batch.source), batch.source_labels)[1]
    assert found["seg"].item() == pytest.approx(2 * once.item(), rel=1e-4)
    monkeypatch.undo()
    assert method.losses(batch, 1.0)["con"] > 0


@pytest.mark.parametrize("name", ["asc", "asc-slices"])
def test_asc_pairs_each_look_with_the_other(made, monkeypatch, name):
    """The student on the target in the source's look against the teacher on the target, and the other way round."""
    method, batch = made(name)
    monkeypatch.setattr(method, "BAND", 0.2)
    monkeypatch.setattr(asc, "cut_box", lambda shape, _: torch.zeros(shape, dtype=torch.bool))
    estrange(method)
    looks = [batch.target, zscore(swap_amplitude(batch.target, batch.source, 4, planar=name == "asc-slices"))]
    teachers = [method.teacher.foreground(look) for look in looks]
    students = [method.student(look).softmax(1)[:, 1] for look in looks]
    expected = (students[1] - teachers[0]).square().mean() + (students[0] - teachers[1]).square().mean()
    assert method.losses(batch, 1.0)["con"].item() == pytest.approx(200 * expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["asc", "asc-slices"])
def test_asc_segments_the_source_in_both_looks(made, monkeypatch, name):
    method, batch = made(name)
    monkeypatch.setattr(method, "BAND", 0.2)
    translated = zscore(swap_amplitude(batch.source, batch.target, 4, planar=name == "asc-slices"))
    expected = [supervised_pass(method.student, x, batch.source_labels)[1] for x in (batch.source, translated)]
    assert_same(method.losses(batch, 0.5)["seg"], sum(expected))


def test_asc_mixes_views_and_what_the_teacher_says_of_them_alike(made, monkeypatch):
    method, batch = made("asc")
    monkeypatch.setattr(asc, "swap_amplitude", lambda content, *_, **__: content)
    estrange(method)
    con = method.losses(batch, 0.5)["con"]
    rewind(batch)
    box = asc.cut_box(batch.target.shape[2:], batch.generator)
    found, wanted = batch.target, method.teacher.foreground(batch.target)
    found, wanted = (torch.where(box, x.roll(1, 0), x) for x in (found, wanted))
    distance = (method.student(found).softmax(1)[:, 1] - wanted).square().mean()
    assert_same(con, 200 * math.exp(-1.25) * 2 * distance, rtol=1e-4)


def test_slices_do_not_see_each_other():
    torch.manual_seed(0)
    network = methods.build("asc-slices", 2).student.eval()
    volume = torch.randn(1, 1, 6, 16, 16)
    changed = volume.clone()
    changed[:, :, 2] += 1
    with torch.no_grad():
        apart = (network(volume) - network(changed)).abs().amax((0, 1, 3, 4))
    assert (apart > 1e-6).tolist() == [False, False, True, False, False, False]
    taps = network.features(volume)
    assert [tuple(taps[tap].shape[2:]) for tap in ("v2", "v4", "v6")] == [(6, 8, 8), (6, 4, 4), (6, 2, 2)]


def test_le_uda_entropies_of_equal_predictions_are_equal(generator):
    logits = torch.randn(2, 2, 4, 4, 4, generator=generator)
    foreground = logits.softmax(1)[:, 1]
    assert le_uda.entropy_distance(logits, foreground) < 1e-10
    # Closed form: one bit spread over two classes, against certainty.
    assert le_uda.entropy_distance(torch.zeros_like(logits), torch.ones(2, 4, 4, 4)).item() == pytest.approx(0.5, abs=1e-4)


def test_le_uda_lets_its_teachers_speak_later_and_keeps_them_still(made):
    method, batch = made("le-uda")
    early, late = (method.losses(batch, progress) for progress in (0.0, 1.0))
    assert set(late) == {"seg", "con", "ent", "dis"}
    assert early["con"] < 0.1 * late["con"] and early["ent"] < 0.1 * late["ent"]
    sum(late.values()).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert method.student.conv1a.weight.grad.abs().max() > 0


def le_uda_looks(method, batch):
    """The source in the target's look, and the target in the source's."""
    rewind(batch)
    power = radial_power(batch.source)
    source_as_target = pdam.translate(batch.source, power, method.target_power, batch.generator)
    return source_as_target, pdam.translate(batch.target, method.target_power, power, batch.generator)


def test_le_uda_pairs_its_student_with_its_teachers(made):
    method, batch = made("le-uda")
    estrange(method)
    found = method.losses(batch, 0.5)
    source_as_target, target_as_source = le_uda_looks(method, batch)
    on_source, on_target = method.student(batch.source), method.student(target_as_source)
    s, ts, st, t = (
        method.teacher.foreground(mean_teacher.jitter(volumes, batch.generator))
        for volumes in (batch.source, target_as_source, source_as_target, batch.target)
    )
    con = losses.prediction_distance(on_source, s) + losses.prediction_distance(on_target, ts)
    ent = le_uda.entropy_distance(on_source, st) + le_uda.entropy_distance(on_target, t)
    assert_same(found["con"], math.exp(-1.25) * con / 2)
    assert_same(found["ent"], 0.1 * math.exp(-1.25) * ent / 2)


def test_le_uda_reverses_what_its_adversary_says_of_the_target_and_its_look(made):
    method, batch = made("le-uda")
    dis = method.losses(batch, 0.5)["dis"]
    source_as_target, _ = le_uda_looks(method, batch)
    maps = [losses.self_information(method.student(volumes)) for volumes in (source_as_target, batch.target)]
    own = losses.adversarial_loss(*(method.discriminator(part) for part in maps))
    student = method.student.conv1a.weight
    assert_same(dis, own)
    torch.testing.assert_close(gradient(dis, student), -1e-2 * gradient(own, student), rtol=1e-3, atol=1e-9)
