"""The section of the results page on scale: does a verdict hold as networks and data grow?"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.utils.flop_counter import FlopCounterMode

from voxuda.experiments import report, sweep, verdicts
from voxuda.experiments.paper import PUBLISHED
from voxuda.experiments.tables import Sweep
from voxuda.networks.voxresnet import VoxResNet
from voxuda.training.config import SCALES, Scale
from voxuda.training.run_folder import RESULTS

ROWS = ("source-only", "dann", "vox-uda", "vox-uda-bf", "self-training", "supervised", "blur-threshold")
"""Rows of the figure and of the table."""

FOLDERS: dict[Scale, Path] = {
    "smoke": RESULTS / "smoke-tilt-series", "laptop": RESULTS / "laptop", "desk": RESULTS / "desk",
}  # fmt: skip
"""Stored runs on tilt series, from the smallest scale."""

COLOURS = ("#4e79a7", "#b07aa1", "#e15759", "#f28e2b", "#59a14f", "#333333", "#9c755f")
"""One colour per row, beside its own marker."""


@cache
def operations(scale: str) -> float:
    """Count the floating-point operations of a Vox-UDA run: per pair three student passes both ways, one teacher pass."""
    sizes = SCALES[scale]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # nothing is computed
        logits = VoxResNet(sizes["width"])(torch.zeros(1, 1, 32, 32, 32))
        forwards = counter.get_total_flops()
        logits.sum().backward()
    source = 3 * sizes["per_source"] * len(sizes["source_snr"])
    pairs = source // sizes["batch_size"] * sizes["batch_size"] * sizes["epochs"]
    return pairs * (3 * counter.get_total_flops() + forwards)


@cache
def runs() -> dict[Scale, dict[str, dict]]:
    """The rows that have stored runs on tilt series, by scale, from the smallest, and by name."""
    found: dict[Scale, dict[str, dict]] = {}
    for scale, folder in FOLDERS.items():
        tables = [sweep.collect(Sweep(table, scale, recipe="tilt-series"), folder)["rows"] for table in ("table1", "ours")]
        rows = {row["name"]: row for rows in tables for row in rows}
        if rows:
            found[scale] = {name: rows[name] for name in ROWS if name in rows}
    return found


def score_table() -> str:
    """Mean IoU of each row at each scale, and the paper's."""
    stored = runs()
    labels = {name: row["label"] for rows in stored.values() for name, row in rows.items()}
    means = {scale: report.scores(rows.values()) for scale, rows in stored.items()}
    lines = []
    for name in [name for name in ROWS if name in labels]:
        cells = [f"{means[s][name][0]:.1f} ({len(rows[name]['runs'])})" if name in rows else "" for s, rows in stored.items()]
        lines.append([labels[name], *cells, str(PUBLISHED["table1"].get(name, {}).get("iou", ""))])
    cost = [f"{operations(scale) / 1e12:.2g}" if scale == "smoke" else f"{operations(scale) / 1e12:,.0f}" for scale in stored]
    lines.append(["operations of a Vox-UDA run, TFLOP", *cost, f"{operations('paper') / 1e12:,.0f}"])
    return report.in_markdown(f"| | {' | '.join(stored)} | paper |", lines)


def judged() -> dict[verdicts.Claim, list[str]]:
    """Each claim of the paper that was judged at scales laptop and desk, with its verdict at each."""
    found = [{v.claim: v.verdict.partition(",")[0] for v in verdicts.judge(Sweep("table1", s), FOLDERS[s]).found}
             for s in runs() if s != "smoke"]  # fmt: skip
    both = [claim for claim in found[0] if claim.paper is not None and all(claim in at for at in found)]
    return {claim: [at[claim] for at in found] for claim in both} if len(found) > 1 else {}


def answer() -> str:
    """Whether the verdicts hold from laptop to desk, in a sentence."""
    if not (found := judged()):
        return "We do not know yet: no claim has been judged at scale `desk`."
    same = sum(laptop.partition(" ")[0] == desk.partition(" ")[0] for laptop, desk in found.values())
    return f"Of {len(found)} claims judged at `laptop` and at `desk`, {same} have the same verdict."


def verdict_table() -> str:
    """The verdict on each claim of the paper that was judged at scales laptop and desk; empty if there is none."""
    if not (found := judged()):
        return ""
    lines = [[claim.text, f"{claim.paper:+.1f}", *at] for claim, at in found.items()]
    return report.in_markdown("| claim | the paper's gap | verdict at laptop | verdict at desk |", lines)


def draw(path: Path) -> None:
    """Save the figure: IoU of every run against the operations of a Vox-UDA run at its scale, and the paper's at the end."""
    figure, axis = plt.subplots(figsize=(6, 3.8), dpi=150)
    stored = runs()
    labels = {name: row["label"] for rows in stored.values() for name, row in rows.items()}
    for (name, label), colour, marker in zip(labels.items(), COLOURS, "os^vDPX", strict=False):
        at = {operations(s): [100 * run[rows[name]["statistics"]]["iou"] for run in rows[name]["runs"]]
              for s, rows in stored.items() if name in rows}  # fmt: skip
        axis.plot([*at], [sum(v) / len(v) for v in at.values()], color=colour, marker=marker, label=label)
        dots = [(x, value) for x, values in at.items() for value in values]
        axis.plot(*zip(*dots, strict=True), ".", color=colour, alpha=0.4)
        if name in PUBLISHED["table1"]:
            axis.plot(operations("paper"), PUBLISHED["table1"][name]["iou"], marker, color=colour, fillstyle="none")
    axis.set(xscale="log", xlabel="FLOP of a Vox-UDA run (filled: ours, open: the paper)", ylabel="foreground IoU, %")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
