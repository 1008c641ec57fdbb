"""Fetch tilt stacks of real ribosomes at 12 Å, and make 32³ subtomograms with masks from them.

The particles are the WarpTools test data of tomoDRGN (bpowell122/tomodrgn): 40 ribosomes of four tomograms, extracted as
stacks of 37 tilts. The files leave two points open, which were settled as follows:

* hand: with RELION's definition of the matrices the particles average to the mirror image of a ribosome, so they are read
  with ``hand=-1``. tomoDRGN's own tests back-project these files with ``--flip``, which mirrors z; the average supplied with
  the data is that of ``hand=-1``; and PDB 4V4R agrees with the supplied average and not with its mirror image, each in its
  best pose (``book/ribosome_evidence.py``);
* exposure: after division by :math:`t^2`, early and late tilts have the same power, so the stacks are already multiplied by
  their CTF, cosine and exposure weight, as in WarpTools' code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from itertools import chain
from pathlib import Path
from typing import Literal

import torch

from voxuda.data.download import check_published, checkout, sha256
from voxuda.data.files import new_folder
from voxuda.data.mrc import check_volume, read_mrc
from voxuda.data.subtomograms import write_samples
from voxuda.data.tilt_stacks import Particle, read_particles, reconstruct
from voxuda.errors import InputError
from voxuda.signal.fourier import apply_filter, soft_lowpass
from voxuda.signal.rotation import place

URL = "https://github.com/bpowell122/tomodrgn"
COMMIT = "b218710b59c280461ab7faf5dd99e23f37f6d8c7"
FOLDER = "testing/data"
STEM = "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
VOXEL_SIZE = 12.0
"""Voxel size of the images and the average in angstrom."""

AVERAGE = "warptools_test_box-32_angpix-12_reconstruct.mrc"
TOMOGRAMS = ("Unt_050", "Unt_076", "Unt_083", "Unt_088")
PARTICLES = 10
"""Number of stacks per tomogram."""

OUTLINE_RESOLUTION = 40.0
"""Resolution in angstrom to which the average is smoothed for its mask."""

CHECKSUMS = {
    f"{STEM}.star": "e320a5dc66287a877ebbc7803de4a57fc8188e62a50c48aa490425e170b654f6",
    f"{STEM}_optimisation_set.star": "e560169a648ee9a77d4a4bc95b7d93be4a59e9ce50910e34b19b043bac78a2d9",
    f"{STEM}_tomograms.star": "46495f55c6ca4ae390fd1d9a6e2e4d928a516328ef1f1895c3572b6348e26121",
    "warptools_test_box-32_angpix-12_reconstruct.mrc": "7ce2dafddeba9c4c0dd6fc9495cdd93922a46128eba6b842ed959a91c3c9717f",
}
"""SHA-256 of the files available when this was written; the commit hash covers the others."""

STACK_CHECKSUMS = {
    "Unt_050": "e5a9410f7fa96db5cad7c10ce48607bcc81d7152fe7c45143779d9fbf094503d",
    "Unt_083": "37a92fa0491f97e299395e2fc3c5e2e6427674680ac6d83ffd0310937d5c3b67",
}
"""SHA-256, for two tomograms, of the joined SHA-256 digits of their stacks, in order."""


def fetch(out: str | Path) -> Path:
    """Download and check the star files, the average and the 40 stacks, and write them to a new folder, all or none.

    Raises
    ------
    InputError
        git is missing, the repository cannot be reached, a file is not the one published, or the folder is not new.
    """
    with new_folder(out) as work:
        clone, names = work / "clone", (*CHECKSUMS, STEM)
        checkout(URL, COMMIT, [f"{FOLDER}/{name}" for name in names], clone)
        for name in names:
            os.replace(clone / FOLDER / name, work / name)
        shutil.rmtree(clone)
        for path in filter(Path.is_file, work.rglob("*")):
            path.chmod(0o644)  # data, even if the repository marks it executable
        _check(work)
    return Path(out)


def _stack(tomogram: str, number: int) -> str:
    return f"{STEM}/{tomogram}/{tomogram}_12.00A_{number:06d}.mrcs"


def _check(folder: Path) -> None:
    """Refuse a download in which a stack is missing or a known file differs."""
    stacks = {tomogram: [_stack(tomogram, i + 1) for i in range(PARTICLES)] for tomogram in TOMOGRAMS}
    found = {}
    for name in (*CHECKSUMS, *chain.from_iterable(stacks.values())):
        if not (folder / name).is_file():
            raise InputError(f"{name}: missing from commit {COMMIT[:7]} of {URL}; try again, or report it to voxuda.")
        found[name] = sha256(folder / name)
    for tomogram, names in stacks.items():
        found[tomogram] = hashlib.sha256("".join(found[name] for name in names).encode()).hexdigest()
    for name, checksum in (CHECKSUMS | STACK_CHECKSUMS).items():
        check_published(name, found[name], checksum)


def outline(reference: torch.Tensor, voxel_size: float, volume: float) -> tuple[torch.Tensor, float]:
    """Smooth an average of ribosomes ``(N, N, N)``, and return it with the threshold that encloses ``volume`` nm³.

    A reconstruction has an arbitrary scale, so its threshold cannot be a density in Da/nm³; equal volume makes its mask
    comparable to the simulated ones. Details finer than :data:`OUTLINE_RESOLUTION` are removed first, since noise makes holes
    and islands. ``voxel_size`` is in angstrom.
    """
    size = len(reference)
    lowpass = soft_lowpass(size, size * voxel_size / OUTLINE_RESOLUTION, 1.5)
    smooth = apply_filter(reference[None, None], lowpass)[0, 0]
    voxels = round(volume / (voxel_size / 10) ** 3)
    return smooth, float(smooth.flatten().sort(descending=True).values[voxels])


def prepare(folder: str | Path, out: str | Path, *, volume: float, missing: Literal["raise", "skip"] = "raise") -> Path:
    """Make subtomograms and masks from the tilt stacks in ``folder``, and write them to a new folder for ``load_domain``.

    Volumes are in the specimen frame, tilt axis along y. A mask is the :func:`outline` of the supplied average, rotated into
    the particle's refined pose. Particles of one tomogram stay together in a split. ``volume`` is that of a ribosome in
    nm³, from :func:`voxuda.simulation.molecules.molecular_volume` at ``VOXEL_SIZE``.

    Raises
    ------
    InputError
        See :func:`read`; or the output folder is not new.
    """
    particles, reference = read(folder, missing=missing)
    smooth, level = outline(reference, particles[0].voxel_size, volume)
    volumes = torch.stack([reconstruct(p) for p in particles])[:, None]
    masks = torch.stack([place(smooth, p.rotation) > level for p in particles])[:, None]
    # A tomogram is a specimen: its particles share ice, dose and alignment, so a split must not divide it.
    table = [
        {"molecule": "ribosome", "specimen": p.tomogram, "particle": p.name, "voxel_size": p.voxel_size} for p in particles
    ]
    return write_samples(out, {"volumes": volumes, "masks": masks}, particles[0].voxel_size, table)


def read(folder: str | Path, *, missing: Literal["raise", "skip"] = "raise") -> tuple[list[Particle], torch.Tensor]:
    """Read the particles of a folder, with the hand of a ribosome, and the supplied average ``(N, N, N)``.

    The folder holds the star files and the average, as :func:`fetch` writes them, and the stacks, in their sub-folders or
    beside the star files; for missing stacks see :func:`~voxuda.data.tilt_stacks.read_particles`.

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
        raise InputError(f"{folder / AVERAGE}: {tuple(reference.shape)} does not fit the images; give both from one export.")
    return particles, reference
