"""Real subtomograms: geometry against a phantom projected in closed form, CTF and Euler angles against their definitions."""

import dataclasses
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from scipy.spatial.transform import Rotation

from voxuda.data import tilt_stacks
from voxuda.data.mrc import write_mrc
from voxuda.errors import InputError
from voxuda.signal import rotation

SIZE, EDGE = 24, 12.0
TILTS = np.arange(-60.0, 61.0, 4.0)
BEADS = np.array([[0, 0, -5], [0, 0, 5], [4, 0, 5], [0, 6, 0], [-5, 2, 2], [3, -4, -3]], dtype=float)
"""A chiral set of points, x, y, z in voxels."""
WIDTH = 1.3


def blobs(points: np.ndarray) -> torch.Tensor:
    """Gaussians about points ``(N, d)``, last axis x first: ``(SIZE,) * d``."""
    axis = np.arange(SIZE) - SIZE // 2
    grid = np.stack(np.meshgrid(*[axis] * points.shape[1], indexing="ij"), -1)[..., None, ::-1]
    return torch.tensor(np.exp(-((grid - points) ** 2).sum(-1) / (2 * WIDTH**2)).sum(-1)).float()


def plain_ctf(u: float, v: float, angle: float) -> np.ndarray:
    """The CTF from its formula, with U at ``angle`` from x towards y."""
    ky, kx = np.meshgrid(np.fft.fftfreq(SIZE, EDGE), np.fft.rfftfreq(SIZE, EDGE), indexing="ij")
    k2, direction = kx**2 + ky**2, np.arctan2(ky, kx)
    defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (direction - np.radians(angle)))
    wave = 12.2639 / np.sqrt(300e3 + 0.97845e-6 * 300e3**2)
    phase = np.pi * wave * defocus * k2 - np.pi / 2 * 2.7e7 * wave**3 * k2**2
    return np.sin(phase + np.arcsin(0.07))


@pytest.fixture
def project(tmp_path):
    """Write three particles as WarpTools does, their images in closed form; keywords change the star files."""

    def write(*, premultiplied: int = 1, mirrored: bool = False, hidden: int = 2, drop: str = "", **changes):
        angles = np.array([[20.0, 50.0, -70.0], [100.0, 80.0, 10.0], [-40.0, 120.0, 60.0]])
        inplane = Rotation.from_euler("z", 85, degrees=True).as_matrix()
        turns = [inplane @ Rotation.from_euler("y", tilt, degrees=True).as_matrix() for tilt in TILTS]
        exposure, scale = 2.0 * np.arange(len(TILTS)), np.cos(np.radians(TILTS))
        u, v, astigmatism = 30000.0 - 50 * TILTS, 29000.0 + 30 * TILTS, 40.0 + TILTS
        k = np.hypot(np.fft.fftfreq(SIZE, EDGE)[:, None], np.fft.rfftfreq(SIZE, EDGE))
        k[0, 0] = 1e-6
        (tmp_path / "stacks").mkdir(exist_ok=True)
        rows, beads = [], BEADS * [1, 1, -1] if mirrored else BEADS
        for i, euler in enumerate(angles):
            # RELION turns the axes: the inverse of the turn of the object by the same angles.
            pose = Rotation.from_euler("ZYZ", euler, degrees=True).as_matrix().T
            stack = []
            for j, turn in enumerate(turns):
                spectrum = np.fft.rfft2(blobs(beads @ (turn @ pose).T[:, :2]))
                passed = plain_ctf(u[j], v[j], astigmatism[j]) * scale[j]
                passed = passed * np.exp(-exposure[j] / 2 / (0.245 * k**-1.665 + 2.81))
                stack.append(np.fft.irfft2(spectrum * passed ** (1 + premultiplied), s=(SIZE, SIZE)))
            stack[hidden] = 1000 * np.ones((SIZE, SIZE))
            write_mrc(tmp_path / "stacks" / f"{i}.mrcs", np.array(stack), EDGE, overwrite=True)
            frames = json.dumps([int(j != hidden) for j in range(len(TILTS))], separators=(",", ":"))
            values = ["T", f"T/{i}", *euler, 1, f"stacks/{i}.mrcs", 0.0, 0.0, 0.0, frames]
            rows.append({f"rln{name}": value for name, value in zip(tilt_stacks.PARTICLE_COLUMNS, values, strict=True)})
        tilts = {
            f"rlnTomoProj{axis}": [json.dumps([*turn[n], 0], separators=(",", ":")) for turn in turns]
            for n, axis in enumerate("XYZ")
        }
        tilts |= {"rlnDefocusU": u, "rlnDefocusV": v, "rlnDefocusAngle": astigmatism}
        tilts |= {"rlnCtfScalefactor": scale, "rlnMicrographPreExposure": exposure}
        optics = {"rlnOpticsGroup": 1, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.07}
        optics |= {"rlnImagePixelSize": EDGE, "rlnCtfDataAreCtfPremultiplied": premultiplied}
        blocks = {"general": {"rlnTomoSubTomosAre2DStacks": 1}, "optics": pd.DataFrame([optics])}
        blocks["particles"] = pd.DataFrame(rows).assign(**changes).drop(columns=[drop] if drop else [])
        starfile.write(blocks, tmp_path / "p.star", overwrite=True)
        starfile.write({"T": pd.DataFrame(tilts)}, tmp_path / "p_tomograms.star", overwrite=True)
        names = "_rlnTomoParticlesFile p.star\n_rlnTomoTomogramsFile p_tomograms.star\n"
        (tmp_path / "p_optimisation_set.star").write_text(f"data_\n\n{names}")
        return tmp_path / "p.star"

    return write


def mirror(volume: torch.Tensor) -> torch.Tensor:
    return volume.flip(0).roll(1, 0)


def axes_turned(angle, i, j):
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(np.deg2rad(angle))
    matrix[i, j], matrix[j, i] = np.sin(np.deg2rad(angle)), -np.sin(np.deg2rad(angle))
    return matrix


def test_euler_matrix_is_three_turns_of_the_axes(generator):
    for rot, tilt, psi in (torch.rand(5, 3, generator=generator) * 360 - 180).tolist():
        expected = axes_turned(psi, 0, 1) @ axes_turned(tilt, 2, 0) @ axes_turned(rot, 0, 1)
        np.testing.assert_allclose(tilt_stacks.euler_matrix(rot, tilt, psi), expected, atol=1e-6)
    np.testing.assert_allclose(tilt_stacks.euler_matrix(90, 0, 0), [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-7)


def test_transfer_is_the_formula(project):
    (first, *_) = tilt_stacks.read_particles(project())
    found = tilt_stacks.transfer(first, SIZE)
    k = np.hypot(np.fft.fftfreq(SIZE, EDGE)[:, None], np.fft.rfftfreq(SIZE, EDGE))
    for j in (0, len(TILTS) // 2, len(TILTS) - 1):
        u, v, angle = first.defocus[j].tolist()
        weight = np.exp(-2.0 * j / 2 / (0.245 * np.maximum(k, 1e-6) ** -1.665 + 2.81)) * np.cos(np.radians(TILTS[j]))
        np.testing.assert_allclose(found[j], plain_ctf(u, v, angle) * weight, atol=2e-3)
    assert u < v, "the case that calculate_ctf_2d cannot do must be among them"


@pytest.mark.parametrize("premultiplied", [0, 1])
def test_reconstruction_has_the_truth_and_its_hand(project, premultiplied, monkeypatch):
    monkeypatch.setattr(tilt_stacks, "WIENER", 0.01)  # the images have no noise
    found = tilt_stacks.read_particles(project(premultiplied=premultiplied))
    average = tilt_stacks.average(found)
    truth = blobs(BEADS)
    fine = slice(2, 9)
    assert rotation.fourier_shell_correlation(average, truth)[fine].min() > 0.95
    assert rotation.fourier_shell_correlation(average, mirror(truth))[fine].max() < 0.6
    for particle in found:
        specimen = blobs(BEADS @ particle.rotation.numpy().T.astype(float))
        alone = tilt_stacks.reconstruct(particle), tilt_stacks.average([particle])
        for volume, wanted in zip(alone, (specimen, truth), strict=True):
            right = rotation.fourier_shell_correlation(volume, wanted)[fine]
            wrong = rotation.fourier_shell_correlation(volume, mirror(wanted))[fine]
            assert right.min() > 0.75  # a third of the frequencies lie in the missing wedge
            assert (right - wrong).min() > 0.2
        assert float(tilt_stacks.reconstruct(particle).max()) > 0, "protein is bright"


def test_hand_reads_the_mirror_image(project):
    star = project(mirrored=True)
    average = tilt_stacks.average(tilt_stacks.read_particles(star, hand=-1))
    as_read = tilt_stacks.average(tilt_stacks.read_particles(star))
    # The file's own geometry gives the mirrored beads; hand = -1 mirrors them back.
    assert rotation.fourier_shell_correlation(as_read, blobs(BEADS * [1, 1, -1]))[2:9].min() > 0.95
    assert rotation.fourier_shell_correlation(average, blobs(BEADS))[2:9].min() > 0.95


def test_tilt_axis_is_y_in_the_specimen_frame(project):
    (first, *_) = tilt_stacks.read_particles(project())
    _, weight = tilt_stacks.insert(first, first.projections)
    centre = len(weight) // 2
    along_beam = weight[centre + 8 : centre + 14, centre, 0]
    assert along_beam.max() == 0 and weight[centre, centre + 8 : centre + 14, 0].min() > 0


def test_frames_that_are_not_visible_do_not_count(project):
    (first, *_) = tilt_stacks.read_particles(project())
    changed = first.images.clone()
    changed[~first.visible] = -5000.0
    same = dataclasses.replace(first, images=changed)
    torch.testing.assert_close(tilt_stacks.reconstruct(first), tilt_stacks.reconstruct(same))


def test_place_turns_a_map(project):
    turn = tilt_stacks.euler_matrix(30, 40, 50)
    placed = rotation.place(blobs(BEADS), turn)
    assert rotation.fourier_shell_correlation(placed, blobs(BEADS @ turn.numpy().T.astype(float)))[:8].min() > 0.98
    torch.testing.assert_close(rotation.place(placed, torch.eye(3)), placed)


def test_fourier_shell_correlation_closed_forms(generator):
    one, other = torch.randn(2, SIZE, SIZE, SIZE, generator=generator)
    torch.testing.assert_close(rotation.fourier_shell_correlation(one, 3 * one), torch.ones(SIZE // 2 - 1))
    torch.testing.assert_close(rotation.fourier_shell_correlation(one, -one), -torch.ones(SIZE // 2 - 1))
    assert rotation.fourier_shell_correlation(one, other)[4:].abs().max() < 0.1
    both = rotation.fourier_shell_correlation(one + other, one)[4:]
    assert (both - 0.5**0.5).abs().max() < 0.1


def test_star_and_stacks_may_lie_side_by_side(project, tmp_path):
    star = project()
    for stack in (tmp_path / "stacks").iterdir():
        stack.rename(tmp_path / stack.name)
    assert len(tilt_stacks.read_particles(tmp_path / "p_optimisation_set.star")) == 3
    (tmp_path / "1.mrcs").unlink()
    with pytest.raises(InputError, match=r"1\.mrcs: no such file"):
        tilt_stacks.read_particles(star)
    assert [p.name for p in tilt_stacks.read_particles(star, missing="skip")] == ["T/0", "T/2"]
    (tmp_path / "p_optimisation_set.star").write_text("data_\n\n_rlnTomoParticlesFile p.star\n")
    with pytest.raises(InputError, match="names no particles and tomograms file"):
        tilt_stacks.read_particles(star)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(rlnOriginXAngst=3.0), "has a shift"),
        (dict(rlnOpticsGroup=7), "optics group 7 is not described"),
        (dict(rlnTomoName="U"), "no table data_U"),
        (dict(rlnAngleTilt=float("nan")), "rlnAngleTilt holds <NA>; it must be a number"),
        (dict(rlnTomoVisibleFrames="[1,1]"), "a matrix and a frame flag"),
        (dict(rlnTomoVisibleFrames="none"), "list of frames is damaged"),
        (dict(drop="rlnAngleRot"), "has no column rlnAngleRot"),
    ],
)
def test_bad_tables_are_refused(project, changes, message):
    star = project(**changes)
    with pytest.raises(InputError, match=message) as caught:
        tilt_stacks.read_particles(star)
    assert str(caught.value).endswith(".") and str(caught.value).startswith(str(star.parent))


def test_bad_files_are_refused(project, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        tilt_stacks.read_particles(tmp_path / "absent.star")
    star = project()
    stack = np.zeros((3, SIZE, SIZE), dtype=np.float32)
    write_mrc(tmp_path / "stacks" / "0.mrcs", stack, EDGE, overwrite=True)
    with pytest.raises(InputError, match=r"0\.mrcs: shape \(3, 24, 24\) does not fit 31 tilts"):
        tilt_stacks.read_particles(star)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mrcfile warns about the statistics of NaN
        write_mrc(tmp_path / "stacks" / "0.mrcs", stack + np.nan, EDGE, overwrite=True)
    with pytest.raises(InputError, match="NaN"):
        tilt_stacks.read_particles(star)
    star.write_text("data_general\n\n_rlnTomoSubTomosAre2DStacks 0\n\n")
    with pytest.raises(InputError, match="is not 1; export"):
        tilt_stacks.read_particles(star)
    star.write_bytes(b"\x00\xff not a star file")
    with pytest.raises(InputError, match="star"):
        tilt_stacks.read_particles(star)


def test_angles_of_the_subtomogram_come_before_those_of_the_particle(project):
    """RELION: particle to subtomogram to tomogram."""
    plain = tilt_stacks.read_particles(project())[0].rotation
    outer = {"rlnTomoSubtomogramRot": 90.0, "rlnTomoSubtomogramTilt": 45.0, "rlnTomoSubtomogramPsi": 10.0}
    turned = tilt_stacks.read_particles(project(**outer))[0].rotation
    torch.testing.assert_close(turned, tilt_stacks.euler_matrix(*outer.values()) @ plain)


def test_phase_plates_are_refused(project):
    star = project()
    tilts = star.with_name("p_tomograms.star")
    starfile.write({"T": starfile.read(tilts).assign(rlnPhaseShift=90.0)}, tilts, overwrite=True)
    with pytest.raises(InputError, match="phase plate"):
        tilt_stacks.read_particles(star)
