"""What every page of a method ends with: its class, and its scores here beside the paper's."""

from __future__ import annotations

from pathlib import Path

from voxuda.experiments import report, sweep
from voxuda.experiments.paper import PUBLISHED
from voxuda.experiments.tables import TABLES, Sweep
from voxuda.methods import method_class
from voxuda.training.run_folder import RESULTS

PAGES = {
    "dann": ("dann",),
    "pdam": ("pdam",),
    "asc": ("asc", "asc-slices"),
    "le-uda": ("le-uda", "le-uda-slices"),
    "adabn": ("adabn",),
    "fda": ("fda",),
    "minent": ("minent",),
    "advent": ("advent",),
    "tent": ("tent",),
    "mean-teacher": ("mean-teacher",),
    "mic": ("mic",),
    "cbst": ("cbst",),
    "domain-randomisation": ("domain-randomisation",),
    "zero-shot": ("zero-shot",),
    "self-training": ("self-training",),
}
"""Page to names of rows of the tables table1, today and ours."""


def section(names: tuple[str, ...], results: Path = RESULTS / "laptop") -> str:
    """The end of a page: where its methods are, and a table of their scores."""
    declared = {row.name: row for table in ("table1", "today", "ours") for row in TABLES[table]}
    classes = dict.fromkeys(method_class(declared[name].method) for name in names)
    links = ", ".join(f"{{py:obj}}`{c.__name__} <{c.__module__}.{c.__name__}>`" for c in classes)
    found = {
        row["name"]: row for t in ("table1", "today", "ours") for row in sweep.collect(Sweep(t, "laptop"), results)["rows"]
    }
    rows = []
    for name in names:
        paper = PUBLISHED["table1"].get(name, {}).get("iou", "")
        seeds, ours = 0, "not run yet"
        if name in found:
            seeds, ours = len(found[name]["runs"]), report.mean_and_interval(report.scores(found.values())[name])
        rows.append([declared[name].label, str(seeds), ours, str(paper)])
    table = report.in_markdown("| | seeds | IoU here, 95 % | the paper's Table I |", rows)
    said = "Foreground IoU in percent at scale `laptop`, target by tilt series; see [every row](../../notebooks/B_every_row).\n"
    return f"**In the package:** {links}.\n\n## Scores\n\n{table}\n\n{said}"
