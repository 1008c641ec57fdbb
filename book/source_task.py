"""Show when the source task is learnt at all, at the paper's noise and with ten times less.

Usage: python book/source_task.py OUT [EPOCHS]. Trains source-only at the size of scale desk on 3,000 samples of one SNR, and
scores other samples of the same kind after every epoch; some ten minutes per SNR on two cores. Writes results/source-task.json.
The runs stay in OUT, and the same command continues after an interruption.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from voxuda.data.files import append_line
from voxuda.methods.base import Method
from voxuda.simulation import molecules, quick
from voxuda.simulation.quick import Subtomograms
from voxuda.simulation.samples import from_simulation, save_samples
from voxuda.training.config import SCALES, Config
from voxuda.training.evaluation import iou_and_dice, predict
from voxuda.training.loop import train, trim_log
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import RESULTS, save_json

RATIOS = (0.03, 0.05, 0.3)
HELD_OUT = 33
"""Samples of each molecule that are scored."""
SEED = 0


def source(n_per_molecule: int, snr: float, seed: int) -> Subtomograms:
    """Simulate samples of the source molecules of Table I at one SNR."""
    names = [molecules.STAND_INS.get(n, n) for n in molecules.PAPER_SOURCE_SETS["table1"]]
    return quick.simulate_source([molecules.load(n) for n in names], n_per_molecule=n_per_molecule, snr=[snr], seed=seed)


def learn(snr: float, out: Path, epochs: int, scale: str = "desk") -> list[dict]:
    """Train at one SNR; returns for each epoch its last step, mean loss and seconds, and the IoU of other samples."""
    folder, run = out / f"samples-{snr}", out / f"snr-{snr}"
    sizes = SCALES[scale]
    n = sizes["per_source"] * len(sizes["source_snr"])
    if not (folder / "samples.csv").exists():
        save_samples(source(n, snr, 1000 + SEED), folder)
    other = from_simulation(source(HELD_OUT, snr, 3000 + SEED))
    scores = run / "held-out.jsonl"

    def score_epoch(epoch: int, method: Method) -> None:
        trim_log(scores, epoch - 1)
        iou = iou_and_dice(predict(method.student, other.volumes) > 0.5, other.masks[:, 0])[0].numpy().mean()
        append_line(json.dumps({"epoch": epoch, "iou": round(float(iou), 4)}), scores)

    half = "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"
    config = Config(
        "source-only", scale, source=str(folder), epochs=epochs, normalisation="group", seed=SEED, precision=half
    )  # fmt: skip
    train(config, run, resume=True, after_epoch=score_epoch)
    steps = 3 * n // sizes["batch_size"]
    lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in (run / "log.jsonl", scores)]
    return [
        {
            "step": steps * score["epoch"],
            "loss": round(line["seg"], 4),
            "iou": score["iou"],
            "seconds": round(line["seconds"], 1),
        }
        for line, score in zip(*lines, strict=True)
    ]


def main(out: Path, epochs: int = 12) -> None:
    """Train at every SNR, and keep the curves."""
    curves = [{"snr": snr, "epochs": learn(snr, out, epochs)} for snr in RATIOS]
    sizes = {**SCALES["desk"], "epochs": epochs, "source_snr": RATIOS}
    about = {"method": "source-only", "normalisation": "group", "seed": SEED, "held_out": 3 * HELD_OUT}
    save_json({**about, "sizes": sizes, "curves": curves, "collected_by": provenance()}, RESULTS / "source-task.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
