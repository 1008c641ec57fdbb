"""Tables as people read them: Markdown, ours beside the paper's, with intervals and with what a difference is worth."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from voxuda.experiments.intervals import difference, interval, seeds_needed, student
from voxuda.experiments.paper import PUBLISHED
from voxuda.training.config import BatchNorm

STEPS = (1, 2, 3)
"""Percent points of IoU, as the steps of the paper's ablations."""


def markdown(result: dict) -> str:
    """A collected table as Markdown: mean over seeds, and the lowest and highest, in percent."""
    columns = (("target", "iou"), ("running", "iou"), ("target", "dice"))
    return in_markdown(
        "| | IoU, batch norm of the target | IoU, running batch norm | Dice, batch norm of the target |",
        [
            [row["label"], *(mean_and_range([100 * run[kind][metric] for run in row["runs"]]) for kind, metric in columns)]
            for row in result["rows"]
        ],
    )


def in_markdown(header: str, rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells under its first line, which is given as it shall stand there."""
    rule = "|" + " --- |" * (header.count("|") - 1)
    return "\n".join([header, rule, *(f"| {' | '.join(cells)} |" for cells in rows)])


def mean_and_range(values: Sequence[float]) -> str:
    """The mean of a few values, the lowest and the highest."""
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _samples(row: dict) -> dict[int, list[float]]:
    """IoU of the samples by seed, in percent."""
    return {run["seed"]: [100 * value for value in run[row["statistics"]]["samples"]] for run in row["runs"]}


def score(row: dict) -> tuple[float, float, float]:
    """Mean IoU of a row of a collected table over seeds and samples, and its 95 % interval, in percent."""
    runs = list(_samples(row).values())
    return statistics.mean(map(statistics.mean, runs)), *interval(runs)


def gain(row: dict, reference: dict) -> tuple[float, float, float] | None:
    """Mean IoU of a row minus a reference row's and its 95 % interval, in points, paired by seed and sample; ``None`` where
    they have no seed in common."""
    theirs, mine = _paired(_samples(reference), _samples(row))
    if not mine:
        return None
    mean, ends = difference(theirs, mine)
    return mean, *ends


def _paired(a: dict[int, Any], b: dict[int, Any]) -> tuple[list, list]:
    """What two rows have for the seeds that both have."""
    seeds = sorted(a.keys() & b.keys())
    return [a[seed] for seed in seeds], [b[seed] for seed in seeds]


def gain_by_seed(row: dict, reference: dict, kind: str = "target") -> tuple[float, float, float]:
    """Mean IoU of a row minus a reference row's, both with one kind of batch norm statistics, in points, and Student's 95 %
    interval over the seeds that both have; for claims, where :func:`gain` is too sure with few seeds."""
    return student(differences_by_seed(row, reference, kind))


def differences_by_seed(row: dict, reference: dict, kind: str = "target") -> list[float]:
    """Mean IoU over samples of a row minus a reference row's, in points, for each seed that both have."""
    theirs, mine = _paired(*({run["seed"]: 100 * run[kind]["iou"] for run in each["runs"]} for each in (reference, row)))
    return [m - t for t, m in zip(theirs, mine, strict=True)]


def beside_the_paper(result: dict, reference: str) -> str:
    """A table of :func:`~voxuda.experiments.sweep.collect` as Markdown: IoU with its 95 % interval, the paper's if it is one of
    the paper's tables, the difference from the row named ``reference``, Dice, classes."""
    base = next(row for row in result["rows"] if row["name"] == reference)
    published = PUBLISHED.get(result["table"])
    classes = sorted({name for row in result["rows"] for run in row["runs"] for name in run[row["statistics"]]["classes"]})

    def cells(row: dict) -> list[tuple[str, str]]:
        """Each column's heading, and what stands in this row."""
        scores = [run[row["statistics"]] for run in row["runs"]]
        paper = [] if published is None else [published.get(row["name"], {})]
        found = None if row is base else gain(row, base)
        oracle = [run["oracle"]["iou"] for run in row["runs"] if run.get("oracle")]
        known = len(oracle) == len(scores) and row["statistics"] == "target"  # that is what the oracle looks at
        return [
            ("", row["label"]),
            ("seeds", str(len(scores))),
            ("IoU (95 %, bootstrap)", "{:.1f} ({:.1f} to {:.1f})".format(*score(row))),
            *(("paper", str(numbers.get("iou", ""))) for numbers in paper),
            (f"minus {base['label']} (95 %, bootstrap)", "{:+.1f} ({:+.1f} to {:+.1f})".format(*found) if found else ""),
            ("Dice", _mean(s["dice"] for s in scores)),
            *(("paper", str(numbers.get("dice", ""))) for numbers in paper),
            *((f"IoU {name}", _mean(s["classes"][name] for s in scores if name in s["classes"])) for name in classes),
            ("best epoch by test labels", _mean(oracle) if known else ""),
        ]

    table = [cells(row) for row in result["rows"]]
    header = " | ".join(heading for heading, _ in table[0])
    return in_markdown(f"| {header} |", [[cell for _, cell in line] for line in table])


def by_agreement(row: dict) -> BatchNorm | None:
    """The rule that chooses batch norm statistics without target labels: those with which a network's masks agree best with
    its masks of mirror images, on the mean over seeds; ``None`` of a row whose runs did not look."""
    if not all(run.get("signs") for run in row["runs"]):
        return None
    return max(get_args(BatchNorm), key=lambda kind: statistics.mean(run["signs"][kind]["agreement"] for run in row["runs"]))


def normalisations(result: dict) -> str:
    """A table of :func:`~voxuda.experiments.sweep.collect` as Markdown: IoU and agreement with mirror images for each kind of
    batch norm statistics, in percent, and what :func:`by_agreement` chooses."""
    kinds = get_args(BatchNorm)
    lines = []
    for row in result["rows"]:
        if (chosen := by_agreement(row)) is None:
            continue
        scores = {kind: [run[kind]["iou"] for run in row["runs"]] for kind in kinds}
        signs = {kind: [run["signs"][kind]["agreement"] for run in row["runs"]] for kind in kinds}
        choice = ["any"] if len({*map(tuple, scores.values())}) == 1 else [chosen]  # without batch norm all are one
        both = [_mean(values[kind]) for values in (scores, signs) for kind in kinds]
        lines.append([row["label"], str(len(row["runs"])), *both, *choice])
    names = [f"{what} {kind}" for what in ("IoU", "agreement") for kind in kinds]
    return in_markdown(f"| | seeds | {' | '.join(names)} | the rule takes |", lines)


def _mean(shares: Iterable[float]) -> str:
    """The mean in percent; nothing of nothing, for a small test part may lack a class."""
    values = [100 * share for share in shares]
    return f"{statistics.mean(values):.1f}" if values else ""


def power_note(result: dict, reference: str) -> str:
    """How much the differences from a reference row scatter from seed to seed, and how many seeds steps of 1 to 3 points need.

    The deviation is pooled over all rows with at least two seeds in common with the reference.
    """
    rows = {row["name"]: row for row in result["rows"]}
    if reference not in rows:
        return f"no run of {reference} yet, so nothing to compare with."
    variances = []
    for row in rows.values():
        theirs, mine = _paired(_samples(rows[reference]), _samples(row))
        if len(mine) > 1 and theirs != mine:
            gaps = [statistics.mean(m) - statistics.mean(t) for t, m in zip(theirs, mine, strict=True)]
            variances.append(statistics.variance(gaps))
    if not variances:
        return "fewer than two seeds: nothing can be said of the scatter from seed to seed."
    deviation = statistics.mean(variances) ** 0.5
    needed = ", ".join(f"{seeds_needed(deviation, step)} for {step}" for step in STEPS)
    return (
        f"Differences from {rows[reference]['label']} scatter by {deviation:.1f} points from seed to seed (pooled over "
        f"{len(variances)} rows). Seeds needed for Student's interval to exclude 0 with probability 0.8 at a step of that many "
        f"points: {needed}."
    )


def cpu_hours(folder: Path) -> float:
    """CPU hours of training of all finished runs below a folder: seconds times threads, by every ``summary.json``."""
    runs = [json.loads(path.read_text()) for path in folder.rglob("summary.json")]
    return sum(run["seconds"] * run["provenance"]["threads"] * run["provenance"].get("processes", 1) for run in runs) / 3600


def plain(table: str) -> str:
    """A Markdown table as aligned text, for a terminal."""
    # tabulate would do the same, but not with columns as narrow as their longest cell.
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths, strict=True))]
        for cells in (header, ["-" * width for width in widths], *rows)
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)
