"""Tell the size of molecules from their shape on the ladder of gaps.

Usage: python book/ladder_size.py OUT [SEEDS]. Trains one network on other molecules as small as the source's, and one on the
source's molecules as large as the others, some minutes each. Writes results/ladder-size-laptop.json; the runs stay in OUT. The
source-only network is the stored one for every seed.
"""

import dataclasses
import sys
from pathlib import Path

import torch

from voxuda.experiments import ladder
from voxuda.simulation import molecules
from voxuda.simulation.quick import Subtomograms
from voxuda.simulation.samples import from_simulation, save_samples
from voxuda.training.config import SCALES, Config, Scale
from voxuda.training.loop import stream, train
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import RESULTS, save_json

SCALE: Scale = "laptop"
LABELS = {
    "source": "the source itself",
    "small-others": "other molecules, as small as the source's",
    "large-own": "the source's molecules, as large as the others",
    "molecules": "other molecules",
}


def volume(names: tuple[str, ...]) -> float:
    """Compute the mean volume of molecules in nm³."""
    return sum(molecules.molecular_volume(molecules.load(name), 10.0) for name in names) / len(names)


def scaled(name: str, factor: float, folder: Path) -> str:
    """Write a molecule ``factor`` times as long in every direction, of the same density, and return the path of the file."""
    path, m = folder / f"{name}-{factor:.3f}.npz", molecules.load(name)
    changed = dict(positions=factor * m.positions, spreads=factor * m.spreads, masses=factor**3 * m.masses)
    return str(molecules.write_beads(path, dataclasses.replace(m, **changed), overwrite=True))


def rungs(folder: Path) -> dict[str, ladder.Rung]:
    """Return the source's rung, that of other molecules, and both with the mean volume of a molecule that the other one has."""
    folder.mkdir(parents=True, exist_ok=True)
    source, others = ladder.RUNGS[0], next(rung for rung in ladder.RUNGS if rung.name == "molecules")
    factor = (volume(others.names) / volume(source.names)) ** (1 / 3)
    small, large = (
        tuple(scaled(name, f, folder) for name in rung.names) for rung, f in ((others, 1 / factor), (source, factor))
    )
    names = {"source": source.names, "small-others": small, "large-own": large, "molecules": others.names}
    return {key: dataclasses.replace(source, name=key, label=LABELS[key], names=names[key]) for key in LABELS}


def samples(rung: ladder.Rung, n: int, seed: int) -> Subtomograms:
    """Simulate about ``n`` samples of a rung."""
    return ladder.simulate_rung(rung, n // len(rung.names), SCALES[SCALE]["source_snr"], seed)


def main(out: Path, seeds: int = 1) -> None:
    """Train networks at home on the two controls, and score them and the stored source-only network."""
    torch.set_num_threads(1)
    sizes, away, found = SCALES[SCALE], RESULTS / "weights" / "source-only", []
    for key, rung in rungs(out / "molecules").items():
        shown = []
        for seed in range(seeds):
            test = from_simulation(samples(rung, 3 * sizes["per_target"], stream(seed, 3)))
            test = test.subset(torch.randperm(len(test), generator=torch.Generator().manual_seed(seed)))
            shares = {"n": len(test) // 2, "foreground": float(test.masks.float().mean())}  # type: ignore[union-attr]
            line = {"seed": seed, **shares, "source_only": ladder.score(away, test)}
            if key in ("small-others", "large-own"):
                home, folder = out / key / f"seed-{seed}", out / key / f"samples-{seed}"
                if not (folder / "samples.csv").exists():
                    save_samples(samples(rung, 3 * sizes["per_source"] * len(sizes["source_snr"]), stream(seed, 4)), folder)
                train(Config("source-only", SCALE, source=str(folder), seed=seed), home, resume=True, progress=False)
                line["home"] = ladder.score(home, test)
            shown.append(line)
            print(key, line, flush=True)
        found.append({"name": key, "label": LABELS[key], "volume": round(volume(rung.names)), "runs": shown})
    result = {"table": "ladder-size", "scale": SCALE, "sizes": sizes, "seeds": seeds, "controls": found}
    save_json({**result, "collected_by": provenance()}, RESULTS / f"ladder-size-{SCALE}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
