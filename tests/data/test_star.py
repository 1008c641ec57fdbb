"""Star files as other programs and people write them: spelling, names, paths, pixel sizes; real ones of RELION 5."""

import re

import mrcfile
import pytest
import starfile
from test_subtomograms import noise, write

from voxuda.data.star import number, read_star
from voxuda.data.subtomograms import SubtomogramFolder, load_domain
from voxuda.data.tilt_stacks import read_particles
from voxuda.errors import InputError

PLAIN = "data_particles\n\nloop_\n_rlnImageName #1\n_rlnTomoName #2\na.mrc T1\nb.mrc 00255\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.rstrip().encode(),
        PLAIN.replace(" #", "#").replace("#1", "").replace("#2", "").encode(),
        PLAIN.replace(" ", "\t").replace("\na", "\n \t a").encode(),
        PLAIN.replace("data", "# version 50001\n\ndata").replace("T1", "T1 # picked\n\n# by hand").encode(),
        PLAIN.replace("T1", "'T1'").replace("b.mrc", '"b.mrc"').encode(),
    ],
)
def test_one_table_in_many_spellings(tmp_path, content):
    star = tmp_path / "p.star"
    star.write_bytes(content)
    assert read_star(star) == {"particles": {"rlnImageName": ["a.mrc", "b.mrc"], "rlnTomoName": ["T1", "00255"]}}


def test_values_stay_text_and_blocks_keep_their_names(tmp_path):
    star = tmp_path / "p.star"
    names = ["1e3", "nan", "NA", "007", "5'-cap", "a b", "data_1", "a#1", "", "_a"]
    rows = "\n".join((f'"{name}"' if not name or " " in name else name) + f" {i}" for i, name in enumerate(names))
    star.write_text(f"data_00255\n\n_rlnA 1e3\n_rlnB my data\n\ndata_\n\nloop_\n_rlnName\n_rlnI\n{rows}\n\ndata_nan\n")
    blocks = read_star(star)
    assert blocks["00255"] == {"rlnA": ["1e3"], "rlnB": ["my data"]} and blocks["nan"] == {}
    assert blocks[""]["rlnName"] == names and number(star, "rlnA", "1e3") == 1000
    star.write_bytes("data_\nloop_\n_rlnName\nprot\u00e9ine\n".encode("latin-1"))
    assert read_star(star)[""]["rlnName"] == ["prot\u00e9ine"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN + "my data.mrc T1\n", r"p\.star: line 8 has 3 values for 2 columns; put names with blanks in quotation marks"),
        (PLAIN + "c.mrc\n", "line 8 has 1 value for 2 columns"),
        (PLAIN.replace("TomoName", "ImageName"), "line 5 names rlnImageName again; name each column of a table once"),
        (PLAIN.replace("loop_\n", ""), "line 5 is in no table of a star file; export it again"),
    ],
)
def test_what_cannot_be_read_right_is_refused(tmp_path, text, message):
    (tmp_path / "p.star").write_text(text)
    with pytest.raises(InputError, match=message):
        read_star(tmp_path / "p.star")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with two volumes, whose star files are elsewhere; the current folder is none of these."""
    for i in range(2):
        write(tmp_path / "project" / "Extract" / f"p {i}.mrc", noise(16, 16, 16, seed=i))
    for folder in ("project/Select/job1", "home", "away"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "away")
    return tmp_path / "project"


def star_of(path, *names, head="_rlnImageName\n", tail=""):
    path.write_text(f"data_particles\n\nloop_\n{head}" + "".join(f'"{name}"{tail}\n' for name in names))
    return path


def files(star):
    return [entry.path.name for entry in SubtomogramFolder(star).entries]


@pytest.mark.parametrize(
    "spelled", ["Extract/p {}.mrc", "Extract/p {}.mrc:mrc", r"Extract\p {}.mrc", r"..\project\Extract\p {}.mrc"]
)
def test_spellings_of_a_path(project, spelled):
    star = star_of(project / "p.star", *(spelled.format(i) for i in range(2)))
    assert files(star) == ["p 0.mrc", "p 1.mrc"]


def test_a_path_with_an_at_sign_and_a_place_with_a_format(project):
    write(project / "me@home" / "a.mrc", noise(16, 16, 16))
    write(project / "s.mrcs", noise(2, 16, 16, 16))
    star = star_of(project / "p.star", "me@home/a.mrc", "000002@s.mrcs:mrcs")
    assert [entry.index for entry in SubtomogramFolder(star).entries] == [None, 1]


def test_paths_count_from_a_link_from_what_it_links_to_and_from_the_current_folder(project, monkeypatch):
    names = [f"Extract/p {i}.mrc" for i in range(2)]
    star = star_of(project / "Select" / "job1" / "p.star", *names)
    link = project.parent / "home" / "link.star"
    link.symlink_to(star)
    assert files(link) == ["p 0.mrc", "p 1.mrc"]
    write(link.parent / "Extract" / "p 0.mrc", noise(16, 16, 16))
    assert SubtomogramFolder(link).entries[0].path == link.parent / names[0], "nearer to the link"
    (link.parent / "Extract" / "p 0.mrc").unlink()
    moved = star_of(link.parent / "moved.star", *names)
    with pytest.raises(
        InputError, match=r"names 2 volumes that do not exist, first Extract/p 0\.mrc; paths are .* the current"
    ):
        load_domain(moved)
    monkeypatch.chdir(project)
    assert files(moved) == ["p 0.mrc", "p 1.mrc"]


@pytest.mark.parametrize(
    ("optics", "head", "tail", "size"),
    [
        ("", "_rlnMagnification\n_rlnDetectorPixelSize\n", " 10000.0 12.5", 12.5),
        ("", "_rlnMagnification\n_rlnDetectorPixelSize\n", " 33000 5", 5 / 3.3),
        ("", "_rlnMagnification\n_rlnDetectorPixelSize\n_rlnPixelSize\n", " 10000.0 2 12.5", 12.5),
        ("_rlnOpticsGroup\n_rlnImagePixelSize\n7 12.5\n9 8\n", "_rlnOpticsGroup\n", " 7", 12.5),
        ("_rlnOpticsGroup\n_rlnImagePixelSize\n1 12.5\n", "", "", 12.5),
        ("_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n_rlnTomoSubtomogramBinning\n1 2.5 5\n", "", "", 12.5),
        ("_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n1 2.5\n", "", "", 10.0),  # of the images before binning: the header's
    ],
)
def test_pixel_sizes_of_every_relion(project, optics, head, tail, size):
    star = star_of(project / "p.star", "Extract/p 0.mrc", head=f"_rlnImageName\n{head}", tail=tail)
    star.write_text((f"data_optics\n\nloop_\n{optics}\n" if optics else "") + star.read_text())
    (entry,) = SubtomogramFolder(star).entries
    assert entry.voxel_size == pytest.approx(size)


def test_a_negative_pixel_size_is_refused(project):
    star = star_of(project / "p.star", "Extract/p 0.mrc", head="_rlnImageName\n_rlnPixelSize\n", tail=" -1")
    with pytest.raises(InputError, match=r"rlnPixelSize holds -1; it must be a number of at least 0"):
        load_domain(star)


def test_files_decide_what_a_flag_says_wrongly(project):
    """A star file may say that its volumes are stacks of images, and images may be listed without a word."""
    flag = "data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n\n"
    star = star_of(project / "p.star", "Extract/p 0.mrc", "Extract/p 1.mrc")
    star.write_text(flag + star.read_text())
    assert len(SubtomogramFolder(star)) == 2
    write(project / "cube.mrcs", noise(16, 16, 16))
    write(project / "images.mrc", noise(5, 16, 16))
    for name in ("cube.mrcs", "images.mrc"):
        star.write_text(flag + star_of(project / "p.star", name).read_text())
        with pytest.raises(InputError, match=rf"{name}: shape .* is a stack of 2D images; export 3D subtomograms"):
            SubtomogramFolder(star)
    star = star_of(project / "p.star", "cube.mrcs")
    assert len(SubtomogramFolder(star)) == 1
    with mrcfile.open(project / "cube.mrcs", "r+") as mrc:
        mrc.set_image_stack()
    with pytest.raises(InputError, match="is a stack of 2D images; export 3D subtomograms"):
        SubtomogramFolder(star)


def test_real_star_files_are_read_as_another_reader_does(stacks, tmp_path):
    for star in sorted(stacks.glob("*.star")):
        blocks, reference = read_star(star), starfile.read(star, always_dict=True)
        assert blocks.keys() == reference.keys()
        for name, block in reference.items():
            table = block if isinstance(block, dict) else block.to_dict("list")
            assert blocks[name].keys() == table.keys()
            for column, values in table.items():
                values = [values] if isinstance(block, dict) else values
                found = [
                    float(text) if not isinstance(value, str) else text
                    for text, value in zip(blocks[name][column], values, strict=True)
                ]
                assert found == values
    (star,) = stacks.glob("*angpix-12.star")
    assert {p.tomogram for p in read_particles(star, missing="skip")} == {"Unt_050.tomostar", "Unt_083.tomostar"}
    own = tmp_path / "p.star"
    own.write_text(re.sub(r"\S+/(?=Unt_\d+_12)", f"{stacks}/", star.read_text()))
    with pytest.raises(InputError, match=r"names 20 volumes that do not exist, first .*Unt_076"):  # of two more tomograms
        load_domain(own)
    own.write_text("".join(line for line in own.read_text().splitlines(True) if not re.search("Unt_(076|088)", line)))
    with pytest.raises(InputError, match=r"_000001\.mrcs: shape \(37, 32, 32\) is a stack of 2D images"):
        load_domain(own)
