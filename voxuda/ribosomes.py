"""Real 70S ribosomes at 12 Å: fetch the tilt stacks, make 32³ subtomograms with masks, show that their poses are right.

The particles are the WarpTools test data of tomoDRGN (bpowell122/tomodrgn): 40 ribosomes of four tomograms, extracted as
stacks of 37 tilts. What the files leave open was settled so:

* hand: read as RELION defines the matrices, the particles average to the mirror image of a ribosome, so they are read with
  ``hand=-1``. tomoDRGN's own tests back-project these files with ``--flip``, which mirrors z; the average supplied with
  the data is that of ``hand=-1``; and PDB 4V4R agrees with the supplied average and not with its mirror image (Fourier
  shell correlation at 38 Å, each in its best pose, 0.57 and 0.05);
* exposure: divided by :math:`t^2`, the power of early and late tilts is one and the same, so the stacks are multiplied by
  their CTF, cosine and exposure weight already, as WarpTools' code says.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from voxuda.data import new_folder
from voxuda.molecules import MASK_THRESHOLD, density, load
from voxuda.optics import apply_filter, soft_lowpass
from voxuda.packing import random_rotations
from voxuda.particles import (
    PADDING,
    Particle,
    average,
    fourier_shell_correlation,
    insert,
    place,
    read_particles,
    reconstruct,
    sample,
    solve,
    transfer,
)
from voxuda.volumes import InputError, check_volume, read_mrc, write_mrc

URL = "https://github.com/bpowell122/tomodrgn"
COMMIT = "b218710b59c280461ab7faf5dd99e23f37f6d8c7"
"""Git names a commit by a hash of all its files, so what arrives under this name is what was published."""

FOLDER = "testing/data"
STEM = "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
AVERAGE = "warptools_test_box-32_angpix-12_reconstruct.mrc"
TOMOGRAMS = ("Unt_050", "Unt_076", "Unt_083", "Unt_088")
PARTICLES = 10
"""Stacks a tomogram."""

OUTLINE_RESOLUTION = 40.0
"""Angstrom, to which the average is smoothed for its mask."""

CHECKSUMS = {
    f"{STEM}.star": "e320a5dc66287a877ebbc7803de4a57fc8188e62a50c48aa490425e170b654f6",
    f"{STEM}_optimisation_set.star": "e560169a648ee9a77d4a4bc95b7d93be4a59e9ce50910e34b19b043bac78a2d9",
    f"{STEM}_tomograms.star": "46495f55c6ca4ae390fd1d9a6e2e4d928a516328ef1f1895c3572b6348e26121",
    "warptools_test_box-32_angpix-12_reconstruct.mrc": "7ce2dafddeba9c4c0dd6fc9495cdd93922a46128eba6b842ed959a91c3c9717f",
}
"""SHA-256 of the files that were seen when this was written; the commit vouches for the others."""

STACK_CHECKSUMS = {
    "Unt_050": [
        "3d2f0a372cbbc89c8656ade98c1bb048c9d50221eb6baed50c1cc26bb0552602",
        "d2182d8d435e89feb5c1920e9bc9396a96c55683c88eea322dd8ecd122d97e78",
        "16dc022d8a1ab88674e4dd05f226d24d5124d1cc091f3b212103a3433f2f9fc1",
        "41d2ce12bfe6c629186dcdf6dd7258ac468b9be3d8b376a9d607064b7350c26e",
        "acfdc610edf032207e445a287d0a07fcf9051fc1ab5d1138ce02a86f3572e933",
        "449e7b7becaf1c1927c5a491acc855958c666f2b103312292075965acea423be",
        "0d03f349d9b3bf9ade38bce0d9946f027dd651bba8c31b452df6ec83ec25dfd7",
        "bef6aac4492563c95e4b268e751fd7044effaea21d0e32df8347668e868567dc",
        "1d927ed78530e5d62dbb94c5a647ece6f6f5d132336a0a32966614a3afa21900",
        "13975bcecfaa8d349afdd0071eb7f2e83a08c84d5ea805341570f3fe57f0f8d0",
    ],
    "Unt_083": [
        "ee960024216c80cd932b3a7f70f9005e374705c656b285f7d732ce2787697aae",
        "ee576075cf9d2e96127c527fd8b3d59f239145f8a51457f964509004b9125fd8",
        "c6ad5758215e3c8b646cc315b5d241daa09734d26ef2b8ad23db3abd7e10b9e4",
        "0263227e3cb1e7593fced9756c91a41c38d609fa1449d58f3f53e2ca0b3b306f",
        "e336b7a9753c0f45d33eb02ae8e2f15853dd406ec8bf20418e4b20c7dc62a8c5",
        "ba2ccf3c55388c8344f01015470b8d0bcdbe74cbbc2bffe86d8c3c74e220811e",
        "445d452f66660d8f27799ad0b1e9241c23e2395b98f1b7c6c85507a6cd32ca1a",
        "d2d99543c56788a2a0c48f00139171de58bc52da723bfcd158ff966f4a4fa0ba",
        "75c4d64ee7c3c480b03d60340fe38003909275352988c1cefd6c412a61397b07",
        "d0ac0dddeed32beba93653cd263129bbf308830fdd531c726e8c2be64dac5083",
    ],
}
"""The same of the stacks of two tomograms, in order."""


def fetch(out: str | Path) -> Path:
    """Download the star files, the average and the 40 stacks, and check them, into a new folder, all or none.

    Raises
    ------
    InputError
        git is missing, the repository cannot be reached, a file is not the one published, or the folder is not new.
    """
    out = Path(out)
    with new_folder(out) as work:
        clone = work / "clone"
        clone.mkdir()
        try:
            _git(clone, "init", "--quiet")
            # Only the commit's list of files comes with the fetch, their contents with the checkout.
            for key, value in {"url": URL, "promisor": "true", "partialclonefilter": "blob:none"}.items():
                _git(clone, "config", f"remote.origin.{key}", value)
            _git(clone, "fetch", "--quiet", "--depth", "1", "origin", COMMIT)
            _git(clone, "checkout", "--quiet", COMMIT, "--", *(f"{FOLDER}/{name}" for name in (*CHECKSUMS, STEM)))
        except subprocess.SubprocessError as error:
            raise InputError(
                f"{URL}: commit {COMMIT[:7]} could not be downloaded; check the network, or give `prepare` a local copy."
            ) from error
        for name in (*CHECKSUMS, STEM):
            os.replace(clone / FOLDER / name, work / name)
        shutil.rmtree(clone)
        _check(work)
    return out


def _git(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        subprocess.run(
            ["git", "-c", "core.autocrlf=false", *arguments],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
            timeout=600,
        )
    except FileNotFoundError as error:
        raise InputError("git: no such program; install git, which the download needs.") from error


def _stack(tomogram: str, number: int) -> str:
    return f"{STEM}/{tomogram}/{tomogram}_12.00A_{number:06d}.mrcs"


def _check(folder: Path) -> None:
    """Refuse a download in which a stack is missing or a known file differs."""
    known = dict(CHECKSUMS)
    for tomogram, checksums in STACK_CHECKSUMS.items():
        known |= {_stack(tomogram, i): checksum for i, checksum in enumerate(checksums, start=1)}
    for name in known.keys() | {_stack(tomogram, i + 1) for tomogram in TOMOGRAMS for i in range(PARTICLES)}:
        if not (folder / name).is_file():
            raise InputError(f"{name}: missing from commit {COMMIT[:7]} of {URL}; try again, or report it to voxuda.")
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if known.get(name, found) != found:
            raise InputError(f"{name}: its SHA-256 is not the one published; try again over a network you trust.")


def molecular_volume(voxel_size: float) -> float:
    """Volume in nm³ of the region that a simulated 70S ribosome's mask covers: 4V4R above :data:`MASK_THRESHOLD`."""
    molecule = load("4v4r")
    size = 2 * (int(molecule.radius / voxel_size) + 3)
    beads = (molecule.positions[None], molecule.masses[None], molecule.spreads[None])
    inside = density(*beads, size, voxel_size) > MASK_THRESHOLD
    return float(inside.sum()) * (voxel_size / 10) ** 3


def outline(reference: torch.Tensor, voxel_size: float) -> tuple[torch.Tensor, float]:
    """A smoothed average of ribosomes and the level above which it is the molecule: as many voxels as a simulated mask has.

    A reconstruction has an arbitrary scale, so no density in Da/nm³ can be its threshold; equal volume makes its mask the
    equal of the simulated ones. Details finer than :data:`OUTLINE_RESOLUTION` go first, since noise makes holes and islands:
    against 4V4R above :data:`MASK_THRESHOLD`, in the best pose, the overlap of the masks is 0.80 so and 0.74 without.

    Parameters
    ----------
    reference : Tensor
        ``(N, N, N)``.
    voxel_size : float
        Angstrom.

    Returns
    -------
    smooth : Tensor
        ``(N, N, N)``.
    level : float
        Its mask is ``smooth > level``.
    """
    size = len(reference)
    lowpass = soft_lowpass(size, size * voxel_size / OUTLINE_RESOLUTION, 1.5)
    smooth = apply_filter(reference[None, None], lowpass)[0, 0]
    voxels = round(molecular_volume(voxel_size) / (voxel_size / 10) ** 3)
    return smooth, float(smooth.flatten().sort(descending=True).values[voxels])


def prepare(folder: str | Path, out: str | Path, *, missing: Literal["raise", "skip"] = "raise") -> Path:
    """Make subtomograms and masks from the tilt stacks in ``folder``, as a new folder that :func:`voxuda.data.load` reads.

    Volumes are in the specimen frame, tilt axis along y. A mask is the :func:`outline` of the supplied average, turned
    into the particle's refined pose.

    Parameters
    ----------
    folder : path
        Holds the star files and the average, as :func:`fetch` writes them, and the stacks, in place or side by side.
    out : path
        New folder, for ``volumes.mrcs``, ``masks.mrcs`` and ``samples.csv``.
    missing : str
        As in :func:`voxuda.particles.read_particles`.

    Raises
    ------
    InputError
        A file is missing or damaged, or the output folder is not new.
    """
    particles, reference = read(folder, missing=missing)
    smooth, level = outline(reference, particles[0].voxel_size)
    volumes = torch.stack([reconstruct(p) for p in particles])
    masks = torch.stack([place(smooth, p.rotation) > level for p in particles])
    with new_folder(out) as work:
        write_mrc(work / "volumes.mrcs", volumes, particles[0].voxel_size)
        write_mrc(work / "masks.mrcs", masks.numpy(), particles[0].voxel_size)
        with open(work / "samples.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["index", "molecule", "tomogram", "particle", "voxel_size"])
            writer.writerows([i, "ribosome", p.tomogram, p.name, p.voxel_size] for i, p in enumerate(particles))
    return Path(out)


def read(folder: str | Path, *, missing: Literal["raise", "skip"] = "raise") -> tuple[list[Particle], torch.Tensor]:
    """The particles of a folder, in the hand of a ribosome, and the supplied average ``(N, N, N)``.

    Raises
    ------
    InputError
        A file is missing or damaged, or the average does not fit the images.
    """
    folder = Path(folder)
    particles = read_particles(folder / f"{STEM}.star", missing=missing, hand=-1)
    reference = torch.from_numpy(read_mrc(folder / AVERAGE).data)
    check_volume(reference, str(folder / AVERAGE))
    if any(reference.shape != 3 * p.images.shape[-1:] for p in particles):
        raise InputError(
            f"{folder / AVERAGE}: {tuple(reference.shape)} does not fit the images; give the average of one export."
        )
    return particles, reference


def pose_scores(particle: Particle, volume: torch.Tensor, rotations: torch.Tensor, *, resolution: float = 60.0) -> torch.Tensor:
    r"""How well a map in each of several poses explains a particle's images, from details finer than ``resolution``.

    The matched filter for white noise, :math:`\mathrm{Re}\sum I^* S\,/\sqrt{\sum t^2|S|^2}` over the visible images :math:`I`,
    already multiplied by their transfer :math:`t`, and the map's slices :math:`S`: the amplitude of the map drops out.

    Parameters
    ----------
    particle : Particle
        With ``(T, N, N)`` images.
    volume : Tensor
        ``(N, N, N)`` in the reference frame.
    rotations : Tensor
        ``(K, 3, 3)``, reference to specimen.
    resolution : float
        Angstrom; a featureless blob has no say beyond 60.

    Returns
    -------
    Tensor
        ``(K,)``, higher is better.
    """
    size = len(volume)
    axis = torch.fft.fftfreq(size) * size
    ky, kx = torch.meshgrid(axis, torch.fft.rfftfreq(size) * size, indexing="ij")
    radius = torch.hypot(kx, ky)
    band = (radius * resolution > size * particle.voxel_size) & (radius < 0.45 * size) & ((kx > 0) | (ky > 0))
    t = transfer(particle, size)[particle.visible][:, band]
    images = torch.fft.rfft2(torch.fft.ifftshift(particle.images[particle.visible], dim=(-2, -1)))[:, band]
    images = images if particle.premultiplied else images * t

    edge = (PADDING - 1) * size // 2
    padded = torch.nn.functional.pad(volume, [edge] * 6)
    spectrum = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(padded)))
    points = torch.stack([kx[band], ky[band], torch.zeros_like(kx[band])], -1) @ particle.projections[particle.visible]
    real, imaginary = sample(torch.stack([spectrum.real, spectrum.imag]), PADDING * points @ rotations[:, None])
    slices = torch.complex(real, imaginary)
    return (images.conj() * slices).real.sum((1, 2)) / (t * slices.abs()).square().sum((1, 2)).sqrt()


def geometry_evidence(
    particles: Sequence[Particle], supplied: torch.Tensor, seed: int, *, draws: int = 5, poses: int = 100
) -> dict[str, Any]:
    """Whether the poses and the hand are right, in numbers that a page can plot.

    Parameters
    ----------
    particles : sequence of Particle
        At least three, as :func:`read` gives them.
    supplied : Tensor
        ``(N, N, N)`` average that came with them, in the reference frame.
    seed : int
        Of the random poses.
    draws : int
        Averages with random poses.
    poses : int
        Random poses that a particle's own is ranked among.

    Returns
    -------
    dict
        ``frequency`` in 1/Å of each shell; ``fsc`` with the supplied average inside a soft sphere, of the average
        (``true``), its mirror image (``mirrored``), and averages with random poses (``random``, a mean), and that of the two
        halves of the particles with each other (``halves``, which share no noise); of each particle, named in ``particle``, the
        rank of its own pose, 1 to ``poses + 1``, by an average of the others (``rank``, which holds none of its noise), by the
        supplied one (``rank_supplied``) and by the mirror image of that (``rank_mirrored``, what the other hand would give).
    """
    generator = torch.Generator().manual_seed(seed)
    size = len(supplied)
    axis = torch.arange(size) - size // 2
    radius = (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()
    sphere = torch.sigmoid((0.4 * size - radius) / (0.02 * size))

    def agreement(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return fourier_shell_correlation(first * sphere, second * sphere)

    def volume(sums: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        total, weight = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
        return solve(total, weight)

    own = [insert(p, p.projections @ p.rotation) for p in particles]
    blind = []
    for _ in range(draws):
        turns = random_rotations(len(particles), generator)
        blind.append(average([replace(p, rotation=turn) for p, turn in zip(particles, turns, strict=True)]))
    fsc = {
        "true": agreement(volume(own), supplied),
        "mirrored": agreement(volume(own).flip(0).roll(1, 0), supplied),
        "random": torch.stack([agreement(each, supplied) for each in blind]).mean(0),
        "halves": agreement(volume(own[::2]), volume(own[1::2])),
    }
    mirrored = supplied.flip(0).roll(1, 0)
    ranks: dict[str, list[int]] = {"rank": [], "rank_supplied": [], "rank_mirrored": []}
    for i, particle in enumerate(particles):
        rotations = torch.cat([particle.rotation[None], random_rotations(poses, generator)])
        references = volume(own[:i] + own[i + 1 :]), supplied, mirrored
        for name, reference in zip(ranks, references, strict=True):
            scores = pose_scores(particle, reference * sphere, rotations)
            ranks[name].append(int((scores[1:] >= scores[0]).sum()) + 1)
    return {
        "frequency": [shell / (size * particles[0].voxel_size) for shell in range(1, size // 2)],
        "fsc": {name: curve.tolist() for name, curve in fsc.items()},
        "particle": [particle.name for particle in particles],
        **ranks,
    }
