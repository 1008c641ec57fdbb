"""The script that asks whether poses and hand of the real ribosomes are right, on the real particles."""

import json
import sys
from pathlib import Path

import pytest
import torch

from voxuda.data import ribosomes

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import ribosome_evidence


@pytest.mark.slow
def test_real_poses_and_hand_are_right(stacks):
    found, supplied = ribosomes.read(stacks, missing="skip")
    proof = ribosome_evidence.geometry_evidence(found, supplied, seed=0, draws=1)
    frequency = torch.tensor(proof.frequency)
    fsc = {name: torch.tensor(curve) for name, curve in proof.fsc.items()}
    fine = (frequency > 1 / 60) & (frequency < 1 / 37)
    assert fsc["true"][fine].min() > 0.45
    assert fsc["mirrored"][fine].max() < 0.15 and fsc["random"][fine].abs().max() < 0.15
    assert fsc["halves"][fine].mean() > 0.1
    ranks = torch.tensor(proof.rank)
    assert (ranks == 1).sum() >= 10 and ranks.max() <= 30  # by chance a fifth of one particle would be first
    assert (torch.tensor(proof.rank_supplied) == 1).sum() >= 14
    assert torch.tensor(proof.rank_mirrored).float().median() > 10


@pytest.mark.slow
def test_the_supplied_average_is_a_ribosome_and_its_mirror_image_is_none(stacks):
    _, supplied = ribosomes.read(stacks, missing="skip")
    hand = ribosome_evidence.hand_evidence(supplied, 12.0, seed=0, poses=1500)
    fine = slice(7, 12)  # 55 to 32 Å
    assert min(hand["supplied"][fine]) > 0.4 > 0.3 > max(hand["mirrored"][8:12])


def test_the_script_writes_what_the_chapter_reads(stacks, tmp_path, monkeypatch, capsys, root):
    some = ribosome_evidence.Evidence([], {}, [], rank=[1] * 20, rank_supplied=[], rank_mirrored=[])
    monkeypatch.setattr(ribosome_evidence, "geometry_evidence", lambda particles, supplied, seed: some)
    monkeypatch.setattr(ribosome_evidence, "hand_evidence", lambda supplied, voxel_size, seed: {})
    ribosome_evidence.main(stacks, tmp_path / "geometry.json")
    assert "20 of 20 particles" in capsys.readouterr().out
    written = json.loads((tmp_path / "geometry.json").read_text())
    assert "torch" in written["collected_by"]
    assert written.keys() == json.loads((root / "results" / "ribosome-geometry.json").read_text()).keys()
