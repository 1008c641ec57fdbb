import mrcfile
import numpy as np
import pytest
import scipy.signal
import torch
from test_mrc import stamp

from voxuda.data.domain import Domain
from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.data.subtomograms import SubtomogramFolder, load_domain
from voxuda.errors import InputError
from voxuda.simulation import molecules, quick
from voxuda.simulation.samples import from_simulation, save_samples


def test_folder_round_trip(tmp_path):
    samples = quick.simulate_target([molecules.load("4v94")], n_per_molecule=3, seed=0)
    out = save_samples(samples, tmp_path / "t")
    assert {p.name for p in out.iterdir()} == {"volumes.mrcs", "masks.mrcs", "densities.mrcs", "samples.csv"}
    domain = load_domain(out)
    torch.testing.assert_close(domain.volumes, from_simulation(samples).volumes, atol=1e-5, rtol=1e-4)
    assert torch.equal(domain.masks, samples.masks) and domain.classes == ["4v94"] * 3
    with pytest.raises(InputError, match="not empty"):
        save_samples(samples, out)
    (out / "volumes.mrcs").unlink()
    with pytest.raises(InputError, match=r"no volumes\.mrcs"):
        load_domain(out)
    with pytest.raises(InputError, match="no such folder"):
        load_domain(tmp_path / "none")


def test_split_parts_are_disjoint_and_cover_all():
    volumes = torch.arange(13.0)[:, None, None, None, None].expand(13, 1, 16, 16, 16)
    for classes in (["a"] * 6 + ["b"] * 4 + ["c"] * 3, ["a"] * 12 + ["b"], [str(i) for i in range(13)]):
        first, second = Domain(volumes, None, classes).split(0.6, 0)
        parts = [set(part.volumes[:, 0, 0, 0, 0].tolist()) for part in (first, second)]
        assert not parts[0] & parts[1] and parts[0] | parts[1] == set(range(13)) and all(parts)
        assert 7 <= len(first) <= 9


@pytest.fixture
def folder(tmp_path):
    return save_samples(quick.simulate_target([molecules.load("4v94")], n_per_molecule=3, size=16), tmp_path / "t")


def replace(folder, name, array):
    write_mrc(folder / name, array, overwrite=True)


def test_a_folder_that_does_not_fit_together_is_refused(folder):
    good = read_mrc(folder / "volumes.mrcs").data
    replace(folder, "masks.mrcs", np.zeros((2, 16, 16, 16), bool))
    with pytest.raises(InputError, match=r"masks\.mrcs: has shape \(2, 16, 16, 16\), its volume \(3, 16, 16, 16\)"):
        load_domain(folder)
    replace(folder, "masks.mrcs", np.zeros((3, 24, 16, 16), bool))
    with pytest.raises(InputError, match="give one mask of the same shape per volume"):
        load_domain(folder)
    (folder / "masks.mrcs").unlink()
    assert load_domain(folder).masks is None
    (folder / "samples.csv").write_text("index,name\n0,a\n1,a\n2,a\n")
    with pytest.raises(InputError, match="no column molecule"):
        load_domain(folder)
    (folder / "samples.csv").write_text("index,molecule\n0,a\n")
    with pytest.raises(InputError, match="1 rows for 3 volumes"):
        load_domain(folder)
    (folder / "samples.csv").unlink()
    assert load_domain(folder).classes == ["unknown"] * 3
    flat = good.copy()
    flat[1] = 5
    replace(folder, "volumes.mrcs", flat)
    with pytest.raises(InputError, match=r"volumes\.mrcs volume 1: every voxel has the same value"):
        load_domain(folder)
    replace(folder, "volumes.mrcs", np.concatenate([good, good], 3))
    with pytest.raises(InputError, match="training needs cubes"):
        load_domain(folder)


def test_one_volume_is_a_stack_of_one(tmp_path):
    write_mrc(tmp_path / "volumes.mrcs", np.random.default_rng(0).normal(size=(16, 16, 16)))
    write_mrc(tmp_path / "masks.mrcs", np.ones((16, 16, 16), bool))
    domain = load_domain(tmp_path)
    assert domain.volumes.shape == domain.masks.shape == (1, 1, 16, 16, 16)


def test_split_keeps_classes_apart():
    domain = Domain(torch.randn(10, 1, 16, 16, 16), None, ["a"] * 6 + ["b"] * 4)
    first, second = domain.split(0.5, 0)
    assert first.classes.count("a") == 3 and second.classes.count("b") == 2 and len(first) + len(second) == 10


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def waves(n, shift=0.0):
    """A sum of three waves, at most 5 periods a box, at n points a side that begin at ``shift`` boxes."""
    z, y, x = (np.arange(n)[tuple(np.where(np.arange(3) == a, slice(None), None))] / n + shift for a in range(3))
    return sum(
        np.cos(2 * np.pi * (a * z + b * y + c * x) + phase) for a, b, c, phase in [(1, 2, 0, 0.3), (0, 5, 4, 1), (3, 0, 1, 2)]
    ).astype(np.float32)


def ball(n, radius=0.3):
    """A ball of a radius in boxes, around the middle of a box."""
    steps = np.arange(n) / n - 0.5
    return steps[:, None, None] ** 2 + steps[:, None] ** 2 + steps**2 < radius**2


def write(path, array, voxel_size=10.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, array, voxel_size)
    return path


@pytest.fixture
def files(tmp_path):
    """Five volumes of 40³ in folders that name their classes, with masks."""
    for i, name in enumerate(["26S/a", "26S/b", "TRiC/c", "ribosome/d", "ribosome/e"]):
        write(tmp_path / "own" / f"{name}.mrc", waves(40) + noise(40, 40, 40, seed=i))
        folder, stem = name.split("/")
        write(tmp_path / "own" / folder / "masks" / f"{stem}.mrc", ball(40))
    return tmp_path / "own"


def test_folder_of_files_has_classes_masks_and_the_papers_size(files):
    domain = load_domain(files)
    assert domain.classes == ["26S", "26S", "TRiC", "ribosome", "ribosome"]
    assert domain.volumes.shape == domain.masks.shape == (5, 1, 32, 32, 32) and domain.masks.dtype == torch.bool
    assert domain.volumes.mean().abs() < 1e-5 and domain.volumes.var(dim=(1, 2, 3, 4)).sub(1).abs().max() < 1e-3
    folder = SubtomogramFolder(files)
    assert len(folder) == 5 and folder.voxel_size == pytest.approx(12.5)


def test_masks_at_the_top_mirror_the_classes(files):
    for folder in ("26S", "TRiC", "ribosome"):
        (files / "masks").mkdir(exist_ok=True)
        (files / folder / "masks").rename(files / "masks" / folder)
    assert load_domain(files).classes == ["26S", "26S", "TRiC", "ribosome", "ribosome"] and load_domain(files).masks is not None


def test_a_stack_in_a_folder_is_as_many_samples_as_it_holds(tmp_path):
    stack = noise(3, 16, 16, 16)
    write(tmp_path / "s.mrcs", stack)
    write(tmp_path / "masks" / "s.mrcs", np.stack([ball(16, r) for r in (0.2, 0.3, 0.4)]))
    write(tmp_path / "t.map", noise(16, 16, 16, seed=1))
    write(tmp_path / "t_mask.map", ball(16))
    folder = SubtomogramFolder(tmp_path, size=16)
    assert [entry.index for entry in folder.entries] == [0, 1, 2, None]
    for i, radius in enumerate((0.2, 0.3, 0.4)):
        volume, mask = folder[i]
        assert np.array_equal(volume, stack[i]) and np.array_equal(mask, ball(16, radius))


def test_a_known_voxel_size_becomes_the_wanted_one(tmp_path):
    write(tmp_path / "a.mrc", waves(40), 10.0)
    folder = SubtomogramFolder(tmp_path, voxel_size=12.5)
    np.testing.assert_allclose(folder[0][0], waves(32), atol=1e-5)
    finer = SubtomogramFolder(tmp_path, voxel_size=8.0)  # 50 voxels over the box, the middle 32 of which remain
    np.testing.assert_allclose(finer[0][0], waves(50)[9:41, 9:41, 9:41], atol=1e-5)
    assert folder.voxel_size == pytest.approx(12.5) and finer.voxel_size == pytest.approx(8.0)
    assert SubtomogramFolder(tmp_path, voxel_size=12.3).voxel_size == pytest.approx(400 / 33)  # nearer than 400 / 32


def test_without_a_wanted_voxel_size_the_box_is_kept(tmp_path):
    write(tmp_path / "a.mrc", waves(45), 0.0)
    for size in (16, 32, 48):
        folder = SubtomogramFolder(tmp_path, size=size)
        np.testing.assert_allclose(folder[0][0], waves(size, 22 / 45 - 1 / 2), atol=1e-5)  # voxel 22 of 45 is the centre
        assert folder.voxel_size == 0


@pytest.mark.parametrize("n", [40, 41, 44, 45])
@pytest.mark.parametrize("voxel_size", [None, 10.8, 11.1, 9.0])
def test_the_centre_stays_the_centre(tmp_path, n, voxel_size):
    """Of boxes with odd and even sides, resampled to odd and even ones."""
    steps = [np.arange(side) - side // 2 for side in (n, n + 1, n + 4)]
    square = steps[0][:, None, None] ** 2 + steps[1][:, None] ** 2 + steps[2] ** 2
    write(tmp_path / "a.mrc", np.exp(-square / 18).astype(np.float32))
    write(tmp_path / "a_mask.mrc", square < 50)
    volume, mask = SubtomogramFolder(tmp_path, voxel_size=voxel_size)[0]
    grid = torch.arange(32.0)
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for found in (volume.clamp_min(0), mask.float()):
            profile = found.sum(others)
            assert float((profile * grid).sum() / profile.sum()) == pytest.approx(16, abs=0.02)


def test_resampling_agrees_with_scipy(tmp_path):
    volume = noise(45, 45, 45)
    write(tmp_path / "a.mrc", volume, 11.0)
    expected = np.fft.ifftshift(volume)  # scipy keeps voxel 0 in its place, and we the centre
    for axis in range(3):
        expected = scipy.signal.resample(expected, 33, axis=axis)
    expected = np.fft.fftshift(expected)
    result = SubtomogramFolder(tmp_path, voxel_size=15.0)[0][0]
    np.testing.assert_allclose(result, expected[:32, :32, :32], atol=1e-5)


def test_a_box_with_unequal_sides_is_cropped_to_the_smallest(tmp_path):
    volume = noise(16, 24, 33)
    mask = noise(16, 24, 33, seed=1) > 0
    write(tmp_path / "a.mrc", volume)
    write(tmp_path / "a_mask.mrc", mask)
    found, labels = SubtomogramFolder(tmp_path, size=16)[0]
    cube = np.s_[:, 4:20, 8:24]  # the centre of 33 voxels is voxel 16, that of 16 voxels is voxel 8
    assert np.array_equal(found, volume[cube]) and np.array_equal(labels, mask[cube])


def test_masks_are_resampled_with_their_volumes(tmp_path):
    volume = ball(48).astype(np.float32)
    volume[0, 0, 0] = -1e-6  # with two values it would look like a mask
    write(tmp_path / "a.mrc", volume, 10.0)
    write(tmp_path / "masks" / "a.mrc", ball(48) * np.int16(7))  # a label of 7 is as good as 1
    for voxel_size in (None, 15.0, 11.0):
        volume, mask = SubtomogramFolder(tmp_path, voxel_size=voxel_size)[0]
        assert torch.equal(mask, volume > 0.5)
    plain = SubtomogramFolder(tmp_path)[0][1].numpy()
    exact = ball(32)
    assert (plain & exact).sum() / (plain | exact).sum() > 0.97


def test_invert_changes_the_sign_of_volumes_alone(files):
    plain, inverted = SubtomogramFolder(files), SubtomogramFolder(files, invert=True)
    assert torch.equal(plain[0][0], -inverted[0][0]) and torch.equal(plain[0][1], inverted[0][1])


def test_save_writes_what_load_reads_as_it_is(files, tmp_path):
    folder = SubtomogramFolder(files, size=16, voxel_size=20.0, invert=True)
    out = folder.save(tmp_path / "out")
    assert {p.name for p in out.iterdir()} == {"volumes.mrcs", "masks.mrcs", "samples.csv"}
    assert read_mrc(out / "volumes.mrcs").voxel_size == pytest.approx(20.0)
    again, domain = load_domain(out), folder.domain()
    torch.testing.assert_close(again.volumes, domain.volumes)
    assert torch.equal(again.masks, domain.masks) and again.classes == domain.classes
    first = (out / "samples.csv").read_text().splitlines()[1]
    assert first == f"0,26S,{files / '26S' / 'a.mrc'},40x40x40,10.0,True"
    with pytest.raises(InputError, match="not empty"):
        folder.save(out)


def spoil_truncate(folder):
    path = folder / "TRiC" / "c.mrc"
    path.write_bytes(path.read_bytes()[:5000])


def spoil_nan(folder):
    holes = noise(40, 40, 40)
    holes[1, 2, 3] = np.nan
    with mrcfile.new(folder / "TRiC" / "c.mrc", overwrite=True) as mrc, np.errstate(all="ignore"):
        with pytest.warns(RuntimeWarning):
            mrc.set_data(holes)
        mrc.voxel_size = 10.0


def spoil_mask_nan(folder):
    spoil_nan(folder)
    (folder / "TRiC" / "c.mrc").rename(folder / "TRiC" / "masks" / "c.mrc")
    write(folder / "TRiC" / "c.mrc", noise(40, 40, 40))


def spoil(name, array, voxel_size=10.0):
    return lambda folder: write_mrc(folder / name, array, voxel_size, overwrite=True)


@pytest.mark.parametrize(
    ("spoiler", "message"),
    [
        (spoil_truncate, r"c\.mrc: not a readable MRC file"),
        (spoil_nan, r"c\.mrc: some voxels are NaN"),
        (spoil_mask_nan, r"masks/c\.mrc: some voxels are NaN"),
        (spoil("TRiC/c.mrc", np.ones((40, 40, 40))), r"c\.mrc: every voxel has the same value"),
        (spoil("TRiC/masks/c.mrc", ball(32)), r"masks/c\.mrc: has shape \(32, 32, 32\), its volume \(40, 40, 40\)"),
        (spoil("TRiC/c.mrc", noise(40, 40, 40), 8.0), r"c\.mrc: the voxel size is 8\.00 Å, but in .*a\.mrc 10\.00 Å"),
        (spoil("TRiC/c.mrc", noise(40, 40, 40), 0.0), r"c\.mrc: the voxel size is unknown, but in .*a\.mrc 10\.00 Å"),
        (lambda f: (f / "TRiC" / "masks" / "c.mrc").unlink(), r"c\.mrc: has no mask, but 4 others do"),
        (spoil("TRiC/masks/x.mrc", ball(40)), r"masks/x\.mrc: is a mask without a volume"),
        (spoil("x.mrc", noise(40, 40, 40)), "MRC files both in it and in sub-folders"),
        (spoil("TRiC/flat.mrcs", noise(9, 40, 40)), r"flat\.mrcs: shape \(9, 40, 40\) is a stack of 2D images"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(files, spoiler, message):
    spoiler(files)
    with pytest.raises(InputError, match=message):
        load_domain(files)


def test_mixed_voxel_sizes_and_boxes_need_a_wanted_one(tmp_path):
    write(tmp_path / "a.mrc", waves(40), 10.0)
    write(tmp_path / "b.mrc", waves(50), 8.0)
    with pytest.raises(InputError, match=r"b\.mrc: the voxel size is 8\.00 Å.*correct the wrong header, or bring all"):
        load_domain(tmp_path)
    domain = SubtomogramFolder(tmp_path, voxel_size=12.5).domain()
    torch.testing.assert_close(domain.volumes[0], domain.volumes[1], atol=1e-4, rtol=0)
    write_mrc(tmp_path / "b.mrc", noise(50, 50, 50), 10.0, overwrite=True)
    with pytest.raises(InputError, match=r"b\.mrc: \(50, 50, 50\) differs from the box \(40, 40, 40\)"):
        load_domain(tmp_path)


def test_a_wanted_voxel_size_needs_a_known_one_and_a_box_that_is_large_enough(tmp_path):
    path = write(tmp_path / "a.mrc", noise(40, 40, 40), 10.0)
    with pytest.raises(InputError, match=r"has 20 voxels of 20\.00 Å, fewer than 32; choose a smaller size"):
        SubtomogramFolder(tmp_path, voxel_size=20)
    assert SubtomogramFolder(tmp_path, voxel_size=20, size=16)[0][0].shape == (16, 16, 16)
    write_mrc(path, noise(40, 40, 40), overwrite=True)
    with pytest.raises(InputError, match="its voxel size is not known"):
        SubtomogramFolder(tmp_path, voxel_size=20)
    with pytest.raises(InputError, match="size is 20"):
        SubtomogramFolder(tmp_path, size=20)
    with pytest.raises(InputError, match="voxel_size is -1"):
        SubtomogramFolder(tmp_path, voxel_size=-1)


def test_masks_that_are_all_empty_are_refused_and_some_are_not(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.mrc", noise(16, 16, 16))
        write(tmp_path / f"{name}_mask.mrc", np.zeros((16, 16, 16), bool))
    with pytest.raises(InputError, match=r"a_mask\.mrc: every mask is empty"):
        load_domain(tmp_path)
    write_mrc(tmp_path / "b_mask.mrc", ball(16), overwrite=True)
    assert load_domain(tmp_path).masks.flatten(1).any(1).tolist() == [False, True]


@pytest.mark.parametrize("pair", [(0, 1), (0, 255), (-128, -127), (-128, 127), (1, 2), (0, 0.25), (-1, 1)])
def test_a_mask_of_two_values_is_where_the_larger_is(tmp_path, pair):
    write(tmp_path / "a.mrc", noise(16, 16, 16))
    write(tmp_path / "masks" / "a.mrc", np.where(ball(16), pair[1], pair[0]).astype(np.float32))
    assert np.array_equal(SubtomogramFolder(tmp_path, size=16)[0][1], ball(16))


def test_soft_masks_and_labels_are_cut_at_a_half(tmp_path):
    write(tmp_path / "a.mrc", noise(16, 16, 16))
    soft = np.linspace(-1, 2, 16**3).reshape(16, 16, 16)
    for mask in (soft, np.rint(soft)):
        write_mrc(tmp_path / "a_mask.mrc", mask, overwrite=True)
        assert np.array_equal(SubtomogramFolder(tmp_path, size=16)[0][1], mask > 0.5)


@pytest.mark.parametrize(
    ("mask", "values"), [(-ball(16).astype(np.int8), "-1 to 0"), (-128.0 + ball(16) + ball(16, 0.2), "-128 to -126")]
)
def test_a_mask_that_may_mean_either_is_refused(tmp_path, mask, values):
    write(tmp_path / "a.mrc", noise(16, 16, 16))
    write(tmp_path / "a_mask.mrc", mask)
    with pytest.raises(InputError, match=rf"a_mask\.mrc: holds values from {values}, perhaps bytes read with the wrong sign"):
        load_domain(tmp_path)


def test_byte_masks_of_imod_are_read_by_the_header(tmp_path):
    """As IMOD writes 0 and 255: unsigned before its version 4.2.23, with 128 taken off since."""
    for name, low, fields in (("old", 0, {"imod_flags": 0, "dmax": 255}), ("new", -128, {"imod_flags": 1, "dmin": -128})):
        write(tmp_path / name / "a.mrc", noise(16, 16, 16))
        path = write(tmp_path / name / "a_mask.mrc", (255 * ball(16) + low).astype(np.int16).astype(np.int8))
        stamp(path, imod_stamp=1146047817, **({"dmin": 0, "dmax": 127} | fields))
        assert np.array_equal(SubtomogramFolder(tmp_path / name, size=16)[0][1], ball(16))


def test_a_true_voxel_size_outranks_the_files(tmp_path, capsys):
    path = write(tmp_path / "a.mrc", waves(40), 1.0)
    with pytest.raises(InputError, match=r"has 3 voxels of 12\.50 Å, fewer than 32"):
        SubtomogramFolder(tmp_path, voxel_size=12.5)
    assert "1.00 Å, which many programs write when none is set" in capsys.readouterr().err
    folder = SubtomogramFolder(tmp_path, voxel_size=12.5, true_voxel_size=10.0)
    np.testing.assert_allclose(folder[0][0], waves(32), atol=1e-5)
    assert folder.voxel_size == pytest.approx(12.5)
    write_mrc(path, waves(40), 1.35, overwrite=True)
    SubtomogramFolder(tmp_path)
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="voxel_size is 0"):
        SubtomogramFolder(tmp_path, true_voxel_size=0)
