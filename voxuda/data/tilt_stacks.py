r"""Read RELION 5 particles stored as stacks of tilt images, reconstruct and average them, and check their poses.

Geometry, for column vectors x, y, z in voxels from the centre ``N // 2``; volumes are stored z, y, x and images y, x:

* a tilt's ``rlnTomoProjX/Y/Z`` are the rows of :math:`P`, which maps the specimen to the image; the image keeps x and y;
* a particle's Euler angles give :math:`A`, which maps the reference to the specimen (RELION's ``ParticleSet``, "maps
  coordinates from particle space to tomogram space"), multiplied from the left by the rotation of its subtomogram, if given;
  a tilt therefore sees the reference through :math:`PA`.

Projections cannot distinguish a specimen from its mirror image: with :math:`F=\mathrm{diag}(1,1,-1)`, :math:`(P, A)` and
:math:`(FPF, FAF)` explain the same images, one with a structure, the other with its mirror image. The sign of the tilt
angles picks one; ``hand=-1`` picks the other.

The images are read as WarpTools writes them: contrast inverted, so protein is bright, and multiplied by the transfer
:math:`t(k)=\mathrm{CTF}(k)\,s\,e^{-D/2D_c(k)}` of their tilt, where :math:`s` is ``rlnCtfScalefactor``, :math:`D` the exposure
and :math:`D_c(k)=0.245\,k^{-1.665}+2.81` the critical exposure of Grant and Grigorieff (2015). Images not yet multiplied are
multiplied here. Least squares with white noise then divides the sum of images by the sum of :math:`t^2`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from scipy.spatial.transform import Rotation
from torch_ctf import calculate_ctf_2d
from torch_fourier_slice.slice_insertion import insert_central_slices_rfft_3d_multichannel
from torch_fourier_slice.volume_utils import separable_sinc2_correction

from voxuda.data.mrc import read_mrc
from voxuda.data.star import number, read_star
from voxuda.errors import InputError
from voxuda.signal.optics import critical_exposure

PADDING = 2
"""Factor by which images and maps are padded, so that linear interpolation between frequencies is accurate."""

WIENER = 0.3
"""Constant added to the weight, as a fraction of the mean measured weight, the inverse of a flat signal-to-noise ratio. Of five
values tried, this one gave the most contrast between inside and outside of masks placed by pose."""

FLIP = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
PARTICLE_COLUMNS = "TomoName TomoParticleName AngleRot AngleTilt AnglePsi OpticsGroup ImageName OriginXAngst OriginYAngst \
OriginZAngst TomoVisibleFrames".split()
OPTICS_COLUMNS = "OpticsGroup Voltage SphericalAberration AmplitudeContrast ImagePixelSize CtfDataAreCtfPremultiplied".split()
TILT_COLUMNS = "TomoProjX TomoProjY TomoProjZ DefocusU DefocusV DefocusAngle CtfScalefactor MicrographPreExposure".split()
TEXT_COLUMNS = "TomoName TomoParticleName ImageName TomoVisibleFrames TomoProjX TomoProjY TomoProjZ".split()
OPTIONAL_COLUMNS = "TomoSubtomogramRot TomoSubtomogramTilt TomoSubtomogramPsi PhaseShift".split()


@dataclass(frozen=True)
class Particle:
    """One particle as a stack of ``T`` tilt images; names are ``rlnTomoParticleName`` and ``rlnTomoName``."""

    name: str
    tomogram: str
    images: torch.Tensor  #: ``(T, N, N)`` float32, protein bright.
    projections: torch.Tensor  #: ``(T, 3, 3)``, specimen to image.
    rotation: torch.Tensor  #: ``(3, 3)``, reference to specimen.
    visible: torch.Tensor  #: ``(T,)`` bool, the images to use.
    defocus: torch.Tensor  #: ``(T, 3)``, U and V in angstrom, angle of U from the x axis in degrees.
    scale: torch.Tensor  #: ``(T,)``, scale factor of the CTF.
    exposure: torch.Tensor  #: ``(T,)``, electrons per square angstrom before the image.
    voxel_size: float  #: Edge of a pixel in angstrom.
    voltage: float  #: Acceleration voltage in kilovolts.
    spherical_aberration: float  #: Spherical aberration in millimetres.
    amplitude_contrast: float  #: Amplitude contrast as a fraction.
    premultiplied: bool  #: Whether the images are already multiplied by their transfer function.


def euler_matrix(rot: float, tilt: float, psi: float) -> torch.Tensor:
    """Return the matrix ``(3, 3)`` that rotates the axes by rot about z, tilt about the new y, psi about the new z, in degrees.

    This is RELION's ``Euler_angles2matrix``.
    """
    turned = Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True)  # rotates a body; axes rotate the other way
    return torch.tensor(turned.inv().as_matrix(), dtype=torch.float32)


def read_particles(
    star: str | Path, *, missing: Literal["raise", "skip"] = "raise", hand: Literal[1, -1] = 1
) -> list[Particle]:
    """Read the particles of a RELION 5 star file whose subtomograms are 2D stacks.

    Parameters
    ----------
    star : path
        The optimisation set, or the particle star file ``NAME.star`` beside ``NAME_optimisation_set.star``.
    missing : str
        ``"skip"`` leaves out particles whose stack is missing; ``"raise"`` raises an error.
    hand : int
        -1 reads the mirror image of the specimen: every matrix :math:`M` becomes :math:`FMF`.

    Raises
    ------
    InputError
        A file or column is missing or damaged, or a stack does not fit its tilts.
    """
    star = Path(star)
    chosen = star if star.stem.endswith("_optimisation_set") else star.with_name(f"{star.stem}_optimisation_set.star")
    names = _row(read_star(chosen), "")
    if not {"TomoParticlesFile", "TomoTomogramsFile"} <= names.keys():
        raise InputError(f"{chosen}: names no particles and tomograms file; export it again.")
    star, tomograms = (chosen.with_name(Path(names[f"Tomo{kind}File"]).name) for kind in ("Particles", "Tomograms"))
    blocks = read_star(star)
    if _row(blocks, "general").get("TomoSubTomosAre2DStacks") != "1":
        raise InputError(f"{star}: rlnTomoSubTomosAre2DStacks is not 1; export the particles as 2D stacks.")
    optics = {row["OpticsGroup"]: row for row in _rows(star, blocks, "optics", OPTICS_COLUMNS)}
    series = read_star(tomograms)
    tilts: dict[str, list[dict[str, Any]]] = {}
    particles = []
    for row in _rows(star, blocks, "particles", PARTICLE_COLUMNS):
        name = row["TomoName"]
        if name not in tilts:
            tilts[name] = _rows(tomograms, series, name, TILT_COLUMNS)
        if row["OpticsGroup"] not in optics:
            raise InputError(f"{star}: optics group {row['OpticsGroup']:g} is not described; add it to data_optics.")
        path = star.parent / row["ImageName"]
        beside = star.parent / path.name
        path = beside if beside.is_file() and not path.is_file() else path
        if path.is_file() or missing == "raise":
            particles.append(_particle(star, path, row, optics[row["OpticsGroup"]], tilts[name]))
    if not particles:
        raise InputError(f"{star}: none of its stacks was found; put the .mrcs files beside it.")
    if hand == 1:
        return particles
    return [replace(p, projections=FLIP @ p.projections @ FLIP, rotation=FLIP @ p.rotation @ FLIP) for p in particles]


def _row(blocks: dict[str, dict[str, list[str]]], block: str) -> dict[str, str]:
    """Return the first row of a block, by names without ``rln``."""
    return {key.removeprefix("rln"): values[0] for key, values in blocks.get(block, {}).items() if values}


def _rows(path: Path, blocks: dict[str, dict[str, list[str]]], block: str, columns: list[str]) -> list[dict[str, Any]]:
    """Return the rows of a table by names without ``rln``, as numbers except for ``TEXT_COLUMNS``; all columns must exist."""
    if block not in blocks:
        raise InputError(
            f"{path}: holds no table data_{block}; give the star files of one WarpTools export, with its matrices."
        )
    content = {key.removeprefix("rln"): values for key, values in blocks[block].items()}
    absent = [f"rln{name}" for name in columns if name not in content]
    if absent:
        raise InputError(f"{path}: data_{block} has no column {', '.join(absent)}; export it for 2D stacks in RELION 5.")
    chosen = [*columns, *(name for name in OPTIONAL_COLUMNS if name in content)]
    table: list[list[Any]] = [
        content[name] if name in TEXT_COLUMNS else [number(path, f"rln{name}", text) for text in content[name]]
        for name in chosen
    ]
    return [dict(zip(chosen, values, strict=True)) for values in zip(*table, strict=True)]


def _particle(star: Path, path: Path, row: dict[str, Any], optics: dict[str, Any], tilts: list[dict[str, Any]]) -> Particle:
    images = torch.from_numpy(read_mrc(path).data)
    if images.ndim != 3 or len(images) != len(tilts) or images.shape[1] != images.shape[2]:
        raise InputError(
            f"{path}: shape {tuple(images.shape)} does not fit {len(tilts)} tilts; give one square image per tilt."
        )
    if images.shape[1] % 2:
        raise InputError(f"{path}: images of {images.shape[1]} pixels per side; extract them again with an even side.")
    if any(row[f"Origin{axis}Angst"] for axis in "XYZ"):
        raise InputError(f"{star}: {row['TomoParticleName']} has a shift; extract it again at its refined position.")
    if any(tilt.get("PhaseShift", 0) for tilt in tilts):
        raise InputError(f"{star}: {row['TomoName']} was taken with a phase plate; only images without one can be read.")
    try:
        matrices = [[ast.literal_eval(tilt[f"TomoProj{axis}"])[:3] for axis in "XYZ"] for tilt in tilts]
        projections = torch.tensor(matrices, dtype=torch.float32)
        visible = torch.tensor(ast.literal_eval(row["TomoVisibleFrames"])) > 0
        defocus = torch.tensor([[tilt[f"Defocus{name}"] for name in ("U", "V", "Angle")] for tilt in tilts]).float()
    except (ValueError, SyntaxError, TypeError) as error:
        raise InputError(f"{star}: a projection matrix, defocus or list of frames is damaged; export it again.") from error
    if projections.shape != (len(tilts), 3, 3) or visible.shape != (len(tilts),) or not visible.any():
        raise InputError(
            f"{star}: {row['TomoParticleName']} needs a matrix and a frame flag per tilt, at least one not 0; export it again."
        )
    return Particle(
        name=row["TomoParticleName"],
        tomogram=row["TomoName"],
        images=images,
        projections=projections,
        rotation=euler_matrix(*(row.get(f"TomoSubtomogram{angle}", 0.0) for angle in ("Rot", "Tilt", "Psi")))
        @ euler_matrix(*(row[f"Angle{angle}"] for angle in ("Rot", "Tilt", "Psi"))),
        visible=visible,
        defocus=defocus,
        scale=torch.tensor([tilt["CtfScalefactor"] for tilt in tilts]).float(),
        exposure=torch.tensor([tilt["MicrographPreExposure"] for tilt in tilts]).float(),
        voxel_size=float(optics["ImagePixelSize"]),
        voltage=float(optics["Voltage"]),
        spherical_aberration=float(optics["SphericalAberration"]),
        amplitude_contrast=float(optics["AmplitudeContrast"]),
        premultiplied=bool(optics["CtfDataAreCtfPremultiplied"]),
    )


def transfer(particle: Particle, size: int) -> torch.Tensor:
    r"""Return the transfer of each tilt, :math:`t(k)=\mathrm{CTF}(k)\,s\,e^{-D/2D_c(k)}`, positive where protein is bright.

    The shape is ``(T, size, size // 2 + 1)``, frequency 0 first, for images of ``size`` pixels of the particle's
    ``voxel_size``. The defocus is that of the tomogram's centre, as in the star file. Images that are already multiplied used
    each particle's own defocus, so for them this approximation affects only the weights.
    """
    u, v, angle = particle.defocus.unbind(1)
    # calculate_ctf_2d takes a root of the astigmatism, so the axes are swapped where U is the smaller.
    contrast = calculate_ctf_2d(
        defocus=(u + v) / 2e4,
        astigmatism=(u - v).abs() / 2e4,
        astigmatism_angle=torch.where(u < v, angle + 90, angle),
        voltage=particle.voltage,
        spherical_aberration=particle.spherical_aberration,
        amplitude_contrast=particle.amplitude_contrast,
        phase_shift=0.0,
        pixel_size=particle.voxel_size,
        image_shape=(size, size),
        rfft=True,
        fftshift=False,
    )
    k = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]) / particle.voxel_size
    damage = torch.exp(-particle.exposure[:, None, None] / (2 * critical_exposure(k)))
    return contrast * particle.scale[:, None, None] * damage


def insert(particle: Particle, matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum a particle's slices and their weights ``t²`` in a padded half spectrum, y and z frequencies centred.

    The matrices ``(T, 3, 3)`` map the frame of the reconstruction to each image.
    """
    side = particle.images.shape[-1]
    size = PADDING * side
    images = torch.nn.functional.pad(particle.images[particle.visible], [(size - side) // 2] * 4)
    t = transfer(particle, size)[particle.visible]
    spectra = torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1))) * (1 if particle.premultiplied else t)
    slices = torch.fft.fftshift(torch.stack([spectra, t.square().to(spectra.dtype)], 1), dim=-2)
    # A point k of an image lies at Mᵀk in the volume.
    turns = matrices[particle.visible].mT
    total, _ = insert_central_slices_rfft_3d_multichannel(slices, (size, size, size), turns, fftfreq_max=0.5)
    # The plane kx = 0 holds each frequency together with its conjugate, which the library fills half and half.
    plane = total[..., 0]
    total[..., 0] = plane + plane.flip(-2, -1).roll((1, 1), (-2, -1)).conj()
    return total[0], total[1].real


def solve(total: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Divide the sums of :func:`insert` by the weight plus a constant, see ``WIENER``, and return a ``(N, N, N)`` volume."""
    size = len(total)
    noise = WIENER * weight[weight > 0].mean()
    spectrum = torch.fft.ifftshift(total / (weight + noise), dim=(-3, -2))
    volume = torch.fft.fftshift(torch.fft.irfftn(spectrum, s=(size, size, size)), dim=(-3, -2, -1))
    edge = (size - size // PADDING) // 2
    return torch.nn.functional.pad(volume / separable_sinc2_correction(volume.shape), [-edge] * 6)


def reconstruct(particle: Particle) -> torch.Tensor:
    r"""Reconstruct one particle, :math:`V(k)=\sum_i t_i I_i(k)\,/\,(\sum_i t_i^2(k)+\nu)`, from its visible images.

    The volume is ``(N, N, N)`` float32 in the specimen frame, protein bright. z runs along the beam; the projection matrices
    determine the tilt axis (y in WarpTools). For :math:`\nu` see :func:`solve`.
    """
    return solve(*insert(particle, particle.projections))


def average(particles: Sequence[Particle]) -> torch.Tensor:
    """Average particles in the reference frame, ``(N, N, N)``, by inserting all their slices into one volume."""
    sums = [insert(p, p.projections @ p.rotation) for p in particles]
    total, weight = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
    return solve(total, weight)
