import errno
import itertools
import os
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.errors import InputError
from voxuda.signal.normalise import zscore
from voxuda.simulation import imaging, molecules, quick
from voxuda.training import tomograms
from voxuda.training.evaluation import iou_and_dice, predict
from voxuda.training.run_folder import load_network
from voxuda.training.tomograms import blending, normalised, positions, segment_tomogram, survey


class Pointwise(nn.Module):
    """Foreground where the value is over 0.3; counts the tiles that it sees."""

    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.blur = nn.Conv3d(1, 1, kernel, padding=kernel // 2, bias=False)
        nn.init.constant_(self.blur.weight, 1 / kernel**3)
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        value = 20 * (self.blur(x) - 0.3)
        return torch.cat([-value, value], 1)


@pytest.fixture
def as_they_are(monkeypatch):
    """Tiles reach the network in the units of the file."""
    monkeypatch.setattr(tomograms, "normalised", lambda batch, typical: batch)


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(side=st.integers(1, 200), tile=st.integers(1, 64), data=st.data())
@settings(max_examples=200, deadline=None)
def test_tiles_cover_an_axis_and_their_weights_sum_to_one(side, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    starts, weights = positions(side, tile, overlap), blending(side, tile, overlap)
    total = torch.zeros(max(side, tile))
    for start, row in zip(starts, weights, strict=True):
        assert start >= 0 and (row > 0).all()
        total[start : start + tile] += row
    torch.testing.assert_close(total, torch.ones(max(side, tile)))
    assert starts[-1] == max(side - tile, 0), "the last tile is not flush with the end"
    assert all(0 < b - a <= tile - overlap for a, b in itertools.pairwise(starts))


def test_windows_at_half_overlap_are_sine_squared():
    middle = blending(80, 32, 16)[1]
    torch.testing.assert_close(middle, torch.sin(torch.pi * (torch.arange(32) + 0.5) / 32).square())
    torch.testing.assert_close(blending(64, 32, 0), torch.ones(2, 32))


def test_a_tile_has_mean_0_and_is_amplified_no_more_than_typical_ones():
    batch = torch.from_numpy(noise((3, 1, 16, 16, 16))) * torch.tensor([0.1, 1, 5]).reshape(3, 1, 1, 1, 1) + 7
    result = normalised(batch, typical=1.0)
    torch.testing.assert_close(result.mean((-3, -2, -1)), torch.zeros(3, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std((-3, -2, -1))[:, 0], torch.tensor([0.1, 1.0, 1.0]), atol=0.03, rtol=0)
    assert torch.equal(normalised(torch.ones(1, 1, 16, 16, 16), typical=0.0), torch.zeros(1, 1, 16, 16, 16))


def test_one_tile_is_normalised_as_in_training(tmp_path):
    volume = noise((32, 32, 32))
    path = write_mrc(tmp_path / "t.mrc", 3 * volume + 100)
    network = Pointwise()
    mask = read_mrc(segment_tomogram(network, path, tmp_path / "m.mrc")).data
    np.testing.assert_array_equal(mask, (volume - volume.mean()) / volume.std() > 0.3)


@pytest.mark.parametrize("snr", [0.03, 0.3])
def test_the_rule_of_normalising_is_the_best_of_three(tmp_path, root, monkeypatch, generator, snr):
    """Four particles in one half of a tomogram whose brightness and contrast grow along y, and a trained network."""
    choice = torch.tensor([[0], [1], [2], [0]])
    library = [molecules.load(name) for name in molecules.TARGET_MOLECULES]
    particles = quick.render(library, choice, size=48, voxel_size=13.5, generator=generator, max_offset=0)[:, 0]
    density = torch.zeros(96, 96, 96)
    for particle, (z, y) in zip(particles, itertools.product((0, 48), repeat=2), strict=True):
        density[z : z + 48, y : y + 48, :48] = particle
    edge, defocus, ratio = torch.tensor([13.5]), torch.tensor([45e3]), torch.tensor([snr])
    image = imaging.image_target(density[None, None], ratio, defocus, edge, generator)[0, 0]
    image = (image + 0.7 * image.std()) * torch.linspace(0.7, 1.3, 96)[:, None]
    network, truth = load_network(root / "results" / "weights" / "ours"), density > molecules.MASK_THRESHOLD

    def score(name, volume, rule):
        monkeypatch.setattr(tomograms, "normalised", rule)
        path = segment_tomogram(network, write_mrc(tmp_path / f"{name}.mrc", volume), tmp_path / f"{name}_mask.mrc")
        return float(iou_and_dice(torch.from_numpy(read_mrc(path).data)[None] > 0.5, truth[None])[0])

    ours = score("ours", image, normalised)
    each = score("each", image, lambda batch, typical: zscore(batch))
    whole = score("whole", zscore(image), lambda batch, typical: batch)
    assert ours > 0.6 and ours > each and ours > whole


@pytest.mark.parametrize("shape", [(40, 50, 60), (32, 32, 32), (7, 90, 33), (100, 16, 5), (65, 1, 40)])
@pytest.mark.parametrize("overlap", [0, 5, 16, 31])
def test_a_pointwise_network_gives_the_pointwise_mask(tmp_path, as_they_are, shape, overlap):
    volume = noise(shape)
    path = write_mrc(tmp_path / "t.mrc", volume)
    if overlap == 31:
        path.unlink()
        path = write_mrc(path, volume := volume[:34, :34, :34])
    mask = read_mrc(segment_tomogram(Pointwise(), path, tmp_path / "m.mrc", overlap=overlap))
    np.testing.assert_array_equal(mask.data, volume > 0.3)


def test_tiles_agree_with_the_whole_away_from_its_faces(tmp_path, as_they_are):
    volume = noise((48, 56, 72)) + 0.3
    path = write_mrc(tmp_path / "t.mrc", volume)
    network = Pointwise(kernel=3)
    layer = tomograms.segment_layer(network, torch.from_numpy(volume[:32]), 1.0, 32, 16, tomograms.tqdm(disable=True))
    whole = predict(network, torch.from_numpy(volume)[None, None])[0]
    inside = (slice(1, 31), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(layer[inside], whole[inside], atol=0.02, rtol=0)
    mask = torch.from_numpy(read_mrc(segment_tomogram(network, path, tmp_path / "m.mrc")).data) > 0.5
    clear = (whole - 0.5).abs() > 0.02
    clear[0], clear[-1], clear[:, 0], clear[:, -1], clear[:, :, 0], clear[:, :, -1] = (False,) * 6
    assert clear.float().mean() > 0.8 and torch.equal(mask[clear], whole[clear] > 0.5)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "uint16", "float16"])
def test_every_mode_and_the_header(tmp_path, as_they_are, dtype):
    volume = (np.arange(40 * 35 * 33).reshape(40, 35, 33) % 2).astype(dtype)
    path = write_mrc(tmp_path / "t.mrc", volume, 13.5, origin=(-7.0, 2.0, 3.0), start=(-4, 5, 6))
    out = segment_tomogram(Pointwise(), path, tmp_path / "deep" / "m.mrc")
    mask = read_mrc(out)
    assert mask.voxel_size == pytest.approx(13.5) and mask.origin == (-7.0, 2.0, 3.0)
    assert mask.start == (-4, 5, 6)
    np.testing.assert_array_equal(mask.data, volume)
    assert mrcfile.validate(out)
    header = mrcfile.open(out, header_only=True).header
    assert header.mode == 0 and (header.dmin, header.dmax) == (0, 1)
    assert header.dmean == pytest.approx(volume.mean(dtype=float)) and header.rms == pytest.approx(0.5, abs=1e-3)
    assert {p.name for p in out.parent.iterdir()} == {"m.mrc"}


def interrupted(network, monkeypatch, path, out, layers):
    """Segment, but be stopped while ``layers`` + 1 is under way."""
    whole = tomograms.segment_layer

    def stop(*arguments):
        nonlocal layers
        layers -= 1
        if layers < 0:
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tomograms, "segment_layer", stop)
        with pytest.raises(KeyboardInterrupt):
            segment_tomogram(network, path, out)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_an_interrupted_mask_goes_on_and_ends_alike(tmp_path, monkeypatch, layers):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))  # five layers of four tiles
    network = Pointwise(kernel=5)
    once = segment_tomogram(network, path, tmp_path / "once.mrc").read_bytes()
    assert network.seen == 20
    out = tmp_path / "twice.mrc"
    interrupted(network, monkeypatch, path, out, layers)
    assert not out.exists()
    network.seen = 0
    segment_tomogram(network, path, out)
    assert network.seen == 20 - 4 * layers, "finished layers were made again"
    data, labels = slice(tomograms.HEADER, None), slice(0, 224)
    assert out.read_bytes()[data] == once[data] and out.read_bytes()[labels] == once[labels]
    network.seen = 0
    assert segment_tomogram(network, path, out) == out and network.seen == 0, "a finished mask was made again"


def test_killed_between_mask_and_record(tmp_path, monkeypatch):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))
    once = read_mrc(segment_tomogram(Pointwise(5), path, tmp_path / "once.mrc")).data
    out, write, records = tmp_path / "m.mrc", tomograms.write_atomically, itertools.count()

    def killed_at_the_third(*arguments):
        if next(records) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tomograms, "write_atomically", killed_at_the_third)
        segment_tomogram(Pointwise(5), path, out)
    network = Pointwise(5)
    np.testing.assert_array_equal(read_mrc(segment_tomogram(network, path, out)).data, once)
    assert network.seen == 12, "three layers of four tiles were left"


def test_a_mask_of_something_else_is_refused(tmp_path, monkeypatch):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))
    other = write_mrc(tmp_path / "other.mrc", noise((90, 40, 40), seed=1))
    out = tmp_path / "m.mrc"
    interrupted(Pointwise(), monkeypatch, path, out, 2)
    before = (tmp_path / "m.mrc.part").read_bytes()
    with pytest.raises(InputError, match=r"m\.mrc\.part: begun with other weights; go on with those"):
        segment_tomogram(Pointwise(3), path, out)
    with pytest.raises(InputError, match="begun with other overlap;"):
        segment_tomogram(Pointwise(), path, out, overlap=8)
    with pytest.raises(InputError, match="begun with other tomogram;"):
        segment_tomogram(Pointwise(), other, out)
    assert (tmp_path / "m.mrc.part").read_bytes() == before
    (tmp_path / "m.mrc.progress").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"m\.mrc\.progress: damaged; delete it to begin anew"):
        segment_tomogram(Pointwise(), path, out)
    (tmp_path / "m.mrc.progress").unlink()
    segment_tomogram(Pointwise(), path, out)
    with pytest.raises(InputError, match=r"m\.mrc: the file exists, made from another"):
        segment_tomogram(Pointwise(3), path, out)


def test_a_tomogram_is_known_by_what_it_holds(tmp_path, monkeypatch):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))
    out, network = tmp_path / "m.mrc", Pointwise()
    interrupted(network, monkeypatch, path, out, 2)
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "other_name.mrc")
    os.utime(moved, (1, 1))
    network.seen = 0
    segment_tomogram(network, moved, out)
    assert network.seen == 12, "the finished layers were made again"
    moved.rename(path)
    segment_tomogram(network, path, out)
    assert network.seen == 12, "a finished mask was made again"
    with open(path, "r+b") as file:  # another last section under the same header
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(0.123).tobytes())
    with pytest.raises(InputError, match="made from another tomogram"):
        segment_tomogram(network, path, out)


def test_tilt_images_are_no_tomogram(tmp_path):
    path = tmp_path / "tilts.mrcs"
    with mrcfile.new(path) as mrc:
        mrc.set_data(noise((41, 96, 96)))
        mrc.set_image_stack()
    with pytest.raises(InputError, match=r"tilts\.mrcs: shape \(41, 96, 96\) is a stack of 2D images"):
        segment_tomogram(Pointwise(), path, tmp_path / "m.mrc")


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (np.ones((40, 40, 40), np.int8), "every voxel has the same value"),
        (np.ones((2, 16, 16, 16), np.float32), "is a stack; give one tomogram"),
    ],
)
def test_bad_tomograms(tmp_path, volume, message):
    path = write_mrc(tmp_path / "bad.mrc", volume)
    with pytest.raises(InputError, match=rf"bad\.mrc: .*{message}"):
        segment_tomogram(Pointwise(), path, tmp_path / "m.mrc")
    assert {p.name for p in tmp_path.iterdir()} == {"bad.mrc"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_last_voxel_is_looked_at(tmp_path, value):
    path = write_mrc(tmp_path / "bad.mrc", noise((40, 40, 40)))
    with open(path, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(value).tobytes())
    with pytest.raises(InputError, match=r"bad\.mrc: some voxels are NaN or infinite"):
        survey(path, 32)


def test_broken_files(tmp_path):
    path = write_mrc(tmp_path / "cut.mrc", noise((40, 40, 40)))
    path.write_bytes(path.read_bytes()[:9000])
    with mrcfile.new(tmp_path / "flat.mrc") as mrc:
        mrc.set_data(noise((40, 40)))
    for name, message in [
        ("cut.mrc", "not a readable MRC file"),
        ("flat.mrc", r"shape \(40, 40\) is not a volume"),
        ("none.mrc", "no such file"),
        ("t.mrc.gz", "a compressed tomogram cannot be read piece by piece"),
    ]:
        with pytest.raises(InputError, match=f"{name}: {message}"):
            segment_tomogram(Pointwise(), tmp_path / name, tmp_path / "m.mrc")


@pytest.mark.parametrize(("tiling", "message"), [((30, 16), "tile is 30"), ((8, 4), "tile is 8"), ((32, 32), "overlap is 32")])
def test_tilings_that_do_not_fit(tmp_path, tiling, message):
    path = write_mrc(tmp_path / "t.mrc", noise((40, 40, 40)))
    with pytest.raises(InputError, match=message):
        segment_tomogram(Pointwise(), path, tmp_path / "m.mrc", tile=tiling[0], overlap=tiling[1])


def test_a_full_disk_keeps_what_is_done(tmp_path, monkeypatch):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))
    interrupted(Pointwise(), monkeypatch, path, tmp_path / "m.mrc", 2)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tomograms.os, "fsync", full)
        with pytest.raises(InputError, match=r"m\.mrc\.part: cannot be written \(No space left on device\); free some space"):
            segment_tomogram(Pointwise(), path, tmp_path / "m.mrc")
    network = Pointwise()
    segment_tomogram(network, path, tmp_path / "m.mrc")
    assert network.seen == 12
    with pytest.raises(InputError, match="cannot be written"):
        segment_tomogram(Pointwise(), path, path / "m.mrc")


PEAK = """
import resource, sys
from test_tomograms import Pointwise
from voxuda.training.tomograms import segment_tomogram
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
segment_tomogram(Pointwise(), sys.argv[1], sys.argv[2], overlap=0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_tomogram(tmp_path):
    """192 MiB of float32 in layers of 8 MiB; a path that holds the tomogram, or keeps all of it mapped, fails."""
    path = tmp_path / "t.mrc"
    with mrcfile.new_mmap(path, (768, 256, 256), mrc_mode=2) as mrc:  # a file with holes: zeros, but for
        mrc.data[500, 100, 100] = 1.0
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", PEAK, path, tmp_path / "m.mrc"],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(run.stdout) * (1 if sys.platform == "darwin" else 1024) < 200 * 2**20, "peak memory beyond the start, in bytes"
