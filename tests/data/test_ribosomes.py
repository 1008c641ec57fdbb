"""Real ribosomes: the download against a repository on disk, and subtomograms of the real particles."""

import csv
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from voxuda.commands.main import main
from voxuda.data import ribosomes, tilt_stacks
from voxuda.data.mrc import write_mrc
from voxuda.data.subtomograms import load_domain
from voxuda.errors import InputError
from voxuda.signal import rotation
from voxuda.simulation import packing
from voxuda.simulation.molecules import load, molecular_volume

VOLUME = molecular_volume(load("4v4r"), ribosomes.VOXEL_SIZE)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def publish(folder: Path) -> None:
    """Make a folder a repository from which single files of a commit can be had, as on GitHub."""
    if shutil.which("git") is None:
        pytest.skip("no git")
    (folder / "other.txt").write_text("not wanted")
    git(folder, "init", "--quiet")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(folder, "config", "uploadpack.allowFilter", "true")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")


@pytest.fixture
def upstream(tmp_path, monkeypatch) -> Path:
    """A repository of tiny files by the published names, and the module told of it."""
    folder = tmp_path / "upstream"
    content = {name: name.encode() for name in ribosomes.CHECKSUMS}
    content |= {
        ribosomes._stack(t, i + 1): f"{t} {i}".encode() for t in ribosomes.TOMOGRAMS for i in range(ribosomes.PARTICLES)
    }
    for name, text in content.items():
        path = folder / ribosomes.FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    path.chmod(0o755)
    publish(folder)
    digest = {name: hashlib.sha256(text).hexdigest() for name, text in content.items()}
    monkeypatch.setattr(ribosomes, "CHECKSUMS", {name: digest[name] for name in ribosomes.CHECKSUMS})
    joined = {t: "".join(digest[ribosomes._stack(t, i + 1)] for i in range(10)) for t in ribosomes.STACK_CHECKSUMS}
    known = {t: hashlib.sha256(text.encode()).hexdigest() for t, text in joined.items()}
    monkeypatch.setattr(ribosomes, "STACK_CHECKSUMS", known)
    monkeypatch.setattr(ribosomes, "URL", folder.as_uri())
    monkeypatch.setattr(ribosomes, "COMMIT", git(folder, "rev-parse", "HEAD"))
    return folder


def test_fetch_brings_the_pinned_files_and_nothing_else(upstream, tmp_path):
    (upstream / "later.txt").write_text("a later commit is not what is pinned")
    shutil.rmtree(upstream / ribosomes.FOLDER / ribosomes.STEM)
    git(upstream, "add", ".")
    git(upstream, "commit", "--quiet", "-m", "two")
    out = ribosomes.fetch(tmp_path / "out")
    assert sorted(p.name for p in out.iterdir()) == sorted([*ribosomes.CHECKSUMS, ribosomes.STEM])
    stacks = list((out / ribosomes.STEM).rglob("*.mrcs"))
    assert len(stacks) == 40
    assert not any(path.stat().st_mode & 0o111 for path in stacks), "one was a program upstream"
    with pytest.raises(InputError, match="not empty"):
        ribosomes.fetch(out)


@pytest.mark.parametrize("name", [ribosomes._stack("Unt_083", 4), ribosomes.AVERAGE])
def test_fetch_refuses_a_changed_file(upstream, tmp_path, monkeypatch, name):
    (upstream / ribosomes.FOLDER / name).write_bytes(b"changed")
    git(upstream, "commit", "--quiet", "-am", "two")
    monkeypatch.setattr(ribosomes, "COMMIT", git(upstream, "rev-parse", "HEAD"))
    at_fault = "Unt_083" if "Unt_083" in name else name
    with pytest.raises(InputError, match=f"^{at_fault}: its SHA-256 is not the one published"):
        ribosomes.fetch(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fetch_refuses_a_commit_without_a_stack(upstream, tmp_path, monkeypatch):
    (upstream / ribosomes.FOLDER / ribosomes._stack("Unt_076", 3)).unlink()
    git(upstream, "commit", "--quiet", "-am", "two")
    monkeypatch.setattr(ribosomes, "COMMIT", git(upstream, "rev-parse", "HEAD"))
    with pytest.raises(InputError, match=r"Unt_076_12.00A_000003.mrcs: missing from commit"):
        ribosomes.fetch(tmp_path / "out")


def test_fetch_offline_says_so_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(ribosomes, "URL", (tmp_path / "no repository").as_uri())
    with pytest.raises(InputError, match="could not be downloaded; check the network") as caught:
        ribosomes.fetch(tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no such program; install git"):
        ribosomes.fetch(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outline_encloses_a_ribosome(generator):
    volume = molecular_volume(load("4v4r"), 12.0)
    assert 2500 < volume < 4500  # 2.4 MDa fill 2960 nm³ at 810 Da/nm³; the level set lies outside them
    assert molecular_volume(load("4v4r"), 10.0) == pytest.approx(volume, rel=0.03)
    noise = torch.randn(32, 32, 32, generator=generator)
    smooth, level = ribosomes.outline(noise, 12.0, volume)
    assert int((smooth > level).sum()) == round(volume / 1.728)
    assert smooth.std() < 0.7 * noise.std()


def test_prepare_writes_what_load_reads(stacks, tmp_path):
    out = ribosomes.prepare(stacks, tmp_path / "out", volume=VOLUME, missing="skip")
    domain = load_domain(out)
    assert domain.volumes.shape == (20, 1, 32, 32, 32) and domain.classes == ["ribosome"] * 20
    sizes = domain.masks.sum((1, 2, 3, 4))
    assert ((sizes > 2000) & (sizes < 2400)).all()
    with open(out / "samples.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "molecule", "specimen", "particle", "voxel_size"]
    assert {row["specimen"] for row in rows} == {"Unt_050.tomostar", "Unt_083.tomostar"}
    tested = [part.groups for part in domain.split(0.6, seed=0)]
    assert [len(groups) for groups in tested] == [10, 10] and len({*tested[0]}) == len({*tested[1]}) == 1
    assert not {*tested[0]} & {*tested[1]}
    found, supplied = ribosomes.read(stacks, missing="skip")
    smooth, level = ribosomes.outline(supplied, 12.0, VOLUME)
    turns = packing.random_rotations(len(found), torch.Generator().manual_seed(0))
    elsewhere = torch.stack([rotation.place(smooth, turn) > level for turn in turns])[:, None]
    inside, beside = ((domain.volumes * m).sum((1, 2, 3, 4)) / m.sum((1, 2, 3, 4)) for m in (domain.masks, elsewhere))
    assert (inside > 0.1).all(), "protein is bright, where the mask is"
    assert (inside - beside).mean() > 0.05, "a mask in a random pose fits as well"


def test_prepare_refuses_what_does_not_fit(stacks, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        ribosomes.prepare(stacks, tmp_path / "out", volume=VOLUME)
    with pytest.raises(InputError, match="optimisation_set"):
        ribosomes.prepare(tmp_path, tmp_path / "out", volume=VOLUME)
    for path in stacks.iterdir():
        if path.name != ribosomes.AVERAGE:
            (tmp_path / path.name).symlink_to(path)
    write_mrc(tmp_path / ribosomes.AVERAGE, np.random.default_rng(0).normal(size=(16, 16, 16)), 24.0)
    with pytest.raises(InputError, match="does not fit the images"):
        ribosomes.prepare(tmp_path, tmp_path / "out", volume=VOLUME, missing="skip")


def test_the_data_hold_their_transfer_squared(stacks):
    """Divided by t², the noise of the first and the last image is one and the same: nothing is left to weight by dose."""
    found, _ = ribosomes.read(stacks, missing="skip")
    found = [p for p in found if p.tomogram == "Unt_050.tomostar"]
    power = torch.stack([torch.fft.rfft2(p.images).abs().square() for p in found]).mean(0)
    k = torch.hypot(torch.fft.fftfreq(32)[:, None], torch.fft.rfftfreq(32)) * 32
    ring = (k > 8.5) & (k < 13.5)
    flat = (power / tilt_stacks.transfer(found[0], 32).square())[:, ring].mean(1)
    order = found[0].exposure.argsort()
    assert 0.8 < float(flat[order[:5]].mean() / flat[order[-5:]].mean()) < 1.25
    assert float(power[order[:5]][:, ring].mean() / power[order[-5:]][:, ring].mean()) > 3


def test_fetch_from_the_command_line_and_offline_in_one_sentence(upstream, tmp_path, monkeypatch, capsys):
    assert main(["data", "fetch", "ribosomes-12A", "--out", str(tmp_path / "stacks")]) == 0
    assert (tmp_path / "stacks" / ribosomes.AVERAGE).is_file()
    monkeypatch.setattr(ribosomes, "URL", (tmp_path / "nowhere").as_uri())
    capsys.readouterr()
    assert main(["data", "fetch", "ribosomes-12A", "--out", str(tmp_path / "again")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("voxuda: ") and "check the network" in said and said.count("\n") == 1
    assert not (tmp_path / "again").exists()


def test_subtomograms_from_the_command_line(stacks, tmp_path, capsys):
    assert main(["data", "ribosomes", str(stacks), "--missing", "skip", "--out", str(tmp_path / "r")]) == 0
    assert main(["data", "check", str(tmp_path / "r")]) == 0
    assert "protein is bright" in capsys.readouterr().out
