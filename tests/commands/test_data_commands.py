import shlex

import numpy as np
import pytest
import torch
import tyro

from voxuda.commands.data import Data
from voxuda.data import ribosomes
from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.data.subtomograms import load_domain
from voxuda.denoising import noise
from voxuda.errors import InputError
from voxuda.simulation import molecules, quick
from voxuda.simulation.samples import save_samples


def run(*arguments):
    tyro.cli(Data, args=[str(a) for a in arguments]).run()


def table(capsys):
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:17].strip(): line[18:] for line in lines if not line.startswith(("warning: ", "next: "))}
    return rows, [line for line in lines if line.startswith("warning: ")], lines[-1]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    samples = quick.simulate_target([molecules.load(name) for name in ("4v94", "4cr2")], n_per_molecule=4, seed=0)
    return save_samples(samples, tmp_path_factory.mktemp("target") / "t")


def test_check_says_what_is_there_and_what_to_do_next(target, capsys):
    run("check", target)
    rows, warnings, following = table(capsys)
    domain = load_domain(target)
    shares = domain.masks.float().mean(dim=(1, 2, 3, 4))
    assert rows["samples"] == "8" and rows["classes"] == "4cr2 4, 4v94 4"
    assert rows["box"] == "32 x 32 x 32 voxels, read as 32 x 32 x 32"
    assert rows["masks"] == f"8, foreground min {shares.min():.2%}, median {shares.median():.2%}, max {shares.max():.2%}"
    above = noise.highpass(domain.volumes).var(dim=(1, 2, 3, 4), correction=0).mean()
    assert rows["high frequencies"].startswith(f"{above:.1%} of the variance")
    steps = torch.stack([v[m].mean() - v[~m].mean() for v, m in zip(domain.volumes, domain.masks, strict=True)])
    assert rows["polarity"].startswith(f"protein is bright: inside the masks minus outside {steps.mean():+.2f} ±")
    assert not warnings and following.startswith(f"next: voxuda train --method vox-uda --target {target} --scale laptop")


def test_dark_protein_is_seen_and_convert_turns_it(target, tmp_path, capsys):
    run("convert", target, "--invert", "--out", tmp_path / "dark")
    assert torch.equal(
        torch.from_numpy(read_mrc(tmp_path / "dark" / "volumes.mrcs").data),
        -torch.from_numpy(read_mrc(target / "volumes.mrcs").data),
    )
    capsys.readouterr()
    run("check", tmp_path / "dark")
    rows, warnings, following = table(capsys)
    assert rows["polarity"].startswith("protein is dark") and len(warnings) == 1
    assert following == f"next: voxuda data convert {tmp_path / 'dark'} --invert --out dark-bright"
    run("convert", tmp_path / "dark", "--invert", "--out", tmp_path / "bright")
    torch.testing.assert_close(load_domain(tmp_path / "bright").volumes, load_domain(target).volumes)


def test_masks_that_are_1_outside_are_doubted_before_the_polarity(tmp_path, capsys):
    """Bright molecules off the centre, their masks exchanged in most: no advice to invert the volumes."""
    steps = np.arange(32) - 12
    ball = steps[:, None, None] ** 2 + steps[:, None] ** 2 + steps**2 < 64
    for i in range(10):
        write_mrc(tmp_path / f"{i}.mrc", np.random.default_rng(i).normal(size=(32, 32, 32)) + ball)
        write_mrc(tmp_path / f"{i}_mask.mrc", ball if i == 0 else ~ball)
    run("check", tmp_path)
    rows, warnings, following = table(capsys)
    assert rows["polarity"] == "not known: the masks seem to be 1 outside the molecule"
    assert len(warnings) == 1 and "fill 94% of a box and 100% of its faces" in warnings[0]
    assert following == f"next: exchange 0 and 1 in the masks, then voxuda data check {tmp_path}"
    for i in range(10):  # a molecule that fills most of its box, dark
        block = np.pad(np.ones((28, 28, 28), bool), 2)
        write_mrc(tmp_path / f"{i}.mrc", np.random.default_rng(i).normal(size=(32, 32, 32)) - block, overwrite=True)
        write_mrc(tmp_path / f"{i}_mask.mrc", block, overwrite=True)
    run("check", tmp_path)
    rows, _, following = table(capsys)
    assert rows["polarity"].startswith("protein is dark") and "--invert" in following


def test_a_header_that_nobody_set_is_doubted_and_corrected(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    for i in range(2):
        write_mrc(tmp_path / "raw" / f"{i}.mrc", np.random.default_rng(i).normal(size=(40, 40, 40)), 1.0)
    run("check", tmp_path / "raw")
    assert "warning: " in (said := capsys.readouterr().err) and "pass --true-voxel-size to `voxuda data convert`" in said
    run("convert", tmp_path / "raw", "--true-voxel-size", 10, "--voxel-size", 12.5, "--out", tmp_path / "out")
    assert "warning" not in capsys.readouterr().err
    assert read_mrc(tmp_path / "out" / "volumes.mrcs").voxel_size == pytest.approx(12.5)


@pytest.mark.parametrize("sign", [1, -1])
def test_large_boxes_are_cropped_in_what_check_suggests(tmp_path, capsys, sign):
    (tmp_path / "mine").mkdir()
    for i in range(10):  # a bright or dark cube in 40 voxels of 13 Å, which 32 voxels would make 16.25 Å
        cube = np.pad(np.ones((8, 8, 8)), 16)
        noisy = sign * 30 * cube + np.random.default_rng(i).normal(size=cube.shape)
        write_mrc(tmp_path / "mine" / f"{i}.mrc", noisy, 13.0)
    run("check", tmp_path / "mine")
    said = capsys.readouterr().out
    following = [line for line in said.splitlines() if line.startswith("next")]
    assert "voxels are read as 16.25 Å" in said and all("--voxel-size 13 " in line for line in following)
    assert ["--invert" in line for line in following] == ([False] if sign > 0 else [True, False])


def test_boxes_that_are_too_small_cannot_be_cropped(tmp_path, capsys):
    for i in range(3):
        write_mrc(tmp_path / f"{i}.mrc", np.random.default_rng(i).normal(size=(24, 24, 24)), 13.0)
    run("check", tmp_path)
    said = capsys.readouterr().out
    assert "voxels are read as 9.75 Å" in said and "extract boxes of at least 32 voxels" in said
    assert "--voxel-size" not in said


def test_convert_to_another_voxel_size_and_size(tmp_path, capsys):
    for name in ("ribosome/a", "TRiC/b"):
        path = tmp_path / "raw" / f"{name}.mrc"
        path.parent.mkdir(parents=True)
        write_mrc(path, np.random.default_rng(0).normal(size=(40, 40, 44)), 10.0)
    run("convert", tmp_path / "raw", "--size", 16, "--voxel-size", 20, "--out", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"volumes.mrcs", "samples.csv"}
    written = read_mrc(tmp_path / "out" / "volumes.mrcs")
    assert written.data.shape == (2, 16, 16, 16) and written.voxel_size == pytest.approx(20.0)
    assert load_domain(tmp_path / "out").classes == ["TRiC", "ribosome"]
    with pytest.raises(InputError, match="not empty"):
        run("convert", tmp_path / "raw", "--out", tmp_path / "out")


def test_check_warns_of_what_is_suspicious(tmp_path, capsys):
    generator = np.random.default_rng(0)
    smooth = np.sin(2 * np.pi * np.arange(24) / 24)
    for i, mask in enumerate([np.zeros((24, 24, 26)), np.ones((24, 24, 26)), generator.random((24, 24, 26)) > 0.9]):
        wave = smooth[:, None, None] + smooth[:, None] * np.ones(26)
        write_mrc(tmp_path / f"{i}.mrc", (i + 1) * wave)
        write_mrc(tmp_path / f"{i}_mask.mrc", mask)
    run("check", tmp_path)
    rows, warnings, _ = table(capsys)
    assert rows["voxel size"] == "not in the headers" and rows["classes"] == "unknown 3"
    assert rows["box"] == "24 x 24 x 26 voxels, read as 32 x 32 x 32"
    for text in (
        "3 boxes are not cubes",
        "boxes of 24 voxels are upsampled to 32",
        "almost no high frequencies",
        f"the mask is empty in {tmp_path / '0.mrc'}.",
        f"the mask is full in {tmp_path / '1.mrc'}.",
    ):
        assert any(text in line for line in warnings), text


def test_check_says_to_which_side_smoothed_boxes_lean(tmp_path, capsys):
    volumes = quick.simulate_target([molecules.load("4v4r")], n_per_molecule=10).volumes.numpy()
    for sign, lean in ((1, (9, 10)), (-1, (0, 1))):
        folder = tmp_path / str(sign)
        folder.mkdir()
        for i, volume in enumerate(volumes):
            write_mrc(folder / f"{i}.mrc", sign * volume)
        run("check", folder)
        said = capsys.readouterr().out
        print(said, end="")
        rows, warnings, _ = table(capsys)
        assert [
            f"if protein is dark: voxuda data convert {folder} --invert" in said,
            "if it is bright: voxuda train" in said,
        ] == ([sign == -1] * 2)
        assert any(f"smoothed, {n} of 10 boxes lean bright" in rows["polarity"] for n in lean)
        assert any("nearly all boxes lean dark" in line for line in warnings) == (sign == -1)


def test_check_does_not_guess_without_masks(tmp_path, capsys):
    write_mrc(tmp_path / "a.mrc", np.random.default_rng(0).exponential(size=(32, 32, 32)))
    run("check", tmp_path)
    rows, warnings, _ = table(capsys)
    assert rows["polarity"].startswith("not known without masks; smoothed, ") and rows["masks"].startswith("none")
    assert any("one sample is too few" in line for line in warnings)
    write_mrc(tmp_path / "a_mask.mrc", np.ones((32, 32, 32), bool))
    run("check", tmp_path)
    assert table(capsys)[0]["polarity"].startswith("not known: no mask has both")


def test_commands_to_copy_hold_for_paths_with_spaces(target, tmp_path, monkeypatch, capsys):
    spaced = tmp_path / "my data"
    run("convert", target, "--out", spaced)
    assert f"`voxuda data check '{spaced}'`" in capsys.readouterr().out
    run("check", spaced)
    words = shlex.split(table(capsys)[2])
    assert words[words.index("--target") + 1] == str(spaced) and words[-1] == "runs/my data"
    run("convert", spaced, "--invert", "--out", tmp_path / "dark one")
    run("check", tmp_path / "dark one")
    assert shlex.split(table(capsys)[2])[-4:] == [str(tmp_path / "dark one"), "--invert", "--out", "dark one-bright"]
    monkeypatch.setattr(ribosomes, "fetch", lambda out: None)
    monkeypatch.setattr(ribosomes, "prepare", lambda source, out, **_: None)
    run("fetch", "ribosomes-12A", "--out", "my stacks")
    assert "next: voxuda data ribosomes 'my stacks' --out" in capsys.readouterr().out
    run("ribosomes", "my stacks", "--out", tmp_path / "my own")
    assert f"`voxuda data check '{tmp_path / 'my own'}'`" in capsys.readouterr().out


@pytest.mark.parametrize("masks", ["labels", "seg"])
def test_masks_taken_for_a_class_are_refused(tmp_path, masks):
    for folder in ("volumes", masks):
        (tmp_path / folder).mkdir()
    for i in range(2):
        volume = np.random.default_rng(i).normal(size=(32, 32, 32))
        write_mrc(tmp_path / "volumes" / f"{i}.mrc", volume)
        write_mrc(tmp_path / masks / f"{i}.mrc", volume > 1)
    for command in (["check", tmp_path], ["convert", tmp_path, "--out", tmp_path / "out"]):
        with pytest.raises(InputError, match=rf"{masks}/0\.mrc: holds only two values and looks like a mask; name the folder"):
            run(*command)
    (tmp_path / masks).rename(tmp_path / "Masks")
    domain = load_domain(tmp_path)
    assert domain.masks is not None and domain.classes == ["unknown"] * 2


def test_bad_input_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        run("check", tmp_path / "none")
    write_mrc(tmp_path / "a.mrc", np.ones((32, 32, 32)))
    for command in (["check", tmp_path], ["convert", tmp_path, "--out", tmp_path / "out"]):
        with pytest.raises(InputError, match=r"a\.mrc: every voxel has the same value"):
            run(*command)
    assert not (tmp_path / "out").exists()
