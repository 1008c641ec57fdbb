"""Tables as Markdown, our numbers beside the paper's, with intervals, and the seeds that a difference needs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from voxuda.experiments.intervals import moderated, seeds_needed
from voxuda.experiments.paper import PUBLISHED
from voxuda.experiments.tables import REFERENCES
from voxuda.simulation.names import COMMON_NAMES
from voxuda.training.config import BatchNorm

STEPS = (1, 2, 3)
"""Differences of IoU in percentage points, as large as the steps of the paper's ablations."""


def markdown(result: dict) -> str:
    """Format a collected table as Markdown, with mean, lowest and highest over seeds in percent."""
    lines = []
    for row in result["rows"]:
        of = [run[row["statistics"]] for run in row["runs"]]
        lines.append([row["label"], *(mean_and_range([100 * scores[metric] for scores in of]) for metric in ("iou", "dice"))])
    return in_markdown("| | IoU | Dice |", lines)


def in_markdown(header: str, rows: Sequence[Sequence[str]]) -> str:
    """Format rows of cells as a Markdown table below ``header``, its complete first line."""
    rule = "|" + " --- |" * (header.count("|") - 1)
    return "\n".join([header, rule, *(f"| {' | '.join(cells)} |" for cells in rows)])


def mean_and_range(values: Sequence[float]) -> str:
    """Format the mean of a few values with the lowest and the highest, or a single value."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def mean_and_interval(found: tuple[float, float, float] | None, sign: str = "") -> str:
    """Format a mean and its interval, as differences with ``sign="+"``; only the mean if the interval is infinite."""
    if found is None:
        return ""
    mean, low, high = (f"{value:{sign}.1f}" for value in found)
    return f"{mean} ({low} to {high})" if math.isfinite(found[1]) else mean


def _by_seed(row: dict) -> dict[int, float]:
    """IoU of a row's runs in percent, by seed, with the row's batch norm statistics."""
    return {run["seed"]: 100 * run[row["statistics"]]["iou"] for run in row["runs"]}


def differences_by_seed(row: dict, reference: dict) -> list[float]:
    """Subtract a reference row's IoU from a row's, in points, for each seed that both have."""
    mine, theirs = _by_seed(row), _by_seed(reference)
    return [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]


def _moderated(claims: dict[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """Compute moderated-t intervals of claims by name, not simultaneous; claims on the same runs count once in the prior.

    A claim on one run has an infinite interval: the prior's is that of other rows, and this row may scatter more.
    """
    unique = list({tuple(values): None for values in claims.values()})
    found = dict(zip(unique, moderated(unique, family=1).intervals, strict=True))
    found |= {values: (values[0], -math.inf, math.inf) for values in unique if len(values) == 1}
    return {name: found[tuple(values)] for name, values in claims.items()}


def scores(rows: Iterable[dict]) -> dict[str, tuple[float, float, float]]:
    """Compute mean IoU over seeds of each row of a collected table, by name, and its 95 % interval, in percent.

    The intervals are :func:`~voxuda.experiments.intervals.moderated`: all rows share a prior, and each interval holds on its
    own, not simultaneously. That of a row with one seed is infinite.
    """
    return _moderated({row["name"]: list(_by_seed(row).values()) for row in rows})


def gains(rows: Iterable[dict], reference: dict) -> dict[str, tuple[float, float, float]]:
    """Compute mean IoU of each row minus a reference row's, by name, and its 95 % interval, in points, paired by seed.

    The intervals are those of :func:`scores`. Rows that share no seed with the reference, or show its runs, are left out.
    """
    gaps = {row["name"]: differences_by_seed(row, reference) for row in rows}
    return _moderated({name: values for name, values in gaps.items() if any(values)})


def beside_the_paper(result: dict, reference: str) -> str:
    """Format a table of :func:`~voxuda.experiments.sweep.collect` as Markdown, with the paper's numbers if it has the table.

    The columns include IoU with its 95 % interval, the difference from the row named ``reference`` over common seeds, with
    their number where the row has more, Dice, and IoU by class.
    """
    base = next(row for row in result["rows"] if row["name"] == reference)
    published = PUBLISHED.get(result["table"])
    ours, over = scores(result["rows"]), gains(result["rows"], base)
    classes = sorted({name for row in result["rows"] for run in row["runs"] for name in run[row["statistics"]]["classes"]})

    def cells(row: dict) -> list[tuple[str, str]]:
        """Return each column's heading and this row's cell."""
        runs = [run[row["statistics"]] for run in row["runs"]]
        paper = [] if published is None else [published.get(row["name"], {})]
        # Scores of each epoch have the target's statistics.
        oracle = [run["oracle"]["iou"] for run in row["runs"] if run.get("oracle")]
        known = len(oracle) == len(runs) and all(run[row["statistics"]]["iou"] == run["target"]["iou"] for run in row["runs"])
        common = len(differences_by_seed(row, base))
        few = f", {common} seeds" if row["name"] in over and common < len(runs) else ""
        return [
            ("", row["label"]),
            ("seeds", str(len(runs))),
            ("IoU (95 %, moderated t)", mean_and_interval(ours[row["name"]])),
            *(("paper", str(numbers.get("iou", ""))) for numbers in paper),
            (f"minus {base['label']}, common seeds (95 %)", mean_and_interval(over.get(row["name"]), "+") + few),
            ("Dice", _mean(s["dice"] for s in runs)),
            *(("paper", str(numbers.get("dice", ""))) for numbers in paper),
            *((f"IoU {COMMON_NAMES.get(c, c)}", _mean(s["classes"][c] for s in runs if c in s["classes"])) for c in classes),
            ("best epoch by test labels", _mean(oracle) if known else ""),
        ]

    table = [cells(row) for row in result["rows"]]
    header = " | ".join(heading for heading, _ in table[0])
    return in_markdown(f"| {header} |", [[cell for _, cell in line] for line in table])


def by_agreement(row: dict) -> BatchNorm | None:
    """Choose batch norm statistics without target labels.

    The choice is the kind for which a network's masks agree best with its masks of mirror images, averaged over seeds;
    ``None`` if the row's runs did not measure the agreement.
    """
    if not all(run.get("signs") for run in row["runs"]):
        return None
    return max(get_args(BatchNorm), key=lambda kind: statistics.mean(run["signs"][kind]["agreement"] for run in row["runs"]))


def normalisations(result: dict) -> str:
    """Format a table of :func:`~voxuda.experiments.sweep.collect` as Markdown, by kind of batch norm statistics.

    The columns are IoU and agreement with mirror images in percent for each kind, and the choice of :func:`by_agreement`.
    """
    kinds = get_args(BatchNorm)
    lines = []
    for row in result["rows"]:
        if (chosen := by_agreement(row)) is None:
            continue
        ious = [[run[kind]["iou"] for run in row["runs"]] for kind in kinds]
        signs = [[run["signs"][kind]["agreement"] for run in row["runs"]] for kind in kinds]
        choice = "any" if ious.count(ious[0]) == len(kinds) else chosen  # without batch norm all kinds are equal
        lines.append([row["label"], str(len(row["runs"])), *map(_mean, ious + signs), choice])
    names = [f"{what} {kind}" for what in ("IoU", "agreement") for kind in kinds]
    return in_markdown(f"| | seeds | {' | '.join(names)} | the rule takes |", lines)


def _mean(shares: Iterable[float]) -> str:
    """Format the mean in percent; empty without values, since a small test part may lack a class."""
    values = [100 * share for share in shares]
    return f"{statistics.mean(values):.1f}" if values else ""


def power_note(result: dict, reference: str) -> str:
    """State how much differences from a reference row vary between seeds, and how many seeds steps of 1 to 3 points need.

    The variance is pooled, by degrees of freedom, over all trained rows with at least two seeds in common with the reference,
    rows that show the same runs once.
    """
    rows = {row["name"]: row for row in result["rows"]}
    if reference not in rows:
        return f"no run of {reference} yet, so nothing to compare with."
    untrained = {row.method for row in REFERENCES}
    gaps = [differences_by_seed(row, rows[reference]) for row in rows.values() if row["method"] not in untrained]
    # Rows that show the same runs count once.
    several = list({tuple(values): values for values in gaps if len(values) > 1 and any(values)}.values())
    if not several:
        return f"no trained row has two seeds in common with {reference}, so the scatter from seed to seed is unknown."
    squares = sum((len(values) - 1) * statistics.variance(values) for values in several)
    deviation = (squares / sum(len(values) - 1 for values in several)) ** 0.5
    needed = ", ".join(f"{seeds_needed(deviation, step)} for {step}" for step in STEPS)
    return (
        f"Differences from {rows[reference]['label']} scatter by {deviation:.1f} points from seed to seed (pooled over "
        f"{len(several)} rows). Seeds needed for Student's interval to exclude 0 with probability 0.8 at a step of that many "
        f"points: {needed}."
    )


def cpu_hours(folder: Path) -> float:
    """Sum the CPU hours of training (seconds times threads times processes) over every ``summary.json`` below a folder."""
    runs = [json.loads(path.read_text()) for path in folder.rglob("summary.json")]
    return sum(run["seconds"] * run["provenance"]["threads"] * run["provenance"].get("processes", 1) for run in runs) / 3600


def plain(table: str) -> str:
    """Format a Markdown table as aligned text for a terminal."""
    # tabulate cannot make columns as narrow as their longest cell.
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths, strict=True))]
        for cells in (header, ["-" * width for width in widths], *rows)
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)
