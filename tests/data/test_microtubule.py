"""The real microtubule: the download against a repository on disk, the label against another, and on a simulated tube."""

import mrcfile
import numpy as np
import pytest
from PIL import Image
from test_ribosomes import git, publish

from voxuda.commands.main import main
from voxuda.data import microtubule
from voxuda.data.download import sha256
from voxuda.data.mrc import read_mrc
from voxuda.errors import InputError


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def tube(shape, shifts):
    """A wall ``(D, H, W)`` whose axis lies some nm off the marked points."""
    places = (np.indices(shape) + 0.5) * microtubule.VOXEL_SIZE / 10
    distance = microtubule.axis_distance(microtubule.MARKED + np.array(shifts), places)
    return (distance > microtubule.WALL[0]) & (distance < microtubule.WALL[1])


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """A repository with a simulated tube by the published name, and the module told of it; the volume and its wall."""
    wall = tube((20, 206, 94), [(0.5, 0, 3.0), (1.0, 0, -1.0), (-0.5, 0, -2.0)])
    noise = np.random.default_rng(0).normal(size=wall.shape)
    volume = (100 + 20 * wall + 15 * noise).clip(0, 255).astype(np.uint8)
    folder = tmp_path / "upstream"
    path = folder / microtubule.FILE
    path.parent.mkdir(parents=True)
    first, *others = map(Image.fromarray, volume)
    first.save(path, save_all=True, append_images=others)
    publish(folder)
    monkeypatch.setattr(microtubule, "URL", folder.as_uri())
    monkeypatch.setattr(microtubule, "COMMIT", git(folder, "rev-parse", "HEAD"))
    monkeypatch.setattr(microtubule, "CHECKSUM", sha256(path))
    return volume, wall


def test_fetch_writes_the_crop_its_wall_and_the_licence(upstream, tmp_path, capsys):
    volume, wall = upstream
    assert main(["data", "fetch", "microtubule", "--out", str(tmp_path / "m t")]) == 0
    assert capsys.readouterr().out.endswith(f"next: voxuda segment '{tmp_path}/m t/microtubule.mrc'\n")
    assert sorted(p.name for p in (tmp_path / "m t").iterdir()) == ["LICENSE-cylindra", "microtubule.mrc", "wall.mrc"]
    made, label = (read_mrc(tmp_path / "m t" / name) for name in ("microtubule.mrc", "wall.mrc"))
    np.testing.assert_array_equal(made.data, volume)
    assert made.voxel_size == label.voxel_size == pytest.approx(10.52)
    assert iou(label.data > 0, wall) > 0.95 and all(map(mrcfile.validate, (made.path, label.path)))
    assert iou(tube(wall.shape, np.zeros(3)), wall) < 0.8, "nothing was there to be fitted"
    assert "Redistributions in binary form" in (tmp_path / "m t" / "LICENSE-cylindra").read_text()
    assert main(["data", "fetch", "microtubule", "--out", str(tmp_path / "m t")]) == 2


def test_fetch_refuses_another_file_and_leaves_nothing(upstream, tmp_path, monkeypatch):
    monkeypatch.setattr(microtubule, "CHECKSUM", 64 * "0")
    with pytest.raises(InputError, match=r"^13pf_MT\.tif: its SHA-256 is not the one published"):
        microtubule.fetch(tmp_path / "out")
    monkeypatch.setattr(microtubule, "URL", (tmp_path / "nowhere").as_uri())
    with pytest.raises(InputError, match="could not be downloaded; check the network"):
        microtubule.fetch(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_real_wall_agrees_with_a_label_made_elsewhere(fetched_microtubule, microtubule_files):
    volume, wall = (read_mrc(fetched_microtubule / name).data for name in ("microtubule.mrc", "wall.mrc"))
    assert volume.shape == (36, 206, 94)
    assert iou(wall > 0, read_mrc(microtubule_files / "reference_wall.mrc").data > 0) >= 0.9
    assert volume[wall > 0].mean() - volume[wall == 0].mean() > 0.7 * volume.std(), "protein is bright, where the label is"
    licence = (fetched_microtubule / "LICENSE-cylindra").read_bytes()
    assert licence == (microtubule_files / "LICENSE-cylindra").read_bytes()
