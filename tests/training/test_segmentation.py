"""Files in, masks and what stands beside them out."""

import bz2
import errno
import gzip
import os
import shutil

import mrcfile
import numpy as np
import pytest
import starfile
import torch
from PIL import Image
from scipy import ndimage
from test_tomograms import noise
from torch import nn

from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.errors import InputError
from voxuda.networks.voxresnet import VoxResNet
from voxuda.training import segmentation
from voxuda.training.config import SegmentOptions
from voxuda.training.run_folder import MODELS, find_model, load_network
from voxuda.training.segment_inputs import find_files, read
from voxuda.training.segmentation import segment_files

BALLS = {(20, 25, 30): 8, (20, 60, 66): 6, (21, 90, 20): 3}
"""Radii in voxels of three bright balls, by their centres."""


def balls(shape=(44, 110, 96)):
    grid = np.indices(shape)
    return sum((np.square(grid - np.reshape(c, (3, 1, 1, 1))).sum(0) <= r**2).astype(int) for c, r in BALLS.items()) > 0


@pytest.fixture
def tomogram(tmp_path):
    """Three balls in faint noise, with voxels of 10 Å."""
    volume = 3 * balls() + 0.1 * noise((44, 110, 96))
    return write_mrc(tmp_path / "t.mrc", volume, 10.0, origin=(5.0, 6.0, 7.0), start=(1, 2, 3))


class Bright(nn.Module):
    """Foreground where the value is over 1, which has nothing to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = 20 * (x - self.one)
        return torch.cat([-value, value], 1)


@pytest.fixture
def bright(monkeypatch):
    """The model is :class:`Bright`."""
    monkeypatch.setattr(segmentation, "load_network", lambda run: Bright())


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_everything_that_can_be_written(tmp_path, tomogram, bright):
    options = SegmentOptions(probabilities=True, uncertainty=True, instances=True, coordinates=True, min_voxels=200)
    (result,) = segment_files([tomogram], tmp_path / "m", options, progress=False)
    names = ["mask.mrc", "mask.png", "probabilities.mrc", "uncertainty.mrc", "instances.mrc", "particles.star"]
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == sorted(f"t_{name}" for name in names), "debris, or not all"
    mask, instances = (read_mrc(tmp_path / "m" / f"t_{name}.mrc") for name in ("mask", "instances"))
    truth = balls() & ~balls_of_radius(3)
    assert overlap(mask.data > 0, truth) > 0.95 and result.components == 2 and result.share == pytest.approx(mask.data.mean())
    assert (mask.voxel_size, mask.origin, mask.start) == (pytest.approx(10.0), (5.0, 6.0, 7.0), (1, 2, 3))
    for name in ("mask", "probabilities", "uncertainty", "instances"):
        assert mrcfile.validate(tmp_path / "m" / f"t_{name}.mrc")
    probability = read_mrc(tmp_path / "m" / "t_probabilities.mrc").data
    assert ((probability > 0.5) >= (mask.data > 0)).all() and probability.min() >= 0 and probability.max() <= 1
    # Blended over flips a pointwise network gives the same each time.
    assert read_mrc(tmp_path / "m" / "t_uncertainty.mrc").data.max() < 0.01
    table = starfile.read(tmp_path / "m" / "t_particles.star")
    for k, (centre, radius) in enumerate(list(BALLS.items())[:2], start=1):
        row = table.iloc[k - 1]
        from_middle = (np.array(centre) - np.array([44, 110, 96]) / 2) * 10.0
        np.testing.assert_allclose([row[f"rlnCenteredCoordinate{axis}Angst"] for axis in "ZYX"], from_middle, atol=3)
        assert row.voxudaVoxels == (instances.data == k).sum() == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.1)
        assert instances.data[centre] == k and row.voxudaMeanProbability > 0.8 and row.rlnTomoName == "t"
        assert row.rlnTomoParticleName == f"t/{k}" and row.rlnAngleRot == row.rlnAngleTilt == row.rlnAnglePsi == 0


@pytest.mark.parametrize("voxel_size", [10.0, 5.0])  # a file of 5 Å is searched at 10 Å
def test_with_a_diameter_touching_balls_are_two_particles(tmp_path, bright, voxel_size):
    grid = np.indices((44, 60, 48))
    centres = np.array([[22, 20, 24], [22, 37, 24]])  # 17 voxels apart, with radii of 9
    pair = sum(np.square(grid - c.reshape(3, 1, 1, 1)).sum(0) <= 81 for c in centres) > 0
    path = write_mrc(tmp_path / "t.mrc", 3 * pair + 0.1 * noise(pair.shape), voxel_size)
    asked = SegmentOptions(coordinates=True, diameter=18 * voxel_size, min_voxels=9)
    (found,) = segment_files([path], tmp_path / "m", asked, progress=False)
    assert (found.components, found.particles) == (1, 2) and "in 1 component, 2 particles" in str(found)
    table = starfile.read(tmp_path / "m" / "t_particles.star")
    places = table[[f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX"]].to_numpy() / voxel_size + np.array(pair.shape) / 2
    np.testing.assert_allclose(places[np.argsort(places[:, 1])], centres, atol=1)
    assert table.rlnAutopickFigureOfMerit.between(0.6, 0.95).all() and "voxudaVoxels" not in table
    strict = SegmentOptions(coordinates=True, diameter=18 * voxel_size, threshold=0.95)
    assert segment_files([path], tmp_path / "strict", strict, progress=False)[0].particles == 0
    with pytest.raises(InputError, match="made from another volume or with other options"):
        segment_files([path], tmp_path / "m", SegmentOptions(coordinates=True, min_voxels=9), progress=False)


def balls_of_radius(radius):
    grid = np.indices((44, 110, 96))
    return (
        sum((np.square(grid - np.reshape(c, (3, 1, 1, 1))).sum(0) <= r**2).astype(int) for c, r in BALLS.items() if r == radius)
        > 0
    )


def test_the_picture_shows_slices_and_outline(tmp_path, tomogram, bright):
    segment_files([tomogram], tmp_path / "m", progress=False)
    pixels = np.asarray(Image.open(tmp_path / "m" / "t_mask.png"))
    scale = 1000 // (110 + 44)
    z_slice = pixels[: 110 * scale, : 96 * scale].astype(int)
    orange = (z_slice == (255, 150, 0)).all(-1)
    rows, columns = np.nonzero(orange[::1, ::1])
    ball = (rows // scale > 10) & (rows // scale < 40)
    assert rows[ball].min() // scale == 25 - 8 and rows[ball].max() // scale == 25 + 8, "the outline of the first ball"
    assert columns[ball].min() // scale == 30 - 8 and columns[ball].max() // scale == 30 + 8
    middle = z_slice[25 * scale, 30 * scale]
    assert (middle > 200).all(), "a bright ball is shown dark"


@pytest.mark.parametrize("voxel_size", [5.0, 20.0])
def test_another_voxel_size_is_rescaled_and_the_mask_comes_back(tmp_path, bright, monkeypatch, voxel_size):
    shape, seen = (48, 110, 96), []
    volume = 3 * balls(shape) + 0.1 * noise(shape)
    path = write_mrc(tmp_path / "t.mrc", volume)
    original = segmentation.Probabilities.compute
    monkeypatch.setattr(
        segmentation.Probabilities, "compute", lambda self, *a, **k: (seen.append(self.tomogram.shape), original(self, *a, **k))
    )
    (result,) = segment_files([path], tmp_path / "m", SegmentOptions(true_voxel_size=voxel_size), progress=False)
    factor = voxel_size / {5.0: 10.0, 20.0: 15.0}[voxel_size]
    assert seen == [tuple(round(side * factor) for side in shape)]
    mask = read_mrc(result.mask)
    assert mask.data.shape == shape and mask.voxel_size == pytest.approx(voxel_size)
    assert overlap(mask.data > 0, balls(shape)) > 0.6
    for centre in list(BALLS)[:2]:
        box = tuple(slice(c - 10, c + 11) for c in centre)
        np.testing.assert_allclose(ndimage.center_of_mass(mask.data[box]), (10, 10, 10), atol=0.15)


def test_a_size_of_one_angstrom_is_not_believed(tmp_path, capsys, bright):
    volume = noise((40, 40, 40))
    for name, size in (("one", 1.0), ("none", 0.0), ("nm", 1348.0)):
        write_mrc(tmp_path / f"{name}.mrc", volume, size)
    segment_files([tmp_path / "one.mrc", tmp_path / "none.mrc"], tmp_path / "m", progress=False)
    said = capsys.readouterr().err.splitlines()
    assert "one.mrc: the header gives exactly 1 Å" in said[0] and "--true-voxel-size" in said[0]
    assert "none.mrc: the header gives no voxel size" in said[1]
    with pytest.raises(InputError, match=r"nm\.mrc: voxels of 1348 Å; give their true size as --true-voxel-size"):
        segment_files([tmp_path / "nm.mrc"], tmp_path / "n", progress=False)
    assert not (tmp_path / "n").exists()


def test_coordinates_need_a_tomogram_and_its_voxel_size(tmp_path, bright):
    one = write_mrc(tmp_path / "one.mrc", noise((40, 40, 40)), 1.0)
    stack = write_mrc(tmp_path / "stack.mrcs", noise((2, 16, 16, 16)), 10.0)
    for path, message in ((one, "one.mrc: the header gives no voxel size; coordinates are in Å"), (stack, "is a stack of sub")):
        with pytest.raises(InputError, match=message):
            segment_files([path], tmp_path / "m", SegmentOptions(coordinates=True), progress=False)
    assert not (tmp_path / "m").exists()


def test_polarity(tmp_path, capsys, bright):
    shape = (64, 96, 96)
    centres = np.random.default_rng(1).integers(8, 56, (60, 3)) * (1, 1.5, 1.5)
    grid = np.indices(shape)
    bodies = sum((np.square(grid - np.reshape(c, (3, 1, 1, 1))).sum(0) < 36).astype(np.float32) for c in centres)
    volume = noise(shape) + 1.5 * (bodies > 0)
    write_mrc(tmp_path / "bright.mrc", volume, 10.0)
    write_mrc(tmp_path / "dark.mrc", -volume, 10.0)
    write_mrc(tmp_path / "noise.mrc", noise(shape), 10.0)
    segment_files([tmp_path / "bright.mrc", tmp_path / "noise.mrc"], tmp_path / "m", progress=False)
    assert "looks dark" not in capsys.readouterr().err
    segment_files([tmp_path / "dark.mrc"], tmp_path / "d", progress=False)
    assert "dark.mrc: protein looks dark and must be bright: 1" in capsys.readouterr().err
    segment_files([tmp_path / "dark.mrc"], tmp_path / "i", SegmentOptions(invert=True), progress=False)
    assert "looks dark" not in capsys.readouterr().err
    np.testing.assert_array_equal(read_mrc(tmp_path / "i/dark_mask.mrc").data, read_mrc(tmp_path / "m/bright_mask.mrc").data)


def test_files_folders_patterns_and_packed_ones(tmp_path, monkeypatch, capsys, bright):
    folder = tmp_path / "in"
    folder.mkdir()
    path = write_mrc(folder / "a.mrc", noise((40, 40, 40)), 10.0)
    content = path.read_bytes()
    (folder / "b.mrc.gz").write_bytes(gzip.compress(content))
    (folder / "c.map.bz2").write_bytes(bz2.compress(content))
    for name in ("d.rec", "a_mask.mrc"):
        (folder / name).write_bytes(content)
    for name in ("e.tif", "notes.txt", ".hidden.mrc"):
        (folder / name).write_text("x")
    for name in ("TS_01/f.mrc", "masks/a_mask.mrc", ".work/g.mrc"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    masks = [result.mask.name for result in segment_files(["in"], "m", progress=False)]
    assert masks == ["a_mask.mrc", "b_mask.mrc", "c_mask.map", "d_mask.rec"]
    assert "in: 4 volumes are read; left out: a_mask.mrc, e.tif, notes.txt, folder TS_01\n" in capsys.readouterr().err
    (first, *others) = [read_mrc(tmp_path / "m" / name).data for name in masks]
    assert all(np.array_equal(first, other) for other in others)
    assert not [p for p in (tmp_path / "m").iterdir() if p.suffix == ".work"]
    assert [p.name for p in find_files(["in/*.re?", "in/a.mrc"])] == ["d.rec", "a.mrc"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no MRC volume \(\.mrc, \.map, \.rec, \.mrcs\)"):
        segment_files(["empty"], "x")
    with pytest.raises(InputError, match=r"none\*\.mrc: no such file"):
        segment_files(["none*.mrc"], "x")


def test_a_file_is_taken_once_and_nothing_is_silently_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("set[1]", "samples", "broken"):
        (tmp_path / folder).mkdir()
    for name in ("a.mrc", "b.mrc", "set[1]/c.mrc", "samples/volumes.mrcs", "samples/masks.mrcs"):
        write_mrc(name, noise((16, 16, 16)))
    assert list(map(str, find_files(["b.mrc", "./a.mrc", "*.mrc", tmp_path / "b.mrc"]))) == ["b.mrc", "a.mrc"]
    assert list(map(str, find_files(["set[1]/*.mrc", "samples"]))) == ["set[1]/c.mrc", "samples/volumes.mrcs"]
    with pytest.raises(InputError, match=r"set\*: matches only masks or folders; give a pattern of MRC volumes"):
        find_files(["set*"])
    os.symlink("nowhere.mrc", "broken/link.mrc")
    with pytest.raises(InputError, match=r"broken/link\.mrc: no such file"):
        segment_files(["broken"], "m", progress=False)


def test_masks_beside_their_volumes_are_not_segmented(tmp_path, monkeypatch, capsys, bright):
    monkeypatch.chdir(tmp_path)
    write_mrc("a.mrc", noise((40, 40, 40)), 10.0)
    segment_files(["*.mrc"], ".", SegmentOptions(probabilities=True), progress=False)
    capsys.readouterr()
    for names in (["*.mrc"], ["."], ["a.mrc", "a_mask.mrc", "a_probabilities.mrc"]):
        (result,) = segment_files(names, ".", SegmentOptions(probabilities=True), progress=False)
        assert result.components is None, "made again"
        assert "left out" in (said := capsys.readouterr().err) and "a_mask.mrc, a_" in said
    with pytest.raises(InputError, match=r"a_mask\.mrc: was written by `voxuda segment`; give the volume"):
        find_files(["a_mask.mrc"])


@pytest.mark.parametrize("name", ["t_particles.star", "t_mask.png", "t_instances.mrc"])
def test_files_of_others_are_not_replaced(tmp_path, bright, tomogram, name):
    (tmp_path / name).write_text("picked by hand")
    with pytest.raises(InputError, match=rf"{name}: exists without t_mask\.mrc; move it elsewhere or choose another --out"):
        segment_files([tomogram], tmp_path, SegmentOptions(instances=True, coordinates=True), progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["t.mrc", name])
    assert (tmp_path / name).read_text() == "picked by hand"


def test_volumes_of_one_name_do_not_share_a_picture(tmp_path, bright):
    for name in ("a.mrc", "a.rec"):
        write_mrc(tmp_path / name, noise((40, 40, 40)), 10.0)
    with pytest.raises(InputError, match=r"a\.rec: a_mask\.png would be written twice, as .*a\.mrc has the same name"):
        segment_files([tmp_path / "a.mrc", tmp_path / "a.rec"], tmp_path / "m", progress=False)
    segment_files([tmp_path / "a.mrc"], tmp_path / "m", progress=False)
    with pytest.raises(InputError, match=r"a_mask\.png: exists without a_mask\.rec"):
        segment_files([tmp_path / "a.rec"], tmp_path / "m", progress=False)


def test_what_a_killed_process_leaves(tmp_path, bright):
    """Killed after the mask appeared, or after a file was unpacked that has been replaced since."""
    packed = tmp_path / "a.mrc.gz"
    other = write_mrc(tmp_path / "other.mrc", noise((40, 40, 40), seed=1), 10.0)
    packed.write_bytes(gzip.compress(write_mrc(tmp_path / "a.mrc", noise((40, 40, 40)), 10.0).read_bytes()))
    work = tmp_path / "m" / ".a_mask.mrc.work"
    work.mkdir(parents=True)
    shutil.copy(other, work / "a.mrc")
    segment_files([packed], tmp_path / "m", progress=False)
    segment_files([tmp_path / "a.mrc"], tmp_path / "n", progress=False)
    np.testing.assert_array_equal(read_mrc(tmp_path / "m/a_mask.mrc").data, read_mrc(tmp_path / "n/a_mask.mrc").data)
    work.mkdir()
    (work / "progress").touch()
    segment_files([packed], tmp_path / "m", progress=False)
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"a_mask.mrc", "a_mask.png"}


@pytest.mark.parametrize("shape", [(40, 40, 40), (2, 16, 16, 16)])
def test_files_are_not_kept_open(tmp_path, shape):
    """Thousands of files may be named, and a process may open about a thousand."""
    path = write_mrc(tmp_path / "t.mrcs", noise(shape), 10.0)
    before = len(os.listdir("/dev/fd"))
    volumes = [read(path) for _ in range(10)]
    assert len(os.listdir("/dev/fd")) == before
    assert all(volume.data.shape == shape and not any(volume.data.strides) for volume in volumes)


@pytest.mark.parametrize("name", ["data_1", "loop_2", "#3", "_4", "a b", "a\tb", "ü", "[5]"])
def test_names_that_mean_something_in_a_star_file(tmp_path, bright, name):
    volume = 3 * balls()[:, :50, :50] + 0.1 * noise((44, 50, 50))
    path = write_mrc(tmp_path / f"{name}.mrc", volume, 10.0)
    segment_files([path], tmp_path / "m", SegmentOptions(coordinates=True, min_voxels=200), progress=False)
    table = starfile.read(tmp_path / "m" / f"{name}_particles.star", always_dict=True)["particles"]
    assert table.rlnTomoName.tolist() == [name] and table.rlnTomoParticleName.tolist() == [f"{name}/1"]
    assert table.rlnCenteredCoordinateYAngst[0] == pytest.approx(0, abs=3)


@pytest.mark.parametrize("voxel_size", [10.0, 5.0])
def test_a_square_of_infinity_is_not_blank(tmp_path, bright, voxel_size):
    volume = noise((41, 40, 40))
    volume[:8, :10, :10] = np.inf
    with mrcfile.new(tmp_path / "t.mrc") as mrc, np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="infinit"):
        mrc.set_data(volume)
    with pytest.raises(InputError, match=r"t\.mrc: some voxels are NaN or infinite"):
        segment_files([tmp_path / "t.mrc"], tmp_path / "m", SegmentOptions(true_voxel_size=voxel_size), progress=False)


def test_nearly_all_blank_is_not_called_constant(tmp_path, bright):
    volume = np.zeros((65, 64, 64), np.float32)
    volume[20:40, 20:40, 20:40] = noise((20, 20, 20))
    path = write_mrc(tmp_path / "t.mrc", volume, 10.0)
    with pytest.raises(InputError, match=r"t\.mrc: is mostly areas of one value"):
        segment_files([path], tmp_path / "m", progress=False)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, bright, tomogram):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tomogram))

    monkeypatch.setattr(mrcfile, "mmap", forbidden)
    with pytest.raises(InputError, match=r"t\.mrc: cannot be read \(Permission denied\); give a readable file"):
        segment_files([tomogram], tmp_path / "m", progress=False)


def test_what_stands_in_the_way_is_said(tmp_path, bright, tomogram):
    (tmp_path / "m" / "t_mask.mrc").mkdir(parents=True)
    with pytest.raises(InputError, match=r"m/t_mask\.mrc: is a folder; choose another --out"):
        segment_files([tomogram], tmp_path / "m", progress=False)


def test_a_run_among_the_files_is_named(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"run: is a run, not a volume; give it as --model .*run"):
        find_files([run, "x.mrc"])
    volume = write_mrc(run / "t.mrc", noise((16, 16, 16)))  # other programs call their files config.json, too
    assert find_files([run]) == [volume]


def test_stacks_are_segmented_volume_by_volume(tmp_path, bright):
    volumes = np.stack([10.0**k * noise((16, 24, 16), seed=k) for k in range(5)])
    (result,) = segment_files([write_mrc(tmp_path / "s.mrcs", volumes, 10.0)], tmp_path / "m", progress=False)
    mask = read_mrc(result.mask).data
    assert mask.shape == volumes.shape
    for one, volume in zip(mask, volumes, strict=True):
        np.testing.assert_array_equal(one, (volume - volume.mean()) / volume.std() > 1)


def test_batch_norm_of_the_volume(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = VoxResNet(2).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    monkeypatch.setattr(segmentation, "load_network", lambda run: network)
    path = write_mrc(tmp_path / "t.mrc", noise((40, 40, 40)), 10.0)
    shares = []
    for kind in ("model", "volume"):
        options = SegmentOptions(batch_norm=kind, probabilities=True)
        segment_files([path], tmp_path / kind, options, progress=False)
        shares.append(read_mrc(tmp_path / kind / "t_probabilities.mrc").data)
    assert not np.allclose(*shares, atol=0.01), "the statistics made no difference"
    assert all(torch.equal(value, network.state_dict()[k]) for k, value in before.items()), "the next file got other statistics"


def test_models_that_come_along():
    names = sorted(path.name for path in MODELS.iterdir())
    assert names == ["balanced", "self-training", "vox-uda", "vox-uda-bf"]
    size = 0
    for name in names:
        load_network(find_model(name))
        size += (MODELS / name / "weights.safetensors").stat().st_size
    assert size < 2e6
    said = r"best: no such model; give the folder of a run, or one of balanced, self-training, vox-uda, vox-uda-bf"
    with pytest.raises(InputError, match=said):
        find_model("best")


def test_a_folder_here_does_not_change_the_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODELS / "vox-uda", "balanced")
    assert find_model("balanced") == MODELS / "balanced"
    assert capsys.readouterr().err == "balanced: the model that comes with the package is used; your run is ./balanced.\n"
    for name in ("./balanced", "balanced/", tmp_path / "balanced"):
        assert find_model(name).resolve() == tmp_path / "balanced"
    assert not capsys.readouterr().err


def test_what_is_missing_or_cut_short_is_made_again(tmp_path, tomogram, bright):
    options = SegmentOptions(probabilities=True, coordinates=True)
    segment_files([tomogram], tmp_path, options, progress=False)
    files = [tmp_path / name for name in ("t_particles.star", "t_mask.png", "t_probabilities.mrc", "t_mask.mrc")]
    content = [path.read_bytes() for path in files]
    for damaged in range(len(files)):
        files[damaged].write_bytes(b"")
        if damaged == 3:
            files[damaged].write_bytes(content[damaged][:-1])
        (again,) = segment_files([tomogram], tmp_path, options, progress=False)
        assert again.components is not None and len(files[damaged].read_bytes()) == len(content[damaged])
    (kept,) = segment_files([tomogram], tmp_path, options, progress=False)
    assert kept.components is None


def test_a_voxel_size_in_nanometres_is_doubted(tmp_path, capsys, bright):
    write_mrc(tmp_path / "nm.mrc", noise((40, 72, 72)), 1.3)
    segment_files([tmp_path / "nm.mrc"], tmp_path / "m", progress=False)
    assert "the volume is 94 Å wide, less than a tile; is its voxel size, 1.30 Å, right?" in capsys.readouterr().err


def test_other_options_are_another_mask(tmp_path, tomogram, bright):
    first = segment_files([tomogram], tmp_path / "m", progress=False)[0]
    again = segment_files([tomogram], tmp_path / "m", progress=False)[0]
    assert again.components is None and again.share == pytest.approx(first.share) and "was there already" in str(again)
    for changed in (
        {"threshold": 0.6},
        {"invert": True},
        {"min_voxels": 3},
        {"normalise": "volume"},
        {"true_voxel_size": 12.0},
    ):
        with pytest.raises(InputError, match=r"t_mask\.mrc: exists, made from another volume or with other options"):
            segment_files([tomogram], tmp_path / "m", SegmentOptions(**changed), progress=False)


def test_a_tomogram_edited_in_one_voxel_is_another(tmp_path, tomogram, bright):
    segment_files([tomogram], tmp_path / "m", progress=False)
    with open(tomogram, "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(InputError, match=r"t_mask\.mrc: exists, made from another volume"):
        segment_files([tomogram], tmp_path / "m", progress=False)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"min_voxels": -1}, "min_voxels is -1"),
        ({"true_voxel_size": 0.0}, "true_voxel_size is 0.0"),
        ({"diameter": 200.0}, "diameter is 200.0; it is for --coordinates, so add that"),
        ({"diameter": 2.0, "coordinates": True}, "diameter is 2.0; give angstrom, from 80 to 1000"),
        ({"tile": 20}, "tile is 20"),
        ({"overlap": 32}, "overlap is 32"),
    ],
)
def test_options_that_cannot_be(option, message):
    with pytest.raises(InputError, match=message):
        SegmentOptions(**option)
