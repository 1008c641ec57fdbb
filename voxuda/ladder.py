"""The ladder of gaps: what one difference between source and target costs a network trained on the source."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from voxuda import data, experiments, molecules
from voxuda.data import Domain
from voxuda.evaluation import predict, scores
from voxuda.runs import SCALES, Config, Scale, load_network, load_simulated_target, provenance, read_record, save_json
from voxuda.simulate import Subtomograms, image_source, render, smooth_background
from voxuda.training import stream
from voxuda.voxresnet import target_batch_norm

SOURCE = tuple(molecules.STAND_INS.get(name, name) for name in molecules.PAPER_SOURCE_SETS["table1"])


@dataclass(frozen=True)
class Rung:
    """Samples that differ from the source in one thing; the defaults are the source's.

    Parameters
    ----------
    name, label : str
        Key, and what a figure shows.
    names : tuple of str
        The molecules.
    snr_factor : float
        Signal-to-noise ratio over the source's.
    white : bool
        Noise of the same variance in every sample, but white up to the Nyquist frequency instead of low-passed.
    defocus, voxel_size : float
        Angstrom.
    neighbours : int
        Molecules packed around each target.
    cytosol : float
        Standard deviation of the solution between them, in Da/nm³.
    wedge_angle : float
        Degrees lost on each side of the beam.
    """

    name: str
    label: str
    names: tuple[str, ...] = SOURCE
    snr_factor: float = 1.0
    white: bool = False
    defocus: float = 50e3
    voxel_size: float = 10.0
    neighbours: int = 4
    cytosol: float = 0.0
    wedge_angle: float = 30.0


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
        "all",
        "all of these",
        names=molecules.TARGET_MOLECULES,
        snr_factor=0.1,
        white=True,
        defocus=25e3,
        voxel_size=13.5,
        neighbours=12,
        cytosol=60.0,
        wedge_angle=45.0,
    ),
)
"""One difference at a time, then all at once."""

TARGETS = {"convolution": "the quick target", "tilt-series": "the target by tilt series"}
"""The two target recipes, at the top of the ladder."""


def simulate_rung(rung: Rung, n_per_molecule: int, snr: tuple[float, ...], seed: int) -> Subtomograms:
    """Samples of one rung.

    Parameters
    ----------
    rung : Rung
        What differs from the source.
    n_per_molecule : int
        Samples of each molecule; half of them at the source's lower SNR, half at its higher one.
    snr : tuple of float
        The source's.
    seed : int
        The same for all rungs, so that rungs of the same molecules show the same ones.
    """
    library = [molecules.load(name) for name in rung.names]
    parts = []
    for which, chunk in enumerate(torch.arange(len(library) * n_per_molecule).split(16)):
        generator = torch.Generator().manual_seed(stream(seed, which))
        others = torch.randint(len(library), (len(chunk), rung.neighbours), generator=generator)
        choice = torch.cat([(chunk % len(library))[:, None], others], 1)
        clean = render(library, choice, size=32, voxel_size=rung.voxel_size, generator=generator)
        crowded = clean
        if rung.cytosol:
            crowded = clean + rung.cytosol * smooth_background(len(clean), (32, 32, 32), generator)
        ratio = torch.tensor(snr)[chunk // len(library) % len(snr)] * rung.snr_factor
        optics = dict(defocus=rung.defocus, voxel_size=rung.voxel_size, wedge_angle=rung.wedge_angle)
        imaged = image_source(crowded, ratio, generator, **optics)
        if rung.white:
            noiseless = image_source(crowded, torch.full_like(ratio, torch.inf), generator, **optics)
            deviation = (imaged - noiseless).std(dim=(1, 2, 3, 4), keepdim=True)
            imaged = noiseless + deviation * torch.randn(imaged.shape, generator=generator)
        parts.append((imaged, clean, [{"molecule": rung.names[i]} for i in choice[:, 0].tolist()]))
    densities = torch.cat([clean for _, clean, _ in parts])
    volumes = torch.cat([imaged for imaged, _, _ in parts])
    table = [row for _, _, rows in parts for row in rows]
    return Subtomograms(volumes, densities, densities > molecules.MASK_THRESHOLD, table, rung.voxel_size)


@torch.no_grad()
def score(run: Path, domain: Domain) -> dict:
    """IoU and Dice of a run on half of a domain, with running batch norm statistics and with those of the other half."""
    first, second = torch.arange(len(domain)).tensor_split(2)
    unlabelled, test = domain.volumes[first], domain.subset(second)
    network = load_network(run, "running")
    found = {"running": scores(predict(network, test.volumes) > 0.5, test)}
    network.load_state_dict(target_batch_norm(network, unlabelled), strict=False)
    found["target"] = scores(predict(network, test.volumes) > 0.5, test)
    kept = {kind: {key: s["overall"][key] for key in ("iou", "dice")} for kind, s in found.items()}
    return {"n": len(test), "foreground": found["target"]["foreground_share"]["truth"], **kept}


def climb(out: str | Path, *, scale: Scale = "smoke", seeds: int = 1, jobs: int = 1) -> dict:
    """Train source-only networks, score them on every rung, and write ``OUT/ladder-SCALE.json``.

    Parameters
    ----------
    out : path
        Folder of the runs; those of :func:`voxuda.experiments.reproduce` are taken as they are.
    scale : str
        Sizes, see ``SCALES``.
    seeds : int
        Networks, each with samples of its own.
    jobs : int
        Runs side by side while training.

    Returns
    -------
    dict
        ``rungs``, one a rung with ``name``, ``label`` and ``runs``, one a seed with ``target`` and ``running`` IoU and Dice;
        ``scale``, ``sizes``, ``trained_by`` and ``collected_by``.
    """
    out = Path(out)
    experiments.reproduce("modules", out, scale=scale, seeds=seeds, only=["source-only"], jobs=jobs)
    row = experiments.select("modules", ["source-only"])[0]
    sizes = SCALES[scale]
    steps = [*((rung.name, rung.label) for rung in RUNGS), *TARGETS.items()]
    rungs = []
    for name, label in tqdm(steps, unit="rung", desc=f"ladder, {scale}"):
        found = []
        for seed in range(seeds):
            found.append({"seed": seed, **score(experiments.run_folder(out, row, seed), _samples(name, scale, seed))})
        rungs.append({"name": name, "label": label, "runs": found})
    trained = read_record(experiments.run_folder(out, row, 0))["provenance"]
    result = {
        "table": "ladder", "scale": scale, "sizes": sizes, "seeds": seeds, "trained_by": trained, "collected_by": provenance(),
        "differences": {rung.name: dataclasses.asdict(rung) for rung in RUNGS}, "rungs": rungs,
    }  # fmt: skip
    result = json.loads(json.dumps(result))
    save_json(result, out / f"ladder-{scale}.json")
    return result


def _samples(name: str, scale: Scale, seed: int) -> Domain:
    """What a rung's network of ``seed`` is scored on, shuffled."""
    sizes = SCALES[scale]
    if name in TARGETS:
        domain = load_simulated_target(Config(scale=scale, seed=seed, recipe=name))  # type: ignore[arg-type]
    else:
        rung = next(r for r in RUNGS if r.name == name)
        samples = simulate_rung(rung, sizes["per_target"], sizes["source_snr"], stream(seed, 3))
        domain = data.from_simulation(samples)
    return domain.subset(torch.randperm(len(domain), generator=torch.Generator().manual_seed(seed)))


def markdown(result: dict) -> str:
    """The ladder as Markdown: mean IoU over seeds, lowest and highest, in percent."""
    lines = ["| | IoU, batch norm of the samples | IoU, running batch norm |", "| --- | --- | --- |"]
    for rung in result["rungs"]:
        cells = []
        for kind in ("target", "running"):
            values = [100 * run[kind]["iou"] for run in rung["runs"]]
            cells.append(f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        lines.append(f"| {rung['label']} | {' | '.join(cells)} |")
    return "\n".join(lines)
