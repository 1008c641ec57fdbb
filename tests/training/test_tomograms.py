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
from scipy import ndimage
from torch import nn

from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.errors import InputError
from voxuda.signal.normalise import zscore
from voxuda.simulation import imaging, molecules, quick
from voxuda.training import tomograms
from voxuda.training.config import SegmentOptions
from voxuda.training.evaluation import iou_and_dice, predict
from voxuda.training.run_folder import load_network
from voxuda.training.segment_inputs import read
from voxuda.training.segmentation import Job
from voxuda.training.tomograms import Survey, Tomogram, blending, find_blank, normalise, positions, spread, survey


class Pointwise(nn.Module):
    """Foreground where the value is over 0.3; counts the tiles that it sees."""

    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.blur = nn.Conv3d(1, 1, kernel, padding=kernel // 2, bias=False)
        nn.init.constant_(self.blur.weight, 1 / kernel**3)
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        value = 200 * (self.blur(x) - 0.3)
        return torch.cat([-value, value], 1)


@pytest.fixture
def as_they_are(monkeypatch):
    """Tiles reach the network in the units of the file."""
    monkeypatch.setattr(tomograms, "normalise", lambda tile, valid, typical, rule: tile)


def segment(network, path, mask, **options):
    """Segment one file, without the picture."""
    return Job(read(path), mask, SegmentOptions(**{"picture": False, **options}), network).run(False).mask


def opened(path, tile=32):
    """A tomogram at its own voxel size."""
    volume = read_mrc(path, memory_map=True)
    return Tomogram(volume, path, volume.data.shape, (tile,) * 3, (tile // 2,) * 3)


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


def typical(deviation=1.0, mean=0.0):
    return Survey(mean, deviation, [], np.array([]))


def test_a_tile_has_mean_0_and_is_amplified_no_more_than_typical_ones():
    valid = torch.ones(16, 16, 16, dtype=torch.bool)
    for scale, deviation in [(0.1, 0.1), (1, 1.0), (5, 1.0)]:
        result = normalise(scale * torch.from_numpy(noise((16, 16, 16))) + 7, valid, typical())
        assert result.mean().item() == pytest.approx(0, abs=1e-5) and result.std().item() == pytest.approx(deviation, abs=0.03)
    whole = normalise(2 * torch.from_numpy(noise((16, 16, 16))) + 7, valid, typical(4.0, mean=5.0), "volume")
    assert whole.mean().item() == pytest.approx(0.5, abs=0.03) and whole.std().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(normalise(torch.ones(16, 16, 16), valid, None), torch.zeros(16, 16, 16))


@given(unit=st.sampled_from([1e-20, 1e-3, 1.0, 1e20]), offset=st.sampled_from([0.0, -3.0, 1000.0]))
@settings(deadline=None)
def test_the_unit_of_a_tile_does_not_matter(unit, offset):
    tile, valid = torch.from_numpy(noise((16, 16, 16))), torch.ones(16, 16, 16, dtype=torch.bool)
    moved = ((tile.double() + offset) * unit).float()
    torch.testing.assert_close(normalise(moved, valid, None), normalise(tile, valid, None), atol=1e-3, rtol=0)


def test_a_hot_voxel_is_moved_to_the_rest_and_gold_is_not():
    values = torch.from_numpy(noise(32**3))
    deviation = spread(values)[1]
    hot = values.clone()
    hot[5] = 1e6
    assert spread(hot)[1].item() == pytest.approx(deviation.item(), rel=0.01)
    gold = values.clone()
    gold[:300] = -15
    centred = spread(gold)[0]
    assert centred.min().item() == pytest.approx(-15 - gold.mean().item(), abs=0.01)


def test_blank_is_a_square_of_one_value_and_what_belongs_to_it():
    values = torch.from_numpy(noise((2, 60, 60)))
    assert not find_blank(values).any()
    y, x = torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij")
    outside = (
        (y + 2 * x < 40) | (y > 50) | (x > 56) | ((x > 40) & (x < 46) & (y < 20))
    )  # slanted, along the border, a narrow bay
    for fill in (0.0, -100.0, 0.123):
        assert torch.equal(find_blank(values.masked_fill(outside, fill))[1], outside)
    values[:, 30:34, 30:34] = 0.0  # too small to be padding
    assert not find_blank(values).any()


def test_few_grey_levels_are_not_padding():
    smooth = ndimage.gaussian_filter(noise((2, 80, 80)), (0, 6, 6))
    levels = torch.from_numpy(np.round(4 * smooth / smooth.std()))
    assert not find_blank(levels).any()


def test_one_bad_tile_of_four_does_not_set_the_scale(tmp_path):
    volume = noise((32, 64, 64))
    volume[:, :32, :32] *= 1000
    assert survey(opened(write_mrc(tmp_path / "t.mrc", volume))).deviation == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("fill", [0.0, -50.0])
def test_blank_voxels_are_left_out_of_statistics_and_mask(tmp_path, fill):
    volume = noise((40, 60, 60)) + 20
    whole = survey(opened(write_mrc(tmp_path / "whole.mrc", volume)))
    volume[:, :20], volume[:, :, -7:] = fill, fill
    path = write_mrc(tmp_path / "part.mrc", volume)
    part = survey(opened(path))
    assert part.mean == pytest.approx(whole.mean, abs=0.02) and part.deviation == pytest.approx(whole.deviation, abs=0.02)
    mask = read_mrc(segment(Pointwise(), path, tmp_path / "m.mrc")).data
    assert not mask[:, :20].any() and not mask[:, :, -7:].any() and 0.3 < mask[:, 20:, :-7].mean() < 0.5


def test_one_tile_is_normalised_as_in_training(tmp_path):
    volume = noise((32, 32, 32))
    path = write_mrc(tmp_path / "t.mrc", 3 * volume + 100)
    mask = read_mrc(segment(Pointwise(), path, tmp_path / "m.mrc")).data
    np.testing.assert_array_equal(mask, zscore(torch.from_numpy(volume)[None])[0].numpy() > 0.3)


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
    network, truth = load_network(root / "results" / "weights" / "balanced"), density > molecules.MASK_THRESHOLD

    def score(name, rule):
        monkeypatch.setattr(tomograms, "normalise", rule)
        path = segment(network, write_mrc(tmp_path / f"{name}.mrc", image), tmp_path / f"{name}_mask.mrc")
        return float(iou_and_dice(torch.from_numpy(read_mrc(path).data)[None] > 0.5, truth[None])[0])

    ours = score("balanced", normalise)
    each = score("each", lambda tile, valid, typical, rule: normalise(tile, valid, None))
    whole = score("whole", lambda tile, valid, typical, rule: normalise(tile, valid, typical, "volume"))
    assert ours > 0.6 and ours > each and ours > whole


@pytest.mark.parametrize("shape", [(40, 50, 60), (32, 32, 32), (7, 90, 33), (100, 16, 5), (65, 1, 40)])
@pytest.mark.parametrize("overlap", [0, 5, 16, 31])
def test_a_pointwise_network_gives_the_pointwise_mask(tmp_path, as_they_are, shape, overlap):
    volume = noise(shape)
    path = write_mrc(tmp_path / "t.mrc", volume)
    if overlap == 31:
        path.unlink()
        path = write_mrc(path, volume := volume[:34, :34, :34])
    mask = read_mrc(segment(Pointwise(), path, tmp_path / "m.mrc", overlap=overlap))
    np.testing.assert_array_equal(mask.data, volume > 0.3)


def test_tiles_agree_with_the_whole_away_from_its_faces(tmp_path, as_they_are):
    volume = noise((48, 56, 72)) + 0.3
    path = write_mrc(tmp_path / "t.mrc", volume)
    network = Pointwise(kernel=3)
    layer = tomograms.segment_layer(network, opened(path), 0, None, "tile", False, tomograms.tqdm(disable=True))[0]
    whole = predict(network, torch.from_numpy(volume)[None, None])[0]
    inside = (slice(1, 31), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(layer[inside], whole[inside], atol=0.02, rtol=0)
    mask = torch.from_numpy(read_mrc(segment(network, path, tmp_path / "m.mrc")).data) > 0.5
    clear = (whole - 0.5).abs() > 0.02
    clear[0], clear[-1], clear[:, 0], clear[:, -1], clear[:, :, 0], clear[:, :, -1] = (False,) * 6
    assert clear.float().mean() > 0.8 and torch.equal(mask[clear], whole[clear] > 0.5)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "uint16", "float16"])
def test_every_mode_and_the_header(tmp_path, as_they_are, dtype):
    volume = (np.arange(40 * 35 * 33).reshape(40, 35, 33) % 2).astype(dtype)
    path = write_mrc(tmp_path / "t.mrc", volume, 13.5, origin=(-7.0, 2.0, 3.0), start=(-4, 5, 6))
    out = segment(Pointwise(), path, tmp_path / "deep" / "m.mrc")
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
            segment(network, path, out)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_an_interrupted_mask_goes_on_and_ends_alike(tmp_path, monkeypatch, layers):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))  # five layers of four tiles
    network = Pointwise(kernel=5)
    once = segment(network, path, tmp_path / "once.mrc").read_bytes()
    assert network.seen == 20
    out = tmp_path / "twice.mrc"
    interrupted(network, monkeypatch, path, out, layers)
    assert not out.exists()
    network.seen = 0
    segment(network, path, out)
    assert network.seen == 20 - 4 * layers, "finished layers were made again"
    data, labels = slice(1024, None), slice(0, 224)
    assert out.read_bytes()[data] == once[data] and out.read_bytes()[labels] == once[labels]
    network.seen = 0
    assert segment(network, path, out) == out and network.seen == 0, "a finished mask was made again"


def test_killed_between_mask_and_record(tmp_path, monkeypatch):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))
    once = read_mrc(segment(Pointwise(5), path, tmp_path / "once.mrc")).data
    out, write, records = tmp_path / "m.mrc", tomograms.write_atomically, itertools.count()

    def killed_at_the_third(*arguments):
        if next(records) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tomograms, "write_atomically", killed_at_the_third)
        segment(Pointwise(5), path, out)
    network = Pointwise(5)
    np.testing.assert_array_equal(read_mrc(segment(network, path, out)).data, once)
    assert network.seen == 12, "three layers of four tiles were left"


def test_a_mask_of_something_else_is_refused(tmp_path, monkeypatch):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))
    other = write_mrc(tmp_path / "other.mrc", noise((90, 40, 40), seed=1))
    out = tmp_path / "m.mrc"
    interrupted(Pointwise(), monkeypatch, path, out, 2)
    work = tmp_path / ".m.mrc.work"
    before = (work / "probabilities").read_bytes()
    with pytest.raises(InputError, match=r"\.m\.mrc\.work: holds an unfinished mask of other weights; repeat the"):
        segment(Pointwise(3), path, out)
    with pytest.raises(InputError, match="unfinished mask of other overlap;"):
        segment(Pointwise(), path, out, overlap=8)
    with pytest.raises(InputError, match="unfinished mask of other volume;"):
        segment(Pointwise(), other, out)
    assert (work / "probabilities").read_bytes() == before
    (work / "progress").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"progress: damaged; delete the folder .*\.m\.mrc\.work to start again"):
        segment(Pointwise(), path, out)
    (work / "progress").unlink()
    segment(Pointwise(), path, out)
    with pytest.raises(InputError, match=r"m\.mrc: exists, made from another volume or with other options"):
        segment(Pointwise(3), path, out)


def test_a_tomogram_is_known_by_what_it_holds(tmp_path, monkeypatch):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))
    out, network = tmp_path / "m.mrc", Pointwise()
    interrupted(network, monkeypatch, path, out, 2)
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "other_name.mrc")
    os.utime(moved, (1, 1))
    network.seen = 0
    segment(network, moved, out)
    assert network.seen == 12, "the finished layers were made again"
    moved.rename(path)
    segment(network, path, out)
    assert network.seen == 12, "a finished mask was made again"
    with open(path, "r+b") as file:  # another last section under the same header
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(0.123).tobytes())
    with pytest.raises(InputError, match="made from another volume"):
        segment(network, path, out)


def test_tilt_images_are_no_tomogram(tmp_path):
    path = tmp_path / "tilts.mrcs"
    with mrcfile.new(path) as mrc:
        mrc.set_data(noise((41, 96, 96)))
        mrc.set_image_stack()
    with pytest.raises(InputError, match=r"tilts\.mrcs: shape \(41, 96, 96\) is a stack of 2D images"):
        segment(Pointwise(), path, tmp_path / "m.mrc")


def test_a_tomogram_of_one_value(tmp_path):
    path = write_mrc(tmp_path / "bad.mrc", np.ones((40, 40, 40), np.int8))
    with pytest.raises(InputError, match=r"bad\.mrc: every voxel has the same value"):
        segment(Pointwise(), path, tmp_path / "m.mrc")
    assert {p.name for p in tmp_path.iterdir()} == {"bad.mrc"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_last_voxel_is_looked_at(tmp_path, value):
    path = write_mrc(tmp_path / "bad.mrc", noise((40, 40, 40)))
    with open(path, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(value).tobytes())
    with pytest.raises(InputError, match=r"bad\.mrc: some voxels are NaN or infinite"):
        survey(opened(path))


def test_broken_files(tmp_path):
    path = write_mrc(tmp_path / "cut.mrc", noise((40, 40, 40)))
    path.write_bytes(path.read_bytes()[:9000])
    with mrcfile.new(tmp_path / "flat.mrc") as mrc:
        mrc.set_data(noise((40, 40)))
    for name, message in [
        ("cut.mrc", "not a readable MRC file"),
        ("flat.mrc", r"shape \(40, 40\) is not a volume"),
        ("none.mrc", "no such file"),
    ]:
        with pytest.raises(InputError, match=f"{name}: {message}"):
            segment(Pointwise(), tmp_path / name, tmp_path / "m.mrc")


@pytest.mark.parametrize(("tiling", "message"), [((30, 16), "tile is 30"), ((8, 4), "tile is 8"), ((32, 32), "overlap is 32")])
def test_tilings_that_do_not_fit(tmp_path, tiling, message):
    path = write_mrc(tmp_path / "t.mrc", noise((40, 40, 40)))
    with pytest.raises(InputError, match=message):
        segment(Pointwise(), path, tmp_path / "m.mrc", tile=tiling[0], overlap=tiling[1])


def test_a_full_disk_keeps_what_is_done(tmp_path, monkeypatch):
    path = write_mrc(tmp_path / "t.mrc", noise((90, 40, 40)))
    interrupted(Pointwise(), monkeypatch, path, tmp_path / "m.mrc", 2)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tomograms.Probabilities, "_append", full)
        with pytest.raises(InputError, match=r"\.m\.mrc\.work: cannot be written \(No space left on device\); make room"):
            segment(Pointwise(), path, tmp_path / "m.mrc")
    network = Pointwise()
    segment(network, path, tmp_path / "m.mrc")
    assert network.seen == 12


PEAK = """
import resource, sys
from pathlib import Path
from test_tomograms import Pointwise, segment
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
segment(Pointwise(), Path(sys.argv[1]), Path(sys.argv[2]), overlap=0, true_voxel_size=float(sys.argv[3]), picture=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("voxel_size", [10.0, 5.0])
def test_memory_does_not_grow_with_the_tomogram(tmp_path, voxel_size):
    """192 MiB of float32 in layers of 8 MiB; a path that holds the tomogram, or keeps all of it mapped, fails."""
    path = tmp_path / "t.mrc"
    with mrcfile.new_mmap(path, (768, 256, 256), mrc_mode=2) as mrc:
        rows = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
        for z in range(768):
            mrc.data[z] = np.roll(rows, z)
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", PEAK, path, tmp_path / "m.mrc", str(voxel_size)],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(run.stdout) * (1 if sys.platform == "darwin" else 1024) < 200 * 2**20, "peak memory beyond the start, in bytes"
