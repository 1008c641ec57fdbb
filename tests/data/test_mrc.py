import bz2
import errno
import gzip

import mrcfile
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxuda.data.files import append_line, check_new_file, write_atomically
from voxuda.data.mrc import check_volume, read_mrc, write_mrc
from voxuda.errors import InputError
from voxuda.signal.normalise import unit_range, zscore
from voxuda.signal.resize import fourier_resize


@pytest.mark.parametrize(("dtype", "mode"), [("int8", 0), ("int16", 1), ("float32", 2), ("uint16", 6), ("float16", 12)])
@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 4, 5, 6)])
def test_round_trip_of_every_mode(tmp_path, dtype, mode, shape):
    data = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    path = write_mrc(tmp_path / "v.mrc", data, voxel_size=10.0)
    assert int(mrcfile.open(path, header_only=True).header.mode) == mode
    back = read_mrc(path)
    np.testing.assert_array_equal(back.data, data.astype(np.float32))
    assert back.data.dtype == np.float32 and back.voxel_size == pytest.approx(10.0)


def test_bool_and_uint8_keep_their_values(tmp_path):
    data = np.arange(250, 258).reshape(2, 2, 2).clip(0, 255).astype(np.uint8)
    np.testing.assert_array_equal(read_mrc(write_mrc(tmp_path / "u.mrc", data)).data, data)
    np.testing.assert_array_equal(read_mrc(write_mrc(tmp_path / "b.mrc", data > 252)).data, data > 252)
    assert int(mrcfile.open(tmp_path / "b.mrc", header_only=True).header.mode) == 0


def stamp(path, *, order="<", **fields):
    """Write header fields of a file by their place in the format: extremes, and IMOD's stamp and flags."""
    content = bytearray(path.read_bytes())
    for name, value in fields.items():
        at, kind = {"dmin": (76, "f4"), "dmax": (80, "f4"), "imod_stamp": (152, "i4"), "imod_flags": (156, "i4")}[name]
        content[at : at + 4] = np.array(value, order + kind).tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("fields", "unsigned"),
    [
        (dict(imod_stamp=1146047817, imod_flags=0, dmin=0, dmax=100), True),
        (dict(imod_stamp=1146047817, imod_flags=6, dmin=0, dmax=255), True),
        (dict(imod_stamp=1146047817, imod_flags=1, dmin=0, dmax=255), False),
        (
            dict(imod_stamp=1146047817, imod_flags=0, dmin=-128, dmax=127),
            False,
        ),  # edited since by a program that keeps the flags
        (dict(dmin=0, dmax=255), True),
        (dict(dmin=0, dmax=127), False),
        (dict(dmin=0, dmax=-1), False),
        (dict(imod_stamp=3, dmin=float("nan"), dmax=float("nan")), False),
    ],
)
def test_bytes_are_unsigned_where_the_header_says_so(tmp_path, order, fields, unsigned):
    data = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    with mrcfile.new(tmp_path / "b.mrc") as mrc:
        mrc.set_data(data.view(np.int8))
        mrc.header.dmin, mrc.header.dmax = 0, 0
    if order == ">":
        with mrcfile.open(tmp_path / "b.mrc") as mrc:
            header = mrc.header.astype(mrc.header.dtype.newbyteorder(">"))
        header["machst"] = [0x11, 0x11, 0, 0]
        (tmp_path / "b.mrc").write_bytes(header.tobytes() + data.tobytes())
    stamp(tmp_path / "b.mrc", order=order, **fields)
    for memory_map in (False, True):
        volume = read_mrc(tmp_path / "b.mrc", memory_map=memory_map)
        np.testing.assert_array_equal(volume.data, data if unsigned else data.view(np.int8))
        assert isinstance(volume.data, np.memmap) == memory_map


def test_bytes_written_as_such_are_read_as_such(tmp_path):
    """Signed bytes that this package or mrcfile writes have their true extremes in the header."""
    data = np.arange(-128, 128).astype(np.int8).reshape(4, 8, 8)
    np.testing.assert_array_equal(read_mrc(write_mrc(tmp_path / "s.mrc", data)).data, data)


def test_written_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    path = write_mrc(tmp_path / "v.mrc", np.ones((4, 4, 4), np.float32))
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_memory_map_leaves_data_on_disk(tmp_path):
    path = write_mrc(tmp_path / "v.mrc", np.ones((8, 8, 8), np.float32))
    assert isinstance(read_mrc(path, memory_map=True).data, np.memmap)


def test_truncated_file(tmp_path):
    path = write_mrc(tmp_path / "v.mrc", np.ones((8, 8, 8), np.float32))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"v\.mrc: not a readable MRC file"):
        read_mrc(path)


@pytest.mark.parametrize("content", [b"", b"not an MRC file at all" * 100])
def test_not_an_mrc_file(tmp_path, content):
    path = tmp_path / "v.mrc"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable MRC file"):
        read_mrc(path)


def write_images(path, shape=(32, 32, 32)):
    """A stack of images as microscopes and RELION write it: space group 0."""
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.random.default_rng(0).normal(size=shape).astype(np.float32))
        mrc.set_image_stack()
    return path


def test_images_are_told_from_volumes_by_name_and_space_group(tmp_path):
    cube = np.ones((8, 8, 8), np.float32)
    for name in ("v.mrc", "v.mrcs"):
        path = write_mrc(tmp_path / name, cube)
        assert int(mrcfile.open(path, header_only=True).header.ispg) == 1
        read_mrc(path).check_is_volume()
    assert int(mrcfile.open(write_mrc(tmp_path / "s.mrcs", cube[None]), header_only=True).header.ispg) == 401
    read_mrc(tmp_path / "s.mrcs").check_is_volume()
    read_mrc(write_images(tmp_path / "old_imod.mrc")).check_is_volume()
    for name in ("images.mrcs", "IMAGES.MRCS"):
        with pytest.raises(InputError, match=rf"{name}: shape \(32, 32, 32\) is a stack of 2D images"):
            read_mrc(write_images(tmp_path / name), memory_map=True).check_is_volume()


def test_axes_in_another_order_are_refused(tmp_path):
    path = tmp_path / "a.mrc"
    write_mrc(path, torch.rand(4, 5, 6), 10.0)
    content = bytearray(path.read_bytes())
    for axes, fine in (((3, 2, 1), False), ((1, 2, 2), False), ((0, 0, 0), True)):
        content[64:76] = np.array(axes, "<i4").tobytes()
        path.write_bytes(content)
        if fine:
            assert read_mrc(path).data.shape == (4, 5, 6)
        else:
            with pytest.raises(InputError, match=r"a\.mrc: columns, rows and sections are axes"):
                read_mrc(path)


def test_the_place_of_the_first_voxel_is_kept(tmp_path):
    path = write_mrc(tmp_path / "v.mrc", np.ones((4, 4, 4)), 2.0, origin=(1.0, 2.0, 3.0), start=(-5, 6, 7))
    header = mrcfile.open(path, header_only=True).header
    assert (header.nxstart, header.nystart, header.nzstart) == (-5, 6, 7)
    assert read_mrc(path).start == (-5, 6, 7) and read_mrc(path).origin == (1.0, 2.0, 3.0)


def test_a_file_that_cannot_be_written_is_refused_before(tmp_path, monkeypatch):
    check_new_file(tmp_path / "new.mrc", overwrite=False)
    check_new_file(tmp_path / "made" / "later" / "new.mrc", overwrite=False)
    with pytest.raises(
        InputError, match=r"new\.mrc: cannot be written because the folder .*later does not exist; create it first"
    ):
        check_new_file(tmp_path / "made" / "later" / "new.mrc", overwrite=False, makes_folder=False)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the file exists"):
        check_new_file(tmp_path / "file", overwrite=False)
    check_new_file(tmp_path / "file", overwrite=True)
    with pytest.raises(InputError, match="file: cannot be the folder of new because it is a file"):
        check_new_file(tmp_path / "file" / "new", overwrite=True)
    monkeypatch.setattr("os.access", lambda *_: False)  # whoever runs the tests may be allowed everything
    with pytest.raises(InputError, match=r"new: cannot be written into .*; choose a writable folder"):
        check_new_file(tmp_path / "new", overwrite=True)


def test_missing_file_wrong_shape_and_nan(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_mrc(tmp_path / "none.mrc")
    with pytest.raises(InputError, match="is a folder; give the path of an MRC file in it"):
        read_mrc(tmp_path)
    flat = tmp_path / "flat.mrc"
    with mrcfile.new(flat) as mrc:
        mrc.set_data(np.ones((4, 4), np.float32))
    with pytest.raises(InputError, match=r"shape \(4, 4\) is not a volume"):
        read_mrc(flat)
    holes = np.ones((4, 4, 4), np.float32)
    holes[0, 0, 0] = np.nan
    bad = tmp_path / "nan.mrc"
    with mrcfile.new(bad) as mrc, np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="NaN"):
        mrc.set_data(holes)
    with pytest.raises(InputError, match="1 voxels are NaN"):
        read_mrc(bad)


def test_nothing_is_overwritten_or_half_written(tmp_path):
    path = write_mrc(tmp_path / "v.mrc", np.ones((4, 4, 4), np.float32))
    before = path.read_bytes()
    with pytest.raises(InputError, match="the file exists"):
        write_mrc(path, np.zeros((4, 4, 4), np.float32))
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="cannot be written"):
        write_mrc(tmp_path / "no" / "folder.mrc", np.zeros((4, 4, 4), np.float32))
    assert [p.name for p in tmp_path.iterdir()] == ["v.mrc"]


def test_check_volume():
    check_volume(torch.arange(8.0), "v")
    with pytest.raises(InputError, match="same value"):
        check_volume(torch.ones(8), "v")
    with pytest.raises(InputError, match="NaN"):
        check_volume(torch.tensor([1.0, float("inf")]), "v")


def test_normalising(generator):
    x = 5 + 3 * torch.randn(2, 1, 8, 8, 8, generator=generator)
    z, u = zscore(x), unit_range(x)
    torch.testing.assert_close(z.mean((1, 2, 3, 4)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.square().mean((1, 2, 3, 4)), torch.ones(2))
    assert u.amin() == 0 and u.amax() == 1
    assert zscore(torch.ones(1, 1, 4, 4, 4)).abs().max() == 0


@given(n=st.integers(6, 13), m=st.integers(6, 13), k=st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_fourier_resize_keeps_what_both_grids_hold(n, m, k):
    def wave(size):
        z = torch.arange(size) / size
        return (1.5 + torch.cos(2 * torch.pi * k * z))[:, None, None].expand(size, size, size)

    torch.testing.assert_close(fourier_resize(wave(n), (m, m, m)), wave(m), atol=1e-5, rtol=1e-5)


def test_fourier_resize_there_and_back(generator):
    x = torch.randn(2, 1, 9, 9, 9, generator=generator)
    torch.testing.assert_close(fourier_resize(fourier_resize(x, (15, 15, 15)), (9, 9, 9)), x, atol=1e-5, rtol=1e-5)


def test_full_disk_keeps_the_last_good_file(tmp_path):
    path = tmp_path / "state.pt"
    path.write_text("good")

    def full(temporary):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="No space left on device"):
        write_atomically(full, path)
    assert path.read_text() == "good" and [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_line_that_finds_the_disk_full():
    with pytest.raises(InputError, match=r"/dev/full: cannot be written \(No space left on device\); free some space"):
        append_line("line", "/dev/full")


def test_headers_that_claim_too_much(tmp_path):
    """Honest files that compress to next to nothing are read, files that claim more than they hold are not."""
    small = np.zeros((160, 64, 64), np.int8)
    small[0, 0, 0] = 1
    plain = write_mrc(tmp_path / "a.mrc", small)
    content = plain.read_bytes()
    for name, pack in (("a.mrc.bz2", bz2.compress), ("a.mrc.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(content))
        for memory_map in (False, True):
            np.testing.assert_array_equal(read_mrc(tmp_path / name, memory_map=memory_map).data, small)
        for at, value in ((8, 2**30), (92, 2**31 - 1), (0, 2**31 - 1)):
            lie = content[:at] + value.to_bytes(4, "little") + content[at + 4 :]
            (tmp_path / name).write_bytes(pack(lie))
            plain.write_bytes(lie)
            for path in (plain, tmp_path / name):
                with pytest.raises(InputError, match="more than the file holds"):
                    read_mrc(path)


def test_real_files_of_other_programs(molecule_files, stacks):
    """Maps of EMAN2, RELION's average and WarpTools' stacks, the last two of space group 0: only the stacks are images."""
    maps = sorted(molecule_files.glob("*.mrc"))
    assert len(maps) > 9
    for path in [*maps, *stacks.glob("*.mrc*")]:
        volume, mapped = read_mrc(path), read_mrc(path, memory_map=True)
        np.testing.assert_array_equal(volume.data, mrcfile.read(path))
        np.testing.assert_array_equal(volume.data, mapped.data)
        assert volume.is_image_stack == mapped.is_image_stack == path.name.startswith("Unt_")
        assert volume.voxel_size == pytest.approx(10 if path in maps else 12, rel=1e-3)
