"""The ladder of gaps, which measures what each difference between source and target costs a source-only network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from voxuda.data.domain import Domain
from voxuda.data.files import LAST, locked
from voxuda.experiments import sweep, tables
from voxuda.experiments.pool import Work, run_all
from voxuda.experiments.report import in_markdown, mean_and_range
from voxuda.networks.voxresnet import target_batch_norm
from voxuda.signal.fourier import apply_filter
from voxuda.signal.optics import missing_wedge
from voxuda.simulation import molecules
from voxuda.simulation.imaging import image_source, smooth_background
from voxuda.simulation.quick import Subtomograms, render, simulate_target
from voxuda.simulation.samples import from_simulation, save_samples
from voxuda.simulation.tilt_series import simulate_tilt_series
from voxuda.training.config import SCALES, Config, Scale
from voxuda.training.evaluation import predict, scores
from voxuda.training.loop import stream, train
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import load_network, read_record, save_json

SOURCE = tuple(molecules.STAND_INS.get(name, name) for name in molecules.PAPER_SOURCE_SETS["table1"])


@dataclass(frozen=True)
class Rung:
    """Samples that differ from the source in one property; the defaults are the source's."""

    name: str  #: Key.
    label: str  #: Label in figures.
    names: tuple[str, ...] = SOURCE  #: Molecules.
    #: Signal-to-noise ratio relative to the source's. As in the source recipe it refers to the variance of each crop, so a
    #: difference that changes the variance of the crop also changes the noise.
    snr_factor: float = 1.0
    #: Noise of the same variance in every sample, but spread evenly up to the Nyquist frequency instead of low-passed, so that
    #: less of it lies at the molecules' frequencies.
    white: bool = False
    defocus: float = 50e3  #: Underfocus in angstrom.
    voxel_size: float = 10.0  #: Edge of a voxel in angstrom.
    neighbours: int = 4  #: Molecules packed around each target.
    cytosol: float = 0.0  #: Standard deviation of the density between molecules, in Da/nm³.
    wedge_angle: float = 30.0  #: Degrees not measured on each side of the beam.


RUNGS: tuple[Rung, ...] = (
    Rung("source", "the source itself, fresh samples"),
    Rung("molecules", "other molecules", names=molecules.TARGET_MOLECULES),
    Rung("snr", "a tenth of the SNR", snr_factor=0.1),
    Rung("spectrum", "white noise", white=True),
    Rung("defocus", "half the defocus", defocus=25e3),
    Rung("voxel-size", "voxels of 13.5 Å", voxel_size=13.5),
    Rung("crowding", "twelve neighbours and cytosol", neighbours=12, cytosol=60.0),
    Rung("wedge", "tilts of ±45° only", wedge_angle=45.0),
    Rung(
        "all", "all of these", names=molecules.TARGET_MOLECULES, snr_factor=0.1, white=True, defocus=25e3, voxel_size=13.5,
        neighbours=12, cytosol=60.0, wedge_angle=45.0,
    ),
)  # fmt: skip
"""One difference at a time, then all at once."""

TARGETS = {"convolution": "the quick target", "tilt-series": "the target by tilt series"}
"""The two target recipes, at the top of the ladder."""


def simulate_rung(rung: Rung, n_per_molecule: int, snr: tuple[float, ...], seed: int) -> Subtomograms:
    """Simulate samples of one rung, in equal parts at each of the source's ``snr``.

    With the same seed, rungs of the same molecules and the same number of neighbours show the same ones.
    """
    library = [molecules.load(name) for name in rung.names]
    volumes, densities = [], []
    samples = torch.arange(len(library) * n_per_molecule)
    for which, chunk in enumerate(samples.split(16)):
        generator = torch.Generator().manual_seed(stream(seed, which))
        others = torch.randint(len(library), (len(chunk), rung.neighbours), generator=generator)
        choice = torch.cat([(chunk % len(library))[:, None], others], 1)
        clean = render(library, choice, size=32, voxel_size=rung.voxel_size, generator=generator)
        crowded = clean + rung.cytosol * smooth_background(len(clean), (32, 32, 32), generator) if rung.cytosol else clean
        ratio = torch.tensor(snr)[chunk // len(library) % len(snr)] * rung.snr_factor
        optics = dict(defocus=rung.defocus, voxel_size=rung.voxel_size, wedge_angle=rung.wedge_angle)
        imaged = image_source(crowded, ratio, generator, **optics)
        if rung.white:
            noiseless = image_source(crowded, torch.full_like(ratio, torch.inf), generator, **optics)
            deviation = (imaged - noiseless).std(dim=(1, 2, 3, 4), keepdim=True)
            grain = apply_filter(torch.randn(imaged.shape, generator=generator), missing_wedge(32, rung.wedge_angle))
            imaged = noiseless + deviation * grain / grain.std(dim=(1, 2, 3, 4), keepdim=True)
        volumes.append(imaged)
        densities.append(clean)
    density = torch.cat(densities)
    table = [{"molecule": rung.names[i]} for i in (samples % len(library)).tolist()]
    return Subtomograms(torch.cat(volumes), density, density > molecules.MASK_THRESHOLD, table, rung.voxel_size)


@torch.no_grad()
def score(run: Path, domain: Domain) -> dict:
    """Score a run by IoU and Dice on half of a domain, with running batch norm statistics and those of the other half."""
    first, second = torch.arange(len(domain)).tensor_split(2)
    unlabelled, test = domain.volumes[first], domain.subset(second)
    network = load_network(run, "running")
    found = {"running": scores(predict(network, test.volumes) > 0.5, test)}
    network.load_state_dict(target_batch_norm(network, unlabelled), strict=False)
    found["target"] = scores(predict(network, test.volumes) > 0.5, test)
    return {kind: {"iou": s.overall.iou, "dice": s.overall.dice} for kind, s in found.items()}


def climb(out: str | Path, *, scale: Scale = "smoke", seeds: int = 1, jobs: int = 1) -> dict:
    """Train source-only networks and an in-domain one per rung, score both on the rung, and write ``OUT/ladder-SCALE.json``.

    A rung may be hard for any network, so its reference is a network trained on as many labelled samples of the rung itself.
    The cost of the domain difference is how far the source-only network falls short of that reference.

    Parameters
    ----------
    out : path
        Folder of the runs; finished runs, including those of :func:`voxuda.experiments.sweep.reproduce`, are reused.
    scale : str
        Sizes, see ``SCALES``.
    seeds : int
        Number of networks of each kind, each with its own samples.
    jobs : int
        Number of runs trained in parallel.

    Returns
    -------
    dict
        ``rungs``, one entry per rung with ``name``, ``label`` and ``runs``, one entry per seed with IoU and Dice of the
        ``source_only`` network and of the in-domain one (``home``), for both kinds of batch norm statistics; ``scale``,
        ``sizes``, ``differences``, ``trained_by`` and ``collected_by``.
    """
    out = Path(out)
    # With batch norm, as the networks trained at home; the quick target takes a second, and no rung is scored on it.
    asked = tables.Sweep("normalisation", scale, ("source-only-batch",), seeds, recipe="convolution")
    sweep.reproduce(asked, out, jobs=jobs)
    (row,) = asked.rows()
    steps = {**{rung.name: rung.label for rung in RUNGS}, **TARGETS}
    homes = {(name, seed): out / f"rung-{name}" / f"seed-{seed}" for name in list(steps)[1:] for seed in range(seeds)}
    todo: dict[Path, tuple[str, Work]] = {
        folder: (f"{steps[name]}, seed {seed}", partial(_train_at_home, name, scale, seed, folder))
        for (name, seed), folder in homes.items()
        if not (folder / "weights.safetensors").exists()
    }
    finished, epochs = len(homes) - len(todo), SCALES[scale]["epochs"]
    run_all(todo, jobs=jobs, epochs=epochs, finished=finished, title=f"in-domain, {scale}")
    rungs = []
    for name, label in tqdm(steps.items(), unit="rung", desc=f"ladder, {scale}"):
        found = []
        for seed in range(seeds):
            domain = _samples(name, scale, seed)
            away = row.folder(out, seed)
            home = homes.get((name, seed), away)  # on the source's own rung the source-only network is in-domain
            shares = {"n": len(domain) // 2, "foreground": float(domain.masks.float().mean())}  # type: ignore[union-attr]
            found.append({"seed": seed, **shares, "source_only": score(away, domain), "home": score(home, domain)})
        rungs.append({"name": name, "label": label, "runs": found})
    trained = read_record(row.folder(out, 0))["provenance"]
    result = {
        "table": "ladder", "scale": scale, "sizes": SCALES[scale], "seeds": seeds, "trained_by": trained,
        "collected_by": provenance(), "differences": {r.name: dataclasses.asdict(r) for r in RUNGS}, "rungs": rungs,
    }  # fmt: skip
    save_json(result, out / f"ladder-{scale}.json")
    return result


def _train_at_home(name: str, scale: Scale, seed: int, folder: Path, threads: int) -> None:
    """Train a network on labelled samples of a rung, as many as the source has, in its own process."""
    torch.set_num_threads(threads)
    samples = folder.parent / f"samples-{seed}"
    config = Config(method="source-only", scale=scale, source=str(samples), seed=seed)
    with locked(folder):
        if not (samples / LAST).exists():
            sizes = SCALES[scale]
            n = len(SOURCE) * sizes["per_source"] * len(sizes["source_snr"])
            made = _simulate(name, n, sizes["source_snr"], stream(seed, 4))
            save_samples(made, samples)
        train(config, folder, resume=True, progress=False)


def _simulate(name: str, n: int, snr: tuple[float, ...], seed: int) -> Subtomograms:
    """Simulate about ``n`` samples of a rung or of one of the ``TARGETS``."""
    library = [molecules.load(m) for m in molecules.TARGET_MOLECULES]
    if name == "tilt-series":
        return simulate_tilt_series(library, n=n, seed=seed)
    if name == "convolution":
        return simulate_target(library, n_per_molecule=n // len(library), seed=seed)
    return simulate_rung(next(r for r in RUNGS if r.name == name), n // len(library), snr, seed)


def _samples(name: str, scale: Scale, seed: int) -> Domain:
    """Simulate shuffled samples on which the networks of ``seed`` are scored; none was trained on them."""
    sizes = SCALES[scale]
    n = len(molecules.TARGET_MOLECULES) * sizes["per_target"]
    domain = from_simulation(_simulate(name, n, sizes["source_snr"], stream(seed, 3)))
    return domain.subset(torch.randperm(len(domain), generator=torch.Generator().manual_seed(seed)))


def markdown(result: dict) -> str:
    """Format the ladder as Markdown, with mean, lowest and highest IoU over seeds in percent, target batch norm statistics."""
    rows = []
    for rung in result["rungs"]:
        away, home = ([100 * run[who]["target"]["iou"] for run in rung["runs"]] for who in ("source_only", "home"))
        short = [h - a for a, h in zip(away, home, strict=True)]
        rows.append([rung["label"], *map(mean_and_range, (away, home, short))])
    return in_markdown("| | source-only | trained at home | short by |", rows)
