"""Are the poses and the hand of the real ribosomes right? Their scores beside those of random and mirrored ones, as JSON.

Usage: python book/ribosome_evidence.py STACKS, where STACKS is the folder that `voxuda data fetch ribosomes-12A` makes;
particles without a stack are left out. Takes a minute. Writes results/ribosome-geometry.json for the book.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from voxuda.data import ribosomes
from voxuda.data.tilt_stacks import PADDING, Particle, average, insert, solve, transfer
from voxuda.signal.fourier import radius_grid
from voxuda.signal.rotation import fourier_shell_correlation, place, sample
from voxuda.simulation.molecules import density, load
from voxuda.simulation.packing import random_rotations
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import save_json

OUT = Path(__file__).resolve().parent.parent / "results" / "ribosome-geometry.json"

RESOLUTION = 60.0
"""Angstrom: only finer details score a pose, since a featureless blob has none beyond."""


@dataclass(frozen=True)
class Evidence:
    """Whether poses and hand are right, in numbers that a page can plot."""

    frequency: list[float]  #: Of each shell, in 1/Å.
    #: Fourier shell correlations. With the supplied average, inside a soft sphere: of the average (``true``), its mirror image
    #: (``mirrored``), averages with random poses (``random``, a mean). Of the two halves of the particles with each other,
    #: which share no noise: ``halves``, and ``halves_random`` with random poses.
    fsc: dict[str, list[float]]
    particle: list[str]  #: Names of the particles.
    #: Rank of each particle's own pose among random ones, from 1, by an average of the other particles, which holds none of its
    #: noise.
    rank: list[int]
    rank_supplied: list[int]  #: The same by the supplied average.
    rank_mirrored: list[int]  #: The same by the mirror image of the supplied average.


def pose_scores(particle: Particle, volume: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    r"""Score how well a map in each of several poses explains a particle's images, by details finer than RESOLUTION.

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

    Returns
    -------
    Tensor
        ``(K,)``, higher is better.
    """
    size = len(volume)
    axis = torch.fft.fftfreq(size) * size
    ky, kx = torch.meshgrid(axis, torch.fft.rfftfreq(size) * size, indexing="ij")
    radius = torch.hypot(kx, ky)
    band = (radius * RESOLUTION > size * particle.voxel_size) & (radius < 0.45 * size) & ((kx > 0) | (ky > 0))
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
) -> Evidence:
    """Compare the poses and the hand of particles with random and mirrored ones.

    Parameters
    ----------
    particles : sequence of Particle
        At least three, as :func:`voxuda.data.ribosomes.read` gives them.
    supplied : Tensor
        ``(N, N, N)`` average that came with them, in the reference frame.
    seed : int
        Of the random poses.
    draws : int
        Averages with random poses.
    poses : int
        Random poses that a particle's own is ranked among, so that ranks are 1 to ``poses + 1``.
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
    turned = [
        [replace(p, rotation=turn) for p, turn in zip(particles, random_rotations(len(particles), generator), strict=True)]
        for _ in range(draws)
    ]
    fsc = {
        "true": agreement(volume(own), supplied),
        "mirrored": agreement(volume(own).flip(0).roll(1, 0), supplied),
        "random": torch.stack([agreement(average(each), supplied) for each in turned]).mean(0),
        "halves": agreement(volume(own[::2]), volume(own[1::2])),
        "halves_random": torch.stack([agreement(average(each[::2]), average(each[1::2])) for each in turned]).mean(0),
    }
    mirrored = supplied.flip(0).roll(1, 0)
    ranks: dict[str, list[int]] = {"rank": [], "rank_supplied": [], "rank_mirrored": []}
    for i, particle in enumerate(particles):
        rotations = torch.cat([particle.rotation[None], random_rotations(poses, generator)])
        references = volume(own[:i] + own[i + 1 :]), supplied, mirrored
        for name, reference in zip(ranks, references, strict=True):
            scores = pose_scores(particle, reference * sphere, rotations)
            ranks[name].append(int((scores[1:] >= scores[0]).sum()) + 1)
    return Evidence(
        frequency=[shell / (size * particles[0].voxel_size) for shell in range(1, size // 2)],
        fsc={name: curve.tolist() for name, curve in fsc.items()},
        particle=[particle.name for particle in particles],
        **ranks,
    )


def hand_evidence(supplied: torch.Tensor, voxel_size: float, seed: int, *, poses: int = 3000) -> dict[str, list[float]]:
    """Correlate the supplied average and its mirror image with 4V4R, each in its best pose: one of them is a ribosome.

    Parameters
    ----------
    supplied : Tensor
        ``(N, N, N)``.
    voxel_size : float
        Angstrom.
    seed : int
        Of the search: random poses, then the best ten of them turned by smaller and smaller angles.
    poses : int
        Random poses.

    Returns
    -------
    dict
        ``supplied`` and ``mirrored``, each the Fourier shell correlation with 4V4R over the shells.
    """
    generator = torch.Generator().manual_seed(seed)
    molecule, size = load("4v4r"), len(supplied)
    model = density(molecule.positions[None], molecule.masses[None], molecule.spreads[None], size, voxel_size)[0, 0]
    band = (radius_grid(size) >= 3) & (radius_grid(size) < 0.42 * size)  # what is finer than 128 Å, up to 29 Å

    def search(reference: torch.Tensor) -> list[float]:
        phases = torch.fft.rfftn(reference).sgn() * band

        def match(rotation: torch.Tensor) -> torch.Tensor:
            """Phase correlation at every shift."""
            spectrum = torch.fft.rfftn(place(model, rotation))
            return torch.fft.irfftn(spectrum.conj() * phases, s=3 * (size,)) / (spectrum * band).abs().square().sum().sqrt()

        def score(rotation: torch.Tensor) -> float:
            return float(match(rotation).max())

        best = sorted(random_rotations(poses, generator), key=score)[-10:]
        for spread in (0.2, 0.1, 0.05, 0.02):
            skew = spread * torch.randn(40, 3, 3, generator=generator).triu(1)
            turns = torch.linalg.matrix_exp(skew - skew.mT)
            best = [max([pose, *(turn @ pose for turn in turns)], key=score) for pose in best]
        pose = max(best, key=score)
        shift = [int(i) for i in torch.unravel_index(match(pose).argmax(), 3 * (size,))]
        return fourier_shell_correlation(place(model, pose).roll(shift, (0, 1, 2)), reference).tolist()

    return {"supplied": search(supplied), "mirrored": search(supplied.flip(0).roll(1, 0))}


def main(folder: Path, out: Path) -> None:
    """Write the file."""
    particles, supplied = ribosomes.read(folder, missing="skip")
    found = geometry_evidence(particles, supplied, seed=0)
    hand = hand_evidence(supplied, particles[0].voxel_size, seed=0)
    save_json({"collected_by": provenance(), **asdict(found), "hand": hand}, out)
    first = sum(rank == 1 for rank in found.rank)
    print(f"{first} of {len(found.rank)} particles rank their own pose first of 101: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), OUT)
