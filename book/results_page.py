"""The page of results: the template ``results.md``, filled with what the stored runs say."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path

from voxuda.experiments import plots, report, sweep, verdicts
from voxuda.experiments.paper import GAP_HALF_WIDTH, PUBLISHED
from voxuda.experiments.tables import TABLES, Sweep
from voxuda.training.run_folder import RESULTS

RUNS = RESULTS / "laptop"
SCALE = "laptop"
SHOWN = ("source-only", "vox-uda", "supervised", "blur-threshold", "self-training")
"""Rows whose scores stand in the text."""


def rows() -> dict[str, dict]:
    """The rows of Table I, our own method and the references that have runs, by name."""
    found = {row["name"]: row for table in ("table1", "ours") for row in sweep.collect(Sweep(table, SCALE), RUNS)["rows"]}
    order = [row.name for table in ("table1", "ours", "references") for row in TABLES[table]]
    return {name: found[name] for name in dict.fromkeys(order) if name in found}


def figures() -> dict[str, str]:
    """What stands in the page, by the names in its text."""
    found, judged = rows(), verdicts.judge(Sweep("table1", SCALE), RUNS)
    scores, paper = report.scores(found.values()), PUBLISHED["table1"]
    low, high = scores["source-only"][0], scores["supervised"][0]
    closed = {name: 100 * (score[0] - low) / (high - low) for name, score in scores.items()}
    of_paper = [v for v in judged.found if v.claim.paper is not None]
    sizes = sweep.collect(Sweep("table1", SCALE), RUNS)["sizes"]
    summaries = [json.loads(path.read_text()) for path in RUNS.glob("*/seed-*/summary.json")]
    test = found["vox-uda"]["runs"][0]["n"]
    lines = [
        [
            row["label"],
            str(paper.get(name, {}).get("iou", "")),
            report.mean_and_interval(scores[name]),
            str(len(row["runs"])),
            f"{closed[name]:.0f} %",
        ]
        for name, row in found.items()
    ]
    missing = f"Not run yet: {len(judged.missing)} claims." if judged.missing else ""
    return {
        **{
            name: f"{scores[name][0]:.1f}"
            for name in ("source-only", "vox-uda", "supervised", "blur-threshold", "self-training")
        },
        "closed": f"{closed['vox-uda']:.0f}",
        "judged": str(len(of_paper)),
        "reproduced": str(sum(v.verdict.startswith("[Re]") for v in of_paper)),
        "refuted": str(sum(v.verdict.startswith("[¬Re]") for v in of_paper)),
        "open": str(sum(v.verdict.startswith("[open]") for v in of_paper)),
        "spread": f"{GAP_HALF_WIDTH:.1f}",
        "SCORES": _lines(lines),
        "CLAIMS": _lines(_claim(v) for v in of_paper if v.claim.table != "table4"),
        "CLAIMS4": _lines(_claim(v) for v in of_paper if v.claim.table == "table4"),
        "OWN": _lines(_claim(v) for v in judged.found if v.claim.paper is None),
        "MISSING": missing,
        "source": str(6 * sizes["per_source"]),
        "target": str(3 * sizes["per_target"] - test),
        "test": str(test),
        "width": str(sizes["width"]),
        "epochs": str(sizes["epochs"]),
        "batch": str(sizes["batch_size"]),
        "runs": str(len(summaries)),
        "hours": f"{report.cpu_hours(RUNS):.0f}",
        "processors": " and ".join(sorted({run["provenance"]["processor"] for run in summaries})),
    }


def _lines(cells: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _claim(verdict: verdicts.Verdict) -> list[str]:
    claim = verdict.claim
    gap = "" if claim.paper is None else f"{claim.paper:+.1f}"
    ours = report.mean_and_interval((verdict.gain, verdict.low, verdict.high), "+")
    return [claim.text, claim.table, gap, ours, str(verdict.seeds), verdict.verdict, f"`{claim.better}`, `{claim.worse}`"]


def draw(path: Path) -> None:
    """Save the figure of the page: every row's mean with its interval, and the paper's value."""
    found = rows()
    scores = report.scores(found.values())
    paper = {row["label"]: PUBLISHED["table1"][name]["iou"] for name, row in found.items() if name in PUBLISHED["table1"]}
    # A row of one or two seeds has an interval wider than the axis.
    dots = {row["label"]: scores[name] for name, row in found.items() if len(row["runs"]) > 2}
    figure = plots.interval_dots(dots, "foreground IoU on the target, %", beside=paper, beside_label="the paper's Table I")
    figure.savefig(path)


def page(text: str) -> str:
    """The page with its figures in place of ``{{NAME}}``."""
    values = figures()
    asked = set(re.findall(r"\{\{([\w-]+)\}\}", text))
    assert asked == set(values), f"the page of results asks for {asked ^ set(values)}, or does not show it"
    return re.sub(r"\{\{([\w-]+)\}\}", lambda found: values[found[1]], text)


def readme_table() -> str:
    """The table of the README: the rows of Table I and our own, shorter."""
    found = rows()
    scores, paper = report.scores(found.values()), PUBLISHED["table1"]
    cells = [[r["label"], str(paper.get(n, {}).get("iou", "")), report.mean_and_interval(scores[n])] for n, r in found.items()]
    return report.in_markdown("| | paper | ours (95 % CI) |", cells)


def seeds() -> str:
    """Fewest and most seeds of the rows that are trained, such as "2 to 10"."""
    counts = [len(row["runs"]) for row in rows().values()]
    return f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else str(statistics.mode(counts))
