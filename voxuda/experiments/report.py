"""Tables as people read them: Markdown, ours beside the paper's, with intervals and with what a difference is worth."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from voxuda.experiments.intervals import difference, interval, seeds_needed, student
from voxuda.experiments.paper import PUBLISHED

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


def _samples(row: dict) -> list[list[float]]:
    return [[100 * value for value in run[row["statistics"]]["samples"]] for run in row["runs"]]


def score(row: dict) -> tuple[float, float, float]:
    """Mean IoU of a row of a collected table over seeds and samples, and its 95 % interval, in percent."""
    samples = _samples(row)
    return statistics.mean(statistics.mean(run) for run in samples), *interval(samples)


def gain(row: dict, reference: dict) -> tuple[float, float, float] | None:
    """Mean IoU of a row minus a reference row's and its 95 % interval, in points, paired by seed and sample; ``None`` where
    they have no seed in common."""
    theirs, mine = _paired(row, reference)
    if not mine:
        return None
    mean, ends = difference(theirs, mine)
    return mean, *ends


def _paired(row: dict, reference: dict) -> tuple[list, list]:
    """The samples' scores of both rows for the seeds that both have."""
    seeds = sorted({run["seed"] for run in row["runs"]} & {run["seed"] for run in reference["runs"]})
    both = []
    for each in (reference, row):
        scores = dict(zip((run["seed"] for run in each["runs"]), _samples(each), strict=True))
        both.append([scores[seed] for seed in seeds])
    return both[0], both[1]


def gain_by_seed(row: dict, reference: dict, kind: str = "target") -> tuple[float, float, float]:
    """Mean IoU of a row minus a reference row's, both with one kind of batch norm statistics, in points, and Student's 95 %
    interval over the seeds that both have; for claims, where :func:`gain` is too sure with few seeds."""
    mine, theirs = ({run["seed"]: 100 * run[kind]["iou"] for run in each["runs"]} for each in (row, reference))
    return student([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])


def beside_the_paper(result: dict, reference: str | None = None) -> str:
    """The table as Markdown: IoU with its 95 % interval, the paper's if it is one of the paper's tables, the difference from a
    reference row, Dice, classes.

    Parameters
    ----------
    result : dict
        Of :func:`~voxuda.experiments.sweep.collect`.
    reference : str, optional
        Name of the row that differences are taken from; the first by default.
    """
    rows = {row["name"]: row for row in result["rows"]}
    base = rows.get(reference or next(iter(rows), ""))
    published = PUBLISHED.get(result["table"], {})
    classes = sorted({name for row in rows.values() for run in row["runs"] for name in run[row["statistics"]]["classes"]})
    beside = ["paper"] if published else []
    header = ["", "seeds", "IoU (95 %, bootstrap)", *beside]
    if base:
        header.append(f"minus {base['label']} (95 %, bootstrap)")
    header += ["Dice", *beside, *(f"IoU {name}" for name in classes), "best epoch by test labels"]
    lines = []
    for name, row in rows.items():
        paper = {metric: [f"{published.get(name, {}).get(metric, '')}"] if published else [] for metric in ("iou", "dice")}
        scores = [run[row["statistics"]] for run in row["runs"]]
        mean, low, high = score(row)
        cells = [row["label"], str(len(scores)), f"{mean:.1f} ({low:.1f} to {high:.1f})", *paper["iou"]]
        if base:
            cells.append(_difference(row, base))
        cells += [f"{statistics.mean(100 * s['dice'] for s in scores):.1f}", *paper["dice"]]
        for c in classes:
            found = [100 * s["classes"][c] for s in scores if c in s["classes"]]  # a small test part may lack a class
            cells.append(f"{statistics.mean(found):.1f}" if found else "")
        oracle = [100 * run["oracle"]["iou"] for run in row["runs"] if run.get("oracle")]
        known = len(oracle) == len(scores) and row["statistics"] == "target"  # that is what the oracle looks at
        lines.append([*cells, f"{statistics.mean(oracle):.1f}" if known else ""])
    return in_markdown(f"| {' | '.join(header)} |", lines)


def _difference(row: dict, base: dict) -> str:
    found = None if row is base else gain(row, base)
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*found) if found else ""


def power_note(result: dict, reference: str) -> str:
    """How much the differences from a reference row scatter from seed to seed, and how many seeds steps of 1 to 3 points need.

    The deviation is pooled over all rows with at least two seeds in common with the reference.
    """
    rows = {row["name"]: row for row in result["rows"]}
    if reference not in rows:
        return f"no run of {reference} yet, so nothing to compare with."
    variances = []
    for name, row in rows.items():
        theirs, mine = _paired(row, rows[reference])
        if name != reference and len(mine) > 1 and theirs != mine:
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
