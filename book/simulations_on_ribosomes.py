"""How well networks that were trained on simulations alone find real ribosomes, as JSON.

Usage: python book/simulations_on_ribosomes.py RIBOSOMES RUNS, where RIBOSOMES is the --out of `voxuda data ribosomes` and RUNS
that of `voxuda reproduce all --scale laptop`; scored are the networks that book/microtubule.py scores. Takes some minutes on
one thread. Writes results/simulations-on-ribosomes.json.
"""

import sys
from pathlib import Path

import torch
from microtubule import ROOT, networks
from tqdm import tqdm

from voxuda.data.domain import Domain
from voxuda.data.subtomograms import load_domain
from voxuda.networks.voxresnet import target_batch_norm
from voxuda.training import evaluation
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import load_network, read_config, save_json

NOTE = "No network saw a real box in training. The statistics `real` are measured on the boxes that are scored, without labels."


def model_scores(model: Path, real: Domain) -> dict[str, list[float]]:
    """IoU of each box by the model's own statistics and, if it has batch norm, by those of the boxes."""
    network = load_network(model)
    found = {"model": _iou(network, real)}
    if read_config(model).normalisation == "batch":
        network.load_state_dict(target_batch_norm(network, real.volumes), strict=False)
        found["real"] = _iou(network.eval(), real)
    return found


def _iou(network: torch.nn.Module, real: Domain) -> list[float]:
    return evaluation.scores(evaluation.predict(network, real.volumes) > 0.5, real).samples


def main(ribosomes: Path, runs: Path) -> None:
    """Write the file."""
    real = load_domain(ribosomes)
    rows = [
        {**name, "statistics": statistics, "iou": round(sum(iou) / len(iou), 4), "samples": iou}
        for name, model in tqdm(networks(runs))
        for statistics, iou in model_scores(model, real).items()
    ]
    result = {"collected_by": provenance(), "note": NOTE, "n": len(real), "networks": rows}
    save_json(result, ROOT / "results" / "simulations-on-ribosomes.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
