"""Verdicts on claims, by rules that were fixed before the runs were read.

A claim says that the mean IoU of one row is above another's. With our simultaneous 95 % interval (l, u) of the difference
(:func:`~voxuda.experiments.intervals.moderated`), and the 95 % interval g ± h of the paper's gap
(:data:`~voxuda.experiments.paper.GAP_HALF_WIDTH`), the verdict is

- [Re], reproduced, if l > 0; "as large" where the two intervals overlap, else "smaller" or "larger";
- [¬Re], not reproduced, if u < 0, or if l <= 0 and u < g - h: no effect is shown, and one as large as the paper's is excluded;
- [open] otherwise, and always with one seed, which does not show how far its own rows scatter.

A verdict on fewer seeds than :func:`~voxuda.experiments.tables.planned_seeds` may still change: the intervals hold for a
number of seeds that does not depend on what the first ones say.

A gap with g - h <= 0 is marked "within the paper's own spread", whatever the verdict. A claim for which the paper prints no
numbers is never called not reproduced: it is shown (l > 0), reversed (u < 0) or not shown.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxuda.experiments.intervals import moderated
from voxuda.experiments.paper import GAP_HALF_WIDTH, PUBLISHED
from voxuda.experiments.report import differences_by_seed, in_markdown, mean_and_interval
from voxuda.experiments.sweep import collect
from voxuda.experiments.tables import TABLES, Sweep, planned_seeds


@dataclass(frozen=True)
class Claim:
    """Claim that the mean IoU of one row is above another's."""

    name: str  #: Key, ``TABLE/BETTER/WORSE``.
    text: str  #: Text on the page.
    better: str  #: Name of the row claimed to be higher.
    worse: str  #: Name of the other row.
    table: str  #: The paper's table, or ``ours``.
    paper: float | None = None  #: The paper's gap in points of IoU; ``None`` where the paper prints no numbers.


@dataclass(frozen=True)
class Verdict:
    """Verdict of our runs on a claim."""

    claim: Claim  #: The claim.
    seeds: int  #: Seeds that both rows have.
    planned: int  #: Seeds that both rows are to have; with fewer the verdict may change.
    gain: float  #: Mean difference in points of IoU.
    low: float  #: Lower end of its simultaneous 95 % interval.
    high: float  #: Upper end.
    verdict: str  #: By the rules of this module.


@dataclass(frozen=True)
class Verdicts:
    """Verdicts of our runs on all claims."""

    found: list[Verdict]  #: Verdicts on claims that have runs.
    missing: list[Claim]  #: Claims without runs.
    comparisons: int  #: Number of simultaneous intervals; claims on the same two rows share one.
    degrees: float  #: Degrees of freedom of the variances' prior, d0.
    deviation: float  #: Its standard deviation in points of IoU, s0.


# --- the claims ----------------------------------------------------------------------------------------------------


def _above(table: str, better: str, worse: str) -> Claim:
    """Make the claim of a table of the paper about two of its rows."""
    labels = {row.name: row.label for row in TABLES[table]}
    numbers = PUBLISHED.get(table)
    gap = None if numbers is None else round(numbers[better]["iou"] - numbers[worse]["iou"], 1)
    return Claim(f"{table}/{better}/{worse}", f"{labels[better]} above {labels[worse]}", better, worse, table, gap)


def _of_the_paper() -> Iterator[Claim]:
    for table, prefix in (("table1", ""), ("table2", "table2-")):
        best = f"{prefix}vox-uda"
        yield from (_above(table, best, row) for row in PUBLISHED[table] if row != best)
        yield _above(table, f"{prefix}dann", f"{prefix}source-only")
    first, second = (PUBLISHED[table][row]["iou"] for table, row in (("table1", "vox-uda"), ("table2", "table2-vox-uda")))
    text = "Vox-UDA (IBF), source of Table I above that of Table II"
    yield Claim("table2/vox-uda/table2-vox-uda", text, "vox-uda", "table2-vox-uda", "table2", round(first - second, 1))
    yield from (_above("table3", "vox-uda", row) for row in PUBLISHED["table3"] if row != "vox-uda")
    for chosen in ("n_sampled-10", "rho-0.244", "lambdas-0.2-0.2-0.3-0.3", "sigma_r-1.2"):  # sigma_d does nothing
        option = chosen.split("-")[0]
        yield from (_above("table4", chosen, row) for row in PUBLISHED["table4"] if row.startswith(option) and row != chosen)
    yield from (_above("figure7", "noise-gaussian", row) for row in ("noise-poisson", "noise-speckle"))


CLAIMS: tuple[Claim, ...] = (
    *_of_the_paper(),
    Claim("ours/vox-uda/blur-threshold", "Vox-UDA above blur and threshold", "vox-uda", "blur-threshold", "ours"),
    Claim("ours/balanced/vox-uda", "balanced Vox-UDA without adversary above Vox-UDA", "balanced", "vox-uda", "ours"),
    *(
        Claim(f"ours/self-training/{name}", f"self-training above {label}", "self-training", name, "ours")
        for name, label in (
            ("vox-uda", "Vox-UDA (IBF)"),
            ("vox-uda-bf", "Vox-UDA (BF)"),
            ("blur-threshold", "blur and threshold"),
        )
    ),
    Claim("ours/supervised/self-training", "fully supervised above self-training", "supervised", "self-training", "ours"),
)
"""The paper's claims, in the paper's direction, and ours."""


# --- the rules -----------------------------------------------------------------------------------------------------


def rule(low: float, high: float, gap: float | None) -> str:
    """Return the verdict for our interval and the paper's gap, by the rules of this module."""
    if gap is None:
        return "shown" if low > 0 else "reversed" if high < 0 else "not shown"
    least, most = gap - GAP_HALF_WIDTH, gap + GAP_HALF_WIDTH
    if low > 0:
        verdict = "[Re] " + ("smaller" if high < least else "larger" if low > most else "as large")
    elif high < 0 or high < least:
        verdict = "[¬Re]"
    else:
        verdict = "[open]"
    return verdict if least > 0 else f"{verdict}, within the paper's own spread"


def judge(sweep: Sweep, out: str | Path, claims: Sequence[Claim] | None = None) -> Verdicts:
    """Judge claims by finished runs.

    Parameters
    ----------
    sweep : Sweep
        Settings that the runs share; its table is ignored.
    out : path
        Folder of the runs.
    claims : sequence of Claim, optional
        Claims to judge, by default all; the intervals of those with runs hold simultaneously with probability 0.95.
    """
    claims = CLAIMS if claims is None else claims
    wanted = {name for claim in claims for name in (claim.better, claim.worse)}
    tables = [table for table, rows in TABLES.items() if wanted & {row.name for row in rows}]
    rows = {row["name"]: row for table in tables for row in collect(dataclasses.replace(sweep, table=table), out)["rows"]}
    pairs = {claim: (claim.better, claim.worse) for claim in claims}
    run = [pair for pair in pairs.values() if set(pair) <= rows.keys()]
    gaps = {pair: differences_by_seed(*(rows[name] for name in pair)) for pair in run}
    gaps = {pair: values for pair, values in gaps.items() if values}  # the other pairs share no seed
    several = {pair: values for pair, values in gaps.items() if len(values) > 1}
    result = moderated(list(several.values()))
    intervals = {pair: (values[0], -math.inf, math.inf) for pair, values in gaps.items()}
    intervals |= dict(zip(several, result.intervals, strict=True))
    found = [
        Verdict(claim, len(gaps[pair]), min(map(planned_seeds, pair)), gain, low, high, rule(low, high, claim.paper))
        for claim, pair in pairs.items()
        if pair in gaps
        for gain, low, high in [intervals[pair]]
    ]
    missing = [claim for claim, pair in pairs.items() if pair not in gaps]
    return Verdicts(found, missing, len(several), result.degrees, result.deviation)


# --- formatting ----------------------------------------------------------------------------------------------------


def seeds(verdict: Verdict) -> str:
    """Format the number of seeds, with the planned number while it is larger."""
    return str(verdict.seeds) if verdict.seeds >= verdict.planned else f"{verdict.seeds} of {verdict.planned}"


def markdown(judged: Verdicts) -> str:
    """Format a Markdown table with one line per claim that has runs."""
    return in_markdown(
        "| claim | where | paper's gap (95 %) | our gap (simultaneous 95 %) | seeds | verdict |",
        [
            [
                v.claim.text,
                v.claim.table,
                "no numbers" if v.claim.paper is None else f"{v.claim.paper:+.1f} ± {GAP_HALF_WIDTH:.1f}",
                mean_and_interval((v.gain, v.low, v.high), "+"),
                seeds(v),
                v.verdict,
            ]
            for v in judged.found
        ],
    )


def note(judged: Verdicts) -> str:
    """State what the intervals are based on, and which claims have no runs."""
    lines = [
        f"{len(judged.found)} claims, {judged.comparisons} comparisons; IoU in points, each row with the batch norm statistics "
        f"of its table. Moderated t, paired by seed: d0 = {judged.degrees:.1f}, s0 = {judged.deviation:.1f} points; "
        f"Bonferroni level 1 - 0.05/{judged.comparisons}."
    ]
    if few := sum(v.seeds < v.planned for v in judged.found):
        lines.append(f"{few} of the verdicts are on fewer seeds than planned, and may change.")
    if judged.missing:
        lines.append("No runs: " + "; ".join(f"{claim.text} ({claim.table})" for claim in judged.missing) + ".")
    return "\n".join(lines)
