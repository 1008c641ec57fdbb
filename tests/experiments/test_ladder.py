import dataclasses
import json

import pytest
import torch

from voxuda.commands.main import main
from voxuda.experiments import ladder, sweep, tables
from voxuda.simulation.samples import from_simulation

BASE = ladder.RUNGS[0]


def test_every_rung_but_the_last_differs_from_the_source_in_one_thing():
    def differences(rung):
        return {k for k, v in dataclasses.asdict(rung).items() if v != dataclasses.asdict(BASE)[k]} - {"name", "label"}

    assert not differences(BASE)
    for rung in ladder.RUNGS[1:-1]:
        allowed = {"neighbours", "cytosol"} if rung.name == "crowding" else 1
        assert differences(rung) == allowed or len(differences(rung)) == allowed, rung.name
    assert differences(ladder.RUNGS[-1]) == set().union(*(differences(r) for r in ladder.RUNGS[1:-1]))


def samples(**changes):
    return ladder.simulate_rung(dataclasses.replace(BASE, **changes), 4, (0.3, 0.5), seed=1)


def test_rungs_of_the_same_molecules_show_the_same_ones():
    base = samples()
    for changes in (dict(snr_factor=0.1), dict(white=True), dict(defocus=25e3), dict(wedge_angle=45.0)):
        other = samples(**changes)
        assert torch.equal(base.masks, other.masks) and not torch.equal(base.volumes, other.volumes)


def high_frequencies(volumes):
    spectrum = torch.fft.rfftn(volumes, dim=(-3, -2, -1)).abs().square().mean((0, 1))
    return float(spectrum[:, 12:20].sum() / spectrum.sum())


def test_white_noise_has_the_variance_of_the_low_passed_one_and_another_spectrum():
    low, white, none = samples(), samples(white=True), samples(snr_factor=float("inf"))
    noise = (low.volumes - none.volumes).var(dim=(1, 2, 3, 4))
    torch.testing.assert_close((white.volumes - none.volumes).var(dim=(1, 2, 3, 4)), noise, rtol=0.05, atol=0)
    assert high_frequencies(white.volumes - none.volumes) > 0.05 > 0.001 > high_frequencies(low.volumes - none.volumes)


def test_a_tenth_of_the_snr_is_ten_times_the_noise():
    none = samples(snr_factor=float("inf")).volumes
    ratio = (samples(snr_factor=0.1).volumes - none).var() / (samples().volumes - none).var()
    assert ratio == pytest.approx(10, rel=0.01)


def test_crowding_adds_foreground_and_larger_voxels_shrink_it():
    assert samples(neighbours=12, cytosol=60.0).masks.sum() > samples().masks.sum() > samples(voxel_size=13.5).masks.sum()


@pytest.fixture
def trained(tmp_path, short_smoke):
    """A source-only run of a few steps, where the ladder looks for it."""
    row = tables.select("normalisation", ["source-only-batch"])[0]
    run = row.folder(tmp_path, 0)
    sweep.run_row(row.config("smoke", 0), run, 1)
    return run


def test_the_ladder_from_the_command_line(trained, tmp_path, capsys):
    for name in [*(rung.name for rung in ladder.RUNGS[1:]), *ladder.TARGETS]:
        ladder._train_at_home(name, "smoke", 0, tmp_path / f"rung-{name}" / "seed-0", 1)
    assert main(["reproduce", "ladder", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    result = json.loads((tmp_path / "ladder-smoke.json").read_text())
    names = [rung["name"] for rung in result["rungs"]]
    assert names == [*(rung.name for rung in ladder.RUNGS), *ladder.TARGETS]
    for rung in result["rungs"]:
        assert rung["label"] in shown
        run = rung["runs"][0]
        assert run["n"] >= 1 and 0 < run["foreground"] < 0.5
        assert all(0 <= run[who][kind]["iou"] <= 1 for who in ("source_only", "home") for kind in ("target", "running"))
        assert (run["source_only"] == run["home"]) == (rung["name"] == "source")


def test_batch_norm_statistics_come_from_the_half_that_is_not_scored(trained):
    """Changing the unlabelled half must not change the score with running statistics."""
    domain = from_simulation(samples())
    a = ladder.score(trained, domain)
    domain.volumes[: len(domain) // 2] = torch.randn(len(domain) // 2, 1, 32, 32, 32) ** 3
    b = ladder.score(trained, domain)
    assert a["running"] == b["running"] and a["target"] != b["target"]
