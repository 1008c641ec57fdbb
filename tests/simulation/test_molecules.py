import functools
import gzip
import hashlib
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.errors import InputError
from voxuda.simulation import beads, molecules


@pytest.mark.parametrize("name", molecules.available())
def test_embedded_molecules_are_complete(name):
    molecule = molecules.load(name)
    about = molecule.provenance
    assert about["beads"] == len(molecule.masses)
    assert ("scaled_to_dalton" in about) == ("PolNet" in about["source"]), "each map was scaled to a mass"
    assert about["licence"] in ("CC0-1.0", "Apache-2.0") and name.upper() in about["source"]
    assert about["agreement"]["correlation"] >= 0.995 and about["agreement"]["mask_iou"] >= 0.95
    assert molecules.embedded_size(name) < 25_000
    assert torch.isfinite(molecule.positions).all() and (molecule.masses > 0).all() and (molecule.spreads >= 0).all()


@pytest.mark.parametrize("name", molecules.available())
def test_beads_agree_with_all_atoms_or_the_map(name, molecule_files):
    molecule = molecules.load(name)  # as committed, in half precision
    (file,) = (word for word in molecule.provenance["source"].split() if "." in word)
    path = molecule_files / file
    if path.suffix == ".mrc":
        points = beads.read_map_points(path, float(molecule.provenance["scaled_to_dalton"]))
        reference, shift = beads.map_on_grid(*points, 10.0)
    else:
        positions, masses = beads.read_atoms(path)
        centred = positions - (positions.min(0) + positions.max(0)) / 2
        reference, shift = torch.from_numpy(beads.atom_density(centred, masses, 40)), torch.zeros(3)
    measured = beads.agreement(molecule, reference, shift)
    assert measured["correlation"] >= 0.995 and measured["mask_iou"] >= 0.95


def test_beads_agree_with_a_density_of_all_atoms(root):
    """The density of all atoms of PDB 3GL1 (CC0) at 10 angstrom is in the repository, so that one is measured anywhere."""
    reference = torch.from_numpy(read_mrc(root / "tests" / "reference" / "3gl1_10A.mrc").data)
    measured = beads.agreement(molecules.load("3gl1"), reference, torch.zeros(3))
    assert measured["correlation"] >= 0.995 and measured["mask_iou"] >= 0.95 and measured["voxels"] > 100


def test_reference_density_is_what_the_atoms_give(root, molecule_files):
    positions, masses = beads.read_atoms(molecule_files / "3gl1.pdb.gz")
    reference = read_mrc(root / "tests" / "reference" / "3gl1_10A.mrc").data
    centred = positions - (positions.min(0) + positions.max(0)) / 2
    np.testing.assert_allclose(reference, beads.atom_density(centred, masses, len(reference)), atol=0.5)


def test_assembly_adds_the_symmetry_copies(molecule_files):
    alone, whole = (beads.read_atoms(molecule_files / "1bxn.pdb.gz", assembly=a)[0] for a in (False, True))
    assert len(whole) == 2 * len(alone)


def test_embedded_beads_are_what_the_command_derives(molecule_files):
    embedded = molecules.load("3gl1")
    about = {key: embedded.provenance[key] for key in ("description", "source", "licence")}
    again = beads.derive_coordinates("3gl1", molecule_files / "3gl1.pdb.gz", provenance=about)
    torch.testing.assert_close(again.positions, embedded.positions, atol=0.05, rtol=0)  # half precision on disk
    torch.testing.assert_close(again.masses, embedded.masses)
    assert {**again.provenance, "agreement": 0} == {**embedded.provenance, "agreement": 0}


def test_atom_density_is_trilinear():
    volume = beads.atom_density(np.array([[2.5, 0.0, 0.0]]), np.array([8.0]), 8)
    assert volume[4, 4, 4] == 6.0 and volume[5, 4, 4] == 2.0 and volume.sum() == 8.0


def test_density_conserves_mass_and_matches_a_gaussian():
    position, mass, spread = torch.zeros(1, 1, 3), torch.full((1, 1), 1000.0), torch.full((1, 1), 15.0)
    volume = molecules.density(position, mass, spread, 32)
    assert volume.sum() == pytest.approx(1000.0, rel=1e-4)
    variance = 15.0**2 + 100 / 6
    assert volume[0, 0, 16, 16, 16] == pytest.approx(1000 * 1000 / (2 * np.pi * variance) ** 1.5, rel=1e-4)
    assert 8 * molecules.density(position, mass, spread, 32, 20.0).sum() == pytest.approx(1000.0, rel=1e-5)


def test_derive_keeps_mass_and_centre():
    rng = np.random.default_rng(0)
    positions, masses = rng.normal(size=(500, 3)) * 20, rng.uniform(1, 20, 500)
    twice = beads.derive("test", np.repeat(np.eye(3), [2, 2, 1], axis=0), np.ones(5), beads=5)
    assert torch.isfinite(twice.positions).all() and sorted(twice.masses.tolist()) == [1, 2, 2], "points in one place"
    molecule = beads.derive("test", positions, masses, beads=50)
    assert molecule.mass == pytest.approx(masses.sum(), rel=1e-5)
    centre = (positions.min(0) + positions.max(0)) / 2
    by_beads = (molecule.masses[:, None] * molecule.positions).sum(0).numpy() / molecule.mass
    np.testing.assert_allclose(by_beads, (masses[:, None] * positions).sum(0) / masses.sum() - centre, atol=1e-3)


def test_beads_round_trip(tmp_path):
    molecule = molecules.load("1bxn")
    path = molecules.write_beads(tmp_path / "m.npz", molecule)
    again = molecules.read_beads(path)
    torch.testing.assert_close(again.positions, molecule.positions)
    made_up = molecules.Molecule("shell", molecule.positions, molecule.masses, molecule.spreads, {"source": "made up"})
    assert molecules.read_beads(molecules.write_beads(path, made_up, overwrite=True)).name == "shell"
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match="not a bead file"):
        molecules.read_beads(path)


def test_unknown_names_point_to_the_remedy():
    with pytest.raises(InputError, match="its stand-in is 3gl1"):
        molecules.load("1f1b")
    with pytest.raises(InputError, match="not a PDB id"):
        beads.fetch("../x")


def test_fetch_offline_is_one_sentence(tmp_path, monkeypatch):
    import pooch

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(InputError, match=r"1f1b\.cif\.gz: could not be downloaded"):
        beads.fetch("1f1b", cache=tmp_path)


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """File that a server on this machine hands out as the entry 1f1b, through pooch itself; what is in it is not read."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(Silent, directory=tmp_path / "served")
    monkeypatch.setattr(beads, "derive_coordinates", lambda name, path, **_: Path(path).read_bytes())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(beads, "_PDB_URL", f"http://127.0.0.1:{server.server_port}/{{}}.cif.gz")
        yield tmp_path / "served" / "1f1b.cif.gz"
        server.shutdown()


def test_fetch_refuses_another_checksum(tmp_path, served):
    served.write_bytes(gzip.compress(b"not what was asked for"))
    with pytest.raises(InputError, match=r"1f1b\.cif\.gz: does not have the checksum asked for"):
        beads.fetch("1f1b", checksum="0" * 64, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("1f1b*"))


def test_fetch_asks_for_what_came_first(tmp_path, served):
    """A file of the cache that was damaged is fetched again, an entry that was revised is refused until its sum is named."""
    first, second = gzip.compress(b"an entry"), gzip.compress(b"its revision")
    fetch = functools.partial(beads.fetch, "1f1b", cache=tmp_path)
    served.write_bytes(first)
    assert fetch() == first
    assert not (tmp_path / "1f1b.cif.gz").stat().st_mode & 0o111, "a file that can be run"
    (tmp_path / "1f1b.cif.gz").write_bytes(b"damaged")
    assert fetch() == first
    served.write_bytes(second)
    assert fetch() == first  # from the cache
    (tmp_path / "1f1b.cif.gz").unlink()
    with pytest.raises(InputError, match=r"does not have the checksum recorded in .*1f1b\.cif\.gz\.sha256"):
        fetch()
    assert fetch(checksum=hashlib.sha256(second).hexdigest()) == second
    assert fetch() == second


def test_fetch_reads_mmcif(tmp_path, monkeypatch, molecule_files):
    import gemmi
    import pooch

    structure = gemmi.read_structure(str(molecule_files / "3gl1.pdb.gz"))
    path = tmp_path / "3gl1.cif.gz"
    path.write_bytes(gzip.compress(structure.make_mmcif_document().as_string().encode()))
    monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: str(path))
    molecule = beads.fetch("3gl1", cache=tmp_path)
    assert molecule.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert molecule.mass == pytest.approx(molecules.load("3gl1").mass, rel=0.01)


def test_nine_molecules_are_all_that_no_target_holds():
    assert set(molecules.NINE) == set(molecules.available()) - {*molecules.TARGET_MOLECULES, *molecules.IN_CELLS}


def test_stand_ins_are_embedded():
    for name in [n for group in molecules.PAPER_SOURCE_SETS.values() for n in group]:
        assert molecules.STAND_INS.get(name, name) in molecules.available()


def test_a_map_without_bright_protein_is_refused(tmp_path):
    for name, data in (("dark", -np.ones((8, 8, 8), np.float32)), ("stack", np.ones((2, 8, 8, 8), np.float32))):
        write_mrc(tmp_path / f"{name}.mrc", data, 10.0)
        with pytest.raises(InputError, match=f"{name}.mrc: holds no positive density in three dimensions"):
            beads.read_map_points(tmp_path / f"{name}.mrc", 1e6)
