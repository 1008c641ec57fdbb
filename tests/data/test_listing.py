import bz2
import functools
import gzip
import os
import shutil

import mrcfile
import numpy as np
import pytest
from test_subtomograms import ball, noise, write

from voxuda.data import listing, subtomograms
from voxuda.data.files import new_folder
from voxuda.data.listing import list_entries
from voxuda.data.mrc import write_mrc
from voxuda.data.subtomograms import SubtomogramFolder, load_domain
from voxuda.errors import InputError
from voxuda.simulation import molecules, quick
from voxuda.simulation.samples import save_samples


@pytest.fixture
def folder(tmp_path):
    return save_samples(quick.simulate_target([molecules.load("4v94")], n_per_molecule=3, size=16), tmp_path / "t")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a" / "b") as work:
        (work / "file").touch()
        raise KeyboardInterrupt
    assert not (tmp_path / "a" / "b").exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with new_folder(tmp_path / "link") as work:
        (work / "file").touch()
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["file"]


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_between_the_renames_leaves_nothing(tmp_path, monkeypatch, existed, error):
    out, rename, renamed = tmp_path / "t", os.replace, []
    if existed:
        out.mkdir()

    def fails_at_the_third(old, new):
        if len(renamed) == 2:
            raise error("stop")
        rename(old, new)
        renamed.append(os.path.basename(new))

    monkeypatch.setattr(os, "replace", fails_at_the_third)
    with pytest.raises(InputError if error is OSError else error), new_folder(out) as work:
        for name in ("volumes.mrcs", "samples.csv", "masks.mrcs"):
            (work / name).touch()
        (work / "deep").mkdir()
        (work / "deep" / "file").touch()
    assert renamed == ["deep", "masks.mrcs"], "not in alphabetical order"
    assert out.exists() == existed and not (existed and any(out.iterdir()))


def test_what_a_killed_process_leaves_is_refused(tmp_path, folder, monkeypatch):
    renamed = []
    with monkeypatch.context() as patch, new_folder(tmp_path / "order") as work:
        patch.setattr(os, "replace", lambda old, new: renamed.append(os.path.basename(new)))
        for name in ("volumes.mrcs", "samples.csv", "masks.mrcs", "zebra"):
            (work / name).touch()
    assert renamed == ["masks.mrcs", "samples.csv", "zebra", "volumes.mrcs"]
    (folder / ".part").mkdir()
    for names in (["volumes.mrcs"], ["masks.mrcs", "densities.mrcs", "samples.csv"]):  # killed here, and earlier
        with pytest.raises(InputError, match=r"t: holds \.part, so writing is in progress or was interrupted; wait"):
            load_domain(folder)
        for name in names:
            (folder / name).rename(folder / ".part" / name)
    with new_folder(folder) as work:  # nothing of it was renamed, so it may be made anew
        (work / "file").touch()
    assert [p.name for p in folder.iterdir()] == ["file"]


def test_a_folder_that_a_job_fills_while_it_is_listed_is_not_listed_in_part(tmp_path, folder, monkeypatch):
    look, part = listing._of_files, folder / ".part"
    part.mkdir()
    for name in ("volumes.mrcs", "masks.mrcs", "samples.csv"):
        (folder / name).rename(part / name)
    part.rename(tmp_path / "not yet")

    def list_while(job_acts):
        def looks(source):
            found = look(source)
            assert found[0].path.name == "densities.mrcs", "which are no samples"
            job_acts()
            return found

        monkeypatch.setattr(listing, "_of_files", looks)
        return listing.list_entries(folder)

    def ends():
        for path in (tmp_path / "not yet").iterdir():
            path.rename(folder / path.name)

    with pytest.raises(InputError, match=r"t: holds \.part, so writing is in progress or was interrupted; wait"):
        list_while(part.mkdir)
    part.rmdir()
    assert {entry.path.name for entry in list_while(ends)} == {"volumes.mrcs"}


@pytest.mark.parametrize("place", ["masks/a.mrc", "a_mask.mrc"])
def test_masks_are_found_beside_the_volumes(tmp_path, place):
    write(tmp_path / "a.mrc", noise(16, 16, 16))
    mask = write(tmp_path / place, ball(16))
    (entry,) = SubtomogramFolder(tmp_path).entries
    assert entry.mask == mask and entry.name == "unknown"


@pytest.mark.parametrize("masks", ["masks", "Masks", "MASKS"])
@pytest.mark.parametrize(
    ("volumes", "classes"),
    [
        ("volumes/a.mrc volumes/b.mrc", ["unknown"] * 2),
        ("Volumes/26S/a.mrc Volumes/TRiC/b.mrc", ["26S", "TRiC"]),
        ("26S/a.mrc TRiC/b.mrc", ["26S", "TRiC"]),
        ("a.mrc b.mrc", ["unknown"] * 2),
    ],
)
def test_masks_in_a_folder_beside_the_volumes(tmp_path, masks, volumes, classes):
    for i, name in enumerate(volumes.split()):
        write(tmp_path / name, noise(16, 16, 16, seed=i))
    write(tmp_path / masks / "a.map", ball(16))  # another suffix than its volume
    write(tmp_path / masks / "b_mask.mrc", ball(16))
    entries = SubtomogramFolder(tmp_path).entries
    assert [entry.name for entry in entries] == classes
    assert [entry.mask.name for entry in entries] == ["a.map", "b_mask.mrc"]


def test_volumes_beside_other_classes_is_a_class(tmp_path):
    write(tmp_path / "volumes" / "a.mrc", noise(16, 16, 16))
    write(tmp_path / "26S" / "b.mrc", noise(16, 16, 16))
    assert {entry.name for entry in SubtomogramFolder(tmp_path).entries} == {"volumes", "26S"}


def test_a_mask_that_could_belong_to_two_volumes_is_refused(tmp_path):
    for name in ("26S", "TRiC"):
        write(tmp_path / name / "a.mrc", noise(16, 16, 16))
    write(tmp_path / "masks" / "a.mrc", ball(16))
    with pytest.raises(InputError, match=r"masks/a\.mrc: could be the mask of .*26S/a\.mrc and of .*TRiC/a\.mrc; give each"):
        load_domain(tmp_path)
    shutil.rmtree(tmp_path / "TRiC")
    write(tmp_path / "26S" / "a.rec", noise(16, 16, 16))
    with pytest.raises(InputError, match="could be the mask of"):
        load_domain(tmp_path)
    write(tmp_path / "masks" / "a.rec", ball(16, 0.2))
    entries = SubtomogramFolder(tmp_path).entries
    assert [entry.path.suffix for entry in entries] == [entry.mask.suffix for entry in entries] == [".mrc", ".rec"]


def test_capitals_are_read_and_nothing_is_left_out(tmp_path):
    write(tmp_path / "26S" / "A.MRC", noise(16, 16, 16))
    assert [entry.path.name for entry in SubtomogramFolder(tmp_path).entries] == ["A.MRC"]
    for name in ("b.em", "26S/c.HDF", "26S/d.Em"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"b\.em: the first of 3 files that cannot be read: the EM format; export it as MRC"):
        load_domain(tmp_path)
    (tmp_path / "b.em").unlink()
    (tmp_path / "26S" / "d.Em").unlink()
    with pytest.raises(InputError, match=r"c\.HDF: EMAN2's format; export it"):
        load_domain(tmp_path)
    (tmp_path / "26S" / "c.HDF").unlink()
    write(tmp_path / "26S" / "day1" / "e.mrc", noise(16, 16, 16))
    write(tmp_path / "26S" / "day1" / "run2" / "f.mrc", noise(16, 16, 16))
    with pytest.raises(
        InputError, match=r"day1/e\.mrc: lies too deep, the first of 2 such MRC files; put each into the folder"
    ):
        load_domain(tmp_path)
    write(tmp_path / "26S" / ".hidden" / "g.mrc", noise(16, 16, 16))
    shutil.rmtree(tmp_path / "26S" / "day1")
    assert len(SubtomogramFolder(tmp_path)) == 1


def write_images(path, n):
    """A stack of n images of n², with the space group of images."""
    with mrcfile.new(path) as mrc:
        mrc.set_data(noise(n, n, n))
        mrc.set_image_stack()


def test_as_many_images_as_they_have_rows_are_no_volume(tmp_path):
    write_images(tmp_path / "s.mrcs", 32)
    with pytest.raises(InputError, match=r"s\.mrcs: shape \(32, 32, 32\) is a stack of 2D images"):
        load_domain(tmp_path)
    (tmp_path / "s.mrcs").rename(tmp_path / "volumes.mrcs")
    with pytest.raises(InputError, match="is a stack of 2D images"):
        load_domain(tmp_path)
    (tmp_path / "volumes.mrcs").rename(tmp_path / "s.mrc")  # under this name the space group says nothing
    assert len(load_domain(tmp_path)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index,molecule\n0,prot\u00e9ine\n1,a\n2,a\n".encode("latin-1"), r"samples\.csv: not a readable table; save it"),
        (b"index,molecule\n0,a\n1,a\x00\n2,a\n", None),
        (b"index,molecule\n0,a\n1\n2,a\n", r"samples\.csv: row 2 names no molecule"),
        (b"index,molecule\n0,a\n1,a\n2, \n", r"samples\.csv: row 3 names no molecule"),
        (b"index,molecule\n0,a\n1,a\n2," + b"a" * 200_000 + b"\n", "not a readable table"),
        ("\ufeffmolecule,index\nprot\u00e9ine,0\nprot\u00e9ine,1\nprot\u00e9ine,2\n".encode(), None),
    ],
)
def test_tables_that_other_programs_wrote(folder, content, message):
    (folder / "samples.csv").write_bytes(content)
    if message is None:
        assert len(load_domain(folder)) == 3
        return
    with pytest.raises(InputError, match=message):
        load_domain(folder)


def test_a_name_outside_ascii_is_written_and_read(tmp_path, monkeypatch):
    write(tmp_path / "prot\u00e9ine" / "a.mrc", noise(16, 16, 16))
    for module in (subtomograms, listing):  # as where UTF-8 is not the default
        monkeypatch.setattr(module, "open", functools.partial(open, encoding="ascii"), raising=False)
    out = SubtomogramFolder(tmp_path, size=16).save(tmp_path / "out")
    assert load_domain(out).classes == ["prot\u00e9ine"]


def test_specimens_in_the_table_keep_samples_together(folder):
    (folder / "samples.csv").write_text("index,molecule,specimen\n0,a,s1\n1,a,s2\n2,b,s1\n")
    domain = load_domain(folder)
    assert domain.groups == ["s1", "s2", "s1"]
    assert {tuple(part.groups) for part in domain.split(0.5, 0)} == {("s1", "s1"), ("s2",)}
    (folder / "samples.csv").write_text("index,molecule,specimen\n0,a,s1\n1,a,s1\n2,b,s1\n")
    assert sorted(map(len, load_domain(folder).split(0.5, 0))) == [1, 2], "one specimen is divided, else nothing is tested"
    (folder / "samples.csv").write_text("index,molecule,specimen\n0,a,\n1,a,s1\n2,b,s1\n")
    with pytest.raises(InputError, match=r"samples\.csv: row 1 names no specimen, but others do"):
        load_domain(folder)


def test_a_folder_without_its_volumes_is_refused(folder):
    (folder / "volumes.mrcs").rename(folder / "subtomograms.mrcs")
    lost = r"no volumes\.mrcs to go with masks\.mrcs and samples\.csv; put it back, or rename the stack of volumes to"
    with pytest.raises(InputError, match=lost):
        load_domain(folder)


def test_the_nearest_of_files_of_the_same_name_is_taken(tmp_path):
    star = tmp_path / "job" / "p.star"
    write(tmp_path / "a.mrc", noise(16, 16, 16))
    near = write(star.parent / "a.mrc", noise(16, 16, 16))
    star.write_text(STAR + "a.mrc 1 1\n")
    assert SubtomogramFolder(star).entries[0].path == near
    near.unlink()
    assert SubtomogramFolder(star).entries[0].path == tmp_path / "a.mrc"
    (tmp_path / "a.mrc").unlink()
    with pytest.raises(InputError, match="the folder of the star file or any folder above it, nearest first"):
        load_domain(star)


STAR = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
1 12.5
2 12.5

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnClassNumber #3
"""


def test_a_star_file_names_volumes_places_in_stacks_classes_and_pixel_sizes(tmp_path):
    stack = noise(3, 32, 32, 32)
    write(tmp_path / "Extract" / "stack.mrcs", stack, 10.0)
    write(tmp_path / "Extract" / "one.mrc", noise(32, 32, 32, seed=1), 10.0)
    star = tmp_path / "Select" / "job1" / "particles.star"
    star.parent.mkdir(parents=True)
    star.write_text(STAR + "000003@Extract/stack.mrcs 1 2\nExtract/one.mrc 2 1\n000001@Extract/stack.mrcs 1 2\n")
    folder = SubtomogramFolder(star)
    assert [entry.name for entry in folder.entries] == ["class 2", "class 1", "class 2"]
    assert {entry.voxel_size for entry in folder.entries} == {12.5}  # the star file's, not the header's
    assert np.array_equal(folder[0][0], stack[2]) and np.array_equal(folder[2][0], stack[0])
    assert load_domain(star).masks is None
    write(tmp_path / "Extract" / "masks" / "one.mrc", ball(32))
    write(tmp_path / "Extract" / "stack_mask.mrcs", np.stack([ball(32, r) for r in (0.2, 0.3, 0.4)]))
    assert np.array_equal(SubtomogramFolder(star)[0][1], ball(32, 0.4))


@pytest.mark.parametrize(("column", "size"), [("rlnPixelSize", 7.0), ("rlnImagePixelSize", 7.0), ("rlnOther", 10.0)])
def test_a_star_file_of_one_table(tmp_path, column, size):
    write(tmp_path / "a.mrc", noise(32, 32, 32))
    star = tmp_path / "p.star"
    star.write_text(f"data_\n\nloop_\n_rlnImageName #1\n_{column} #2\na.mrc 7.0\n")
    (entry,) = SubtomogramFolder(star).entries
    assert entry.voxel_size == pytest.approx(size) and entry.name == "unknown"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STAR + "a.mrc 1 1\nnone.mrc 1 1\n000001@away.mrcs 1 1\n", "names 2 volumes that do not exist, first none.mrc"),
        (STAR + "000004@stack.mrcs 1 1\n", r"stack\.mrcs: holds 3 volumes, counted from 1, so there is no number 4"),
        (STAR + "000000@stack.mrcs 1 1\n", "there is no number 0"),
        (STAR + "x@stack.mrcs 1 1\n", "rlnImageName holds x@stack.mrcs; the part before the @ must be a whole number"),
        (STAR + "2.7@stack.mrcs 1 1\n", "rlnImageName holds 2.7@stack.mrcs; the part before"),
        (STAR + "1@cube.mrcs 1 1\n", r"cube\.mrcs: shape \(16, 16, 16\) is a stack of 2D images; export 3D subtomograms"),
        (STAR + "1@stack.mrcs 1 1\n2@stack.mrcs 1 1\n000001@stack.mrcs 1 1\n", "row 3 names 000001@stack.mrcs, which row 1"),
        (STAR + "2@stack.mrcs 1 1\nstack.mrcs 1 1\n", "row 2 names stack.mrcs, which row 1 names already"),
        (STAR + "a.mrc 1 1\n./a.mrc 1 1\n", "row 2 names ./a.mrc, which row 1 names already"),
        (STAR + "a.MAP 1 1\n1@stack.mrcs 1 1\n", "names 1 volumes that do not exist, first a.MAP"),
        (STAR + "000001@images.mrcs 1 1\n", r"images\.mrcs: shape \(5, 16, 16\) is a stack of 2D images"),
        (STAR + "a.mrc 3 1\n", "data_optics does not describe optics group 3; add its pixel size"),
        (STAR + "a.mrc 1 x\n", "rlnClassNumber holds x"),
        (STAR + "p.hdf 1 1\n", "e2proc3d.py"),
        (
            "data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n" + STAR + "images.mrcs 1 1\n",
            r"images\.mrcs: shape \(5, 16, 16\) is a stack of 2D images; export 3D subtomograms \(WarpTools: --3d;",
        ),
        ("data_particles\n\nloop_\n_rlnTomoName #1\n_rlnCoordinateX #2\nt1 3\n", "no images in a column rlnImageName"),
        ("", "no images in a column rlnImageName"),
        ("data_particles\n\nloop_\n_rlnImageName #1\n", "no images in a column rlnImageName"),
    ],
)
def test_a_star_file_that_cannot_be_used_is_refused(tmp_path, text, message):
    write(tmp_path / "a.mrc", noise(16, 16, 16))
    write(tmp_path / "stack.mrcs", noise(3, 16, 16, 16))
    write(tmp_path / "images.mrcs", noise(5, 16, 16))
    write_images(tmp_path / "cube.mrcs", 16)
    (tmp_path / "p.hdf").touch()
    star = tmp_path / "p.star"
    star.write_text(text)
    with pytest.raises(InputError, match=message):
        load_domain(star)


def test_no_star_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.star: no such file"):
        load_domain(tmp_path / "none.star")


@pytest.mark.parametrize(("name", "message"), [("a.hdf", "e2proc3d.py"), ("a.em", "dwrite"), ("a.txt", "no MRC files")])
def test_files_of_other_formats_are_refused_with_the_remedy(tmp_path, name, message):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        load_domain(tmp_path)
    with pytest.raises(InputError, match="is a file" if name == "a.txt" else message):
        load_domain(tmp_path / name)


def test_what_is_left_out_is_said(tmp_path, capsys):
    write(tmp_path / "A" / "a.mrc", noise(16, 16, 16))
    for name in ("A/b.st", "A/c.st", "notes.txt", "A/d.mrc.zst", ".hidden.st"):
        (tmp_path / name).touch()
    assert len(list_entries(tmp_path)) == 1
    assert capsys.readouterr().err == f"warning: {tmp_path}: left out 2 .st, 1 .txt, 1 .zst.\n"


def test_another_volume_in_a_folder_of_this_package_is_named(folder, capsys):
    assert len(list_entries(folder)) == 3 and capsys.readouterr().err == ""
    write(folder / "more.mrc", noise(16, 16, 16))
    assert len(list_entries(folder)) == 3 and capsys.readouterr().err == f"warning: {folder}: left out 1 .mrc.\n"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_compressed_volumes_and_masks_are_read(tmp_path, pack):
    ending = {gzip.compress: ".gz", bz2.compress: ".BZ2"}[pack]
    for name, content in (("a.mrc", noise(16, 16, 16)), ("masks/a.mrc", ball(16)), ("b.ccp4", noise(16, 16, 16))):
        path = write(tmp_path / name, content)
        if name != "b.ccp4":
            path.with_name(path.name + ending).write_bytes(pack(path.read_bytes()))
            path.unlink()
    write(tmp_path / "b_mask.mrc", ball(16))
    folder = SubtomogramFolder(tmp_path, size=16)
    assert [entry.path.name for entry in folder.entries] == [f"a.mrc{ending}", "b.ccp4"]
    assert np.array_equal(folder[0][0], noise(16, 16, 16)) and np.array_equal(folder[0][1], ball(16))
    (tmp_path / "p.star").write_text(f"data_\nloop_\n_rlnImageName\na.mrc{ending}\n")
    assert SubtomogramFolder(tmp_path / "p.star").entries[0].mask == tmp_path / "masks" / f"a.mrc{ending}"


@pytest.mark.parametrize("name", ["job.em", "particles.hdf", "refined.star", "TS_01.mrc", "pack.gz", "all"])
def test_a_folder_may_be_named_like_a_file(tmp_path, name):
    where = tmp_path / name / ("TS_02.st" if name == "all" else "")
    write(where / "a.mrc", noise(16, 16, 16))
    assert [entry.path for entry in list_entries(tmp_path / name)] == [where / "a.mrc"]


def ctf(n, *, centred):
    """A CTF volume, frequency 0 at voxel 0 or in the middle."""
    k = np.fft.fftfreq(n)
    square = k[:, None, None] ** 2 + 1.1 * k[:, None] ** 2 + k**2
    volume = np.abs(np.sin(40 * square)).astype(np.float32)
    return np.fft.fftshift(volume) if centred else volume


@pytest.mark.parametrize(
    ("volume", "companion"),
    [
        ("TS_1_0000001_10.00A", "TS_1_0000001_ctf_10.00A"),  # Warp
        ("1_data", "1_weights"),  # RELION 4 and 5
        ("1_data", "1_CTF2"),
        ("1_data", "1_data_nrm"),
        ("a", "a_ctf"),
        ("a", "wedge"),
        ("run_class001", "run_half1_class001_unfil"),
    ],
)
def test_companions_of_a_subtomogram_are_left_out_with_a_word(tmp_path, capsys, volume, companion):
    write(tmp_path / f"{volume}.mrc", noise(16, 16, 16))
    write(tmp_path / f"{companion}.mrc", noise(16, 16, 16))
    extra = [f"{volume}_unfil"] if "half" in companion else []
    for name in extra:
        write(tmp_path / f"{name}.mrc", noise(16, 16, 16))
    found = [entry.path.stem for entry in list_entries(tmp_path)]
    assert found == sorted([volume, *extra])
    assert f"left out 1 CTF, weight or half-map volumes such as {companion}.mrc." in capsys.readouterr().err


def test_a_name_alone_makes_no_companion(tmp_path, capsys):
    for name in ("bin4_ctf_corrected_1", "bin4_ctf_corrected_2", "weightless", "half_1"):
        write(tmp_path / f"{name}.mrc", noise(16, 16, 16))
    assert len(list_entries(tmp_path)) == 4 and capsys.readouterr().err == ""


@pytest.mark.parametrize("n", [16, 17])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("signed", [0, 0.5])
def test_a_ctf_volume_of_any_name_is_refused(tmp_path, n, centred, signed):
    write(tmp_path / "ctf" / "a.mrc", ctf(n, centred=centred) - signed)
    with pytest.raises(InputError, match=r"ctf/a\.mrc: is symmetric through its centre, as CTF and weight volumes are"):
        load_domain(tmp_path)
    write_mrc(tmp_path / "ctf" / "a.mrc", ctf(n, centred=centred) + 0.1 * noise(n, n, n), overwrite=True)
    assert len(load_domain(tmp_path)) == 1
    square = (np.arange(n) / n - n // 2 / n) ** 2
    write_mrc(tmp_path / "ctf" / "a.mrc", np.exp(-60 * (square[:, None, None] + square[:, None] + square)), overwrite=True)
    assert len(load_domain(tmp_path)) == 1, "a symmetric phantom on empty ground"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((16, 16, 9), r"a\.mrc: \(16, 16, 9\) are the sides of half a Fourier transform \(CTF or weights\)"),
        ((17, 17, 9), "half a Fourier transform"),
        (
            (12, 36, 40),
            r"a\.mrc: \(12, 36, 40\) are the sides of a tomogram or a tilt series",
        ),
    ],
)
def test_sides_of_no_subtomogram_are_refused(tmp_path, shape, message):
    write(tmp_path / "a.mrc", noise(*shape))
    with pytest.raises(InputError, match=message):
        list_entries(tmp_path)


@pytest.mark.parametrize(("column", "names", "groups"), [
    ("rlnTomoName", "TS_01 TS_02 TS_01", ["TS_01", "TS_02", "TS_01"]),
    ("rlnMicrographName", "a.mrc b.mrc b.mrc", ["a.mrc", "b.mrc", "b.mrc"]),
    ("rlnTomoName", "TS_01 TS_01 TS_01", None),  # one tomogram cannot be split
])  # fmt: skip
def test_the_tomograms_of_a_star_file_are_specimens(tmp_path, column, names, groups):
    write(tmp_path / "stack.mrcs", noise(3, 32, 32, 32))
    rows = "".join(f"{i}@stack.mrcs {name}\n" for i, name in enumerate(names.split(), 1))
    (tmp_path / "p.star").write_text(f"data_\n\nloop_\n_rlnImageName #1\n_{column} #2\n{rows}")
    assert load_domain(tmp_path / "p.star").groups == groups
    SubtomogramFolder(tmp_path / "p.star", voxel_size=None).save(tmp_path / "out")
    assert load_domain(tmp_path / "out").groups == groups
