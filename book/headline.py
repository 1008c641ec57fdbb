"""Keep slices of three test samples and of the masks that the main rows find in them, for the first picture of the book.

Usage: ``python book/headline.py RUNS``, where RUNS holds the first seed's weights of the rows in ``ROWS``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from real_panels import outline

from voxuda.training.domains import load_target
from voxuda.training.evaluation import iou_and_dice, predict
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import RESULTS, load_network, read_config, save_json

ROWS = ("source-only", "dann", "vox-uda", "self-training", "supervised")


def main(runs: Path) -> None:
    """For each class the sample in the middle by the IoU of Vox-UDA, in the slice with most foreground."""
    of = {row: runs / row / "seed-0" for row in ROWS}
    _, test = load_target(read_config(of["vox-uda"]))
    masks = {row: predict(load_network(run), test.volumes) > 0.5 for row, run in of.items()}
    truth = test.masks[:, 0]
    ious = {row: iou_and_dice(found, truth)[0] for row, found in masks.items()}
    samples = []
    for name in sorted(set(test.classes)):
        mine = torch.tensor([i for i, of_sample in enumerate(test.classes) if of_sample == name])
        i = int(mine[ious["vox-uda"][mine].argsort()[len(mine) // 2]])
        z = int(truth[i].sum((1, 2)).argmax())
        samples.append(
            {
                "class": name,
                "sample": i,
                "slice": z,
                "volume": [[round(float(v), 2) for v in line] for line in test.volumes[i, 0, z]],
                "truth": outline(truth[i, z]),
                "masks": {row: outline(found[i, z]) for row, found in masks.items()},
                "iou": {row: round(float(found[i]), 4) for row, found in ious.items()},
            }
        )
    made = {row: json.loads((run / "summary.json").read_text())["provenance"] for row, run in of.items()}
    save_json({"samples": samples, "seed": 0, "made": made, "collected_by": provenance()}, RESULTS / "headline.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
