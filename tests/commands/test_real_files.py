"""`voxuda segment` and `voxuda data convert` on files that other programs wrote: PolNet, EMAN2, RELION, WarpTools, cylindra."""

import csv

import numpy as np
import pytest

from voxuda.commands.main import main
from voxuda.data.mrc import read_mrc


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_segment_a_real_tomogram(fetched_microtubule, microtubule_files, tmp_path):
    assert run("segment", fetched_microtubule / "microtubule.mrc", "--no-picture", "--out", tmp_path) == 0
    mask, reference = read_mrc(tmp_path / "microtubule_mask.mrc"), read_mrc(microtubule_files / "reference_wall.mrc")
    assert mask.data.shape == reference.data.shape and mask.voxel_size == pytest.approx(reference.voxel_size)
    found, wall = mask.data > 0, reference.data > 0
    assert (found & wall).sum() / (found | wall).sum() > 0.5


@pytest.mark.parametrize("name", ["4v94_single_10A", "6qzp_10A"])  # one whole, one in tiles
def test_segment_density_maps(molecule_files, tmp_path, name):
    assert run("segment", molecule_files / f"{name}.mrc", "--no-picture", "--out", tmp_path) == 0
    volume, mask = read_mrc(molecule_files / f"{name}.mrc"), read_mrc(tmp_path / f"{name}_mask.mrc")
    assert mask.voxel_size == pytest.approx(10.0) and mask.origin == volume.origin and mask.start == volume.start
    assert volume.data[mask.data > 0].mean() > 3 * volume.data.std() > 10 * abs(volume.data[mask.data == 0].mean())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("molecules/1bxn_10A.mrc", "1bxn_10A.mrc: is mostly areas of one value, like a mask or an isolated molecule"),
        ("real/microtubule/reference_wall.mrc", "reference_wall.mrc: is mostly areas of one value"),
        ("real/microtubule/13pf_MT.tif", "13pf_MT.tif: not a readable MRC file"),
        ("real/ribosome_tilt_stacks/Unt_050_12.00A_000001.mrcs", "shape (37, 32, 32) is a stack of 2D images"),
    ],
)
def test_segment_refuses_what_is_no_tomogram(molecule_files, tmp_path, capsys, name, message):
    assert run("segment", molecule_files.parent / name, "--out", tmp_path / "m") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "m").exists()


def test_convert_density_maps_of_many_boxes(molecule_files, tmp_path, capsys):
    maps = sorted(molecule_files.glob("*.mrc"))
    assert run("data", "convert", molecule_files, "--voxel-size", 10, "--out", tmp_path / "c") == 0
    made = read_mrc(tmp_path / "c" / "volumes.mrcs")
    assert made.data.shape == (len(maps), 32, 32, 32) and made.voxel_size == pytest.approx(10.0)
    with open(tmp_path / "c" / "samples.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(maps)
    for one, path in zip(made.data, maps, strict=True):  # all are as large as 32 voxels or larger, at the same voxel size
        box = read_mrc(path).data
        start = len(box) // 2 - 16
        np.testing.assert_array_equal(one, box[3 * (slice(start, start + 32),)])


def test_a_star_file_of_relion_5_says_what_to_do(stacks, tmp_path, capsys):
    """Its stacks of 2D images, where its rows say; half of those stacks are not here, and neither are their rows then."""
    (source,) = stacks.glob("*angpix-12.star")
    star = tmp_path / source.name
    star.write_text("".join(row for row in source.read_text().splitlines(True) if not ("Unt_076" in row or "Unt_088" in row)))
    for path in stacks.glob("*.mrcs"):
        place = tmp_path / star.stem / path.name[:7] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    assert run("data", "convert", star, "--out", tmp_path / "c") == 2
    error = capsys.readouterr().err
    assert "Unt_083_12.00A_000001.mrcs: shape (37, 32, 32) is a stack of 2D images; export 3D subtomograms" in error
    assert run("segment", star, "--out", tmp_path / "c") == 2
    assert "is a star file; convert it with `voxuda data convert`" in capsys.readouterr().err
