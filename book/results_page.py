"""The page of results: the template ``results.md``, filled with what the stored runs say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import scales
import trusting
from scipy.ndimage import gaussian_filter

from voxuda.experiments import plots, report, sweep, verdicts
from voxuda.experiments.paper import GAP_HALF_WIDTH, PUBLISHED
from voxuda.experiments.tables import TABLES, Sweep
from voxuda.training.config import SCALES
from voxuda.training.run_folder import RESULTS

RUNS = RESULTS / "laptop"
SCALE = "laptop"
STORED = sorted(RESULTS.glob(f"{SCALE}*/"))
"""The folders of all stored runs of this scale, on each simulated target."""
BARS = {"dann", "pdam", "le-uda", "vox-uda-ngm", "vox-uda-bf", "vox-uda", "self-training", "blur-threshold", "ball"}
"""Rows of the figure on the landing page."""
WHERE = {"table1": "I", "table2": "II", "table3": "III", "table4": "IV", "figure7": "Fig 7", "ours": ""}
"""Where the paper makes a claim."""
FOLDER_OF = {row.name: row.runs or row.name for rows in TABLES.values() for row in rows}
"""The folder of each row's runs."""
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
SHOWN = ("source-only", "vox-uda", "supervised", "blur-threshold", "ball", "self-training")
"""Rows whose scores stand in the text."""


def rows() -> dict[str, dict]:
    """The rows of Table I, our own method and the references that have runs, by name."""
    found: dict[str, dict] = {}
    for table in ("table1", "ours"):
        for row in sweep.collect(Sweep(table, SCALE), RUNS)["rows"]:
            found.setdefault(row["name"], row)
    order = [row.name for table in ("table1", "ours", "references") for row in TABLES[table]]
    return {name: found[name] for name in dict.fromkeys(order) if name in found}


def figures() -> dict[str, str]:
    """What stands in the page, by the names in its text."""
    found, judged = rows(), verdicts.judge(Sweep("table1", SCALE), RUNS)
    scores, paper = report.scores(found.values()), PUBLISHED["table1"]
    shares = closed(found)
    of_paper = [v for v in judged.found if v.claim.paper is not None]
    sizes = Sweep("table1", SCALE).sizes()
    summaries = [json.loads(path.read_text()) for folder in STORED for path in folder.glob("*/seed-*/summary.json")]
    test = found["vox-uda"]["runs"][0]["n"]
    lines = [
        [
            row["label"],
            str(paper.get(name, {}).get("iou", "")),
            _score(row, scores[name]),
            str(len(row["runs"])),
            f"{round(shares[name])} %",
        ]
        for name, row in found.items()
    ]
    few = sum(v.seeds < v.planned for v in judged.found)
    choices = {row["name"]: row for row in sweep.collect(Sweep("sensitivity", SCALE), RUNS)["rows"]}
    choices = {name: choices[name] for name in ("window-5", "ema-0.9")}
    chosen = {name: score[0] for name, score in report.scores(choices.values()).items()}
    assert all(min(report.differences_by_seed(row, found["vox-uda"])) > 10 for row in choices.values()), "as the page says"
    missing = f"Not run yet: {'; '.join(_with_table(claim) for claim in judged.missing)}." if judged.missing else ""
    return {
        **{name: f"{scores[name][0]:.1f}" for name in SHOWN},
        "closed": f"{shares['vox-uda']:.0f}",
        "ceiling": f"{100 * np.mean([run['best_with_labels'] for run in found['blur-threshold']['runs']]):.0f}",
        "window-5": f"{chosen['window-5']:.0f} % ({len(choices['window-5']['runs'])} seeds)",
        "decay": f"{chosen['ema-0.9']:.0f} % ({len(choices['ema-0.9']['runs'])} seeds)",
        "snr": " and ".join(map(str, sizes["source_snr"])),
        "paper_snr": " and ".join(map(str, SCALES["paper"]["source_snr"])),
        "single": str(sum(v.verdict.startswith("[open]") and v.seeds == 1 for v in of_paper)),
        "judged": str(len(of_paper)),
        "reproduced": str(sum(v.verdict.startswith("[Re]") for v in of_paper)),
        "refuted": str(sum(v.verdict.startswith("[¬Re]") for v in of_paper)),
        "open": str(sum(v.verdict.startswith("[open]") for v in of_paper)),
        "FEW": f"Verdicts on fewer, as the table says, may still change: {few}." if few else "",
        "ANSWER": scales.answer(),
        "within": str(sum(v.verdict.startswith("[Re]") and "spread" in v.verdict for v in of_paper)),
        "spread": f"{GAP_HALF_WIDTH:.1f}",
        "SCORES": _lines(lines),
        "CLAIMS": _lines(_claim(v) for v in of_paper if v.claim.table != "table4"),
        "CLAIMS4": _lines(_claim(v) for v in of_paper if v.claim.table == "table4"),
        "OWN": _lines(_claim(v) for v in judged.found if v.claim.paper is None),
        "MISSING": missing,
        "REAL": on_real_data(),
        "OTHERS": on_other_targets(),
        "SCALES": scales.score_table(),
        "VERDICTS": scales.verdict_table(),
        "source": str(6 * sizes["per_source"]),
        "target": str(3 * sizes["per_target"] - test),
        "test": str(test),
        "width": str(sizes["width"]),
        "epochs": str(sizes["epochs"]),
        "batch": str(sizes["batch_size"]),
        "runs": str(len(summaries)),
        "hours": f"{sum(report.cpu_hours(folder) for folder in STORED):.0f}",
        "processors": " and ".join(sorted({run["provenance"]["processor"] for run in summaries})),
    }


def _with_table(claim: verdicts.Claim) -> str:
    return f"{claim.text} ({WHERE[claim.table] or 'ours'})"


def _score(row: dict, found: tuple[float, float, float]) -> str:
    """A mean with its interval; of one run the score alone, for its interval would be that of other rows."""
    return report.mean_and_interval(found) if len(row["runs"]) > 1 else f"{found[0]:.1f} (one seed)"


def _lines(cells: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _claim(verdict: verdicts.Verdict) -> list[str]:
    claim = verdict.claim
    gap = "" if claim.paper is None else f"{claim.paper:+.1f}"
    ours = report.mean_and_interval((verdict.gain, verdict.low, verdict.high), "+")
    said = verdict.verdict.replace(", within the paper's own spread", " †")
    seeds = verdicts.seeds(verdict)
    if repository := os.environ.get("VOXUDA_REPOSITORY"):  # only who publishes knows it
        seeds = f"[{seeds}]({repository}/tree/main/results/{SCALE}/{FOLDER_OF[claim.better]})"
    return [claim.text, said, gap, ours, seeds, WHERE[claim.table]]


def draw(path: Path) -> None:
    """Save the figure of the page: every row's mean with its interval, and the paper's value."""
    found = rows()
    scores = report.scores(found.values())
    paper = {row["label"]: PUBLISHED["table1"][name]["iou"] for name, row in found.items() if name in PUBLISHED["table1"]}
    # A row of one or two seeds has an interval wider than the axis.
    dots = {row["label"]: scores[name] for name, row in found.items() if len(row["runs"]) > 2}
    figure = plots.interval_dots(dots, "foreground IoU on the target, %", beside=paper, beside_label="the paper's Table I")
    figure.savefig(path, bbox_inches="tight")  # the legend is wider than the axis


def draw_headline(path: Path) -> None:
    """Save the figure of the landing page: masks of one sample, and the share of the gap that each row closes."""
    sample = json.loads((RESULTS / "headline.json").read_text())["samples"][-1]
    volume, truth = gaussian_filter(np.array(sample["volume"]), 1), _mask(sample["truth"])
    masks = {"no adaptation": "source-only", "Vox-UDA": "vox-uda", "self-training": "self-training"}
    panels = {title: _mask(sample["masks"][name]) for title, name in masks.items()} | {"truth": truth}
    figure = plt.figure(figsize=(5.4, 4.6), dpi=150, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.9))
    low, high = np.percentile(volume, (1, 99))
    for axis, (title, mask) in zip(top.subplots(1, 4), panels.items(), strict=True):
        axis.imshow(volume, cmap="gray", vmin=low, vmax=high, origin="lower")
        axis.contour(mask, [0.5], colors=plots.MASK_COLOUR, linewidths=2)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    found = rows()
    shares = closed(found)
    names = sorted(BARS & found.keys(), key=lambda name: shares[name])
    few = {name: " (one seed)" if len(found[name]["runs"]) == 1 else "" for name in names}
    labels = [found[name]["label"].partition(", random")[0] + few[name] for name in names]
    axis = bottom.subplots()
    axis.barh(labels, [shares[name] for name in names], color=plots.TRUTH_COLOUR)
    axis.set(xlabel="share of the gap closed, %", xlim=(min(-10, *(shares[name] for name in names)), 100))
    axis.axvline(0, color="black", linewidth=0.8)
    figure.savefig(path)
    plt.close(figure)


def _mask(lines: list[str]) -> np.ndarray:
    return np.array([[value == "1" for value in line] for line in lines], dtype=float)


def closed(found: dict[str, dict]) -> dict[str, float]:
    """Share of the gap between no adaptation and full supervision that each row closes, over common seeds, in percent."""
    iou = {name: {run["seed"]: run[row["statistics"]]["iou"] for run in row["runs"]} for name, row in found.items()}

    def share(name: str) -> float:
        common = iou[name].keys() & iou["source-only"].keys() & iou["supervised"].keys()
        low, mid, high = (np.mean([iou[n][seed] for seed in common]) for n in ("source-only", name, "supervised"))
        return 100 * (mid - low) / (high - low)

    return {name: share(name) for name in found}


def headline() -> str:
    """The sentence of the landing page about what came out."""
    found = rows()
    scores, shares = report.scores(found.values()), closed(found)
    steps = [scores[name][0] for name in ("source-only", "vox-uda", "self-training", "supervised")]
    assert steps == sorted(steps), "the sentence of the landing page is not so any more"
    seeds = min(len(found[name]["runs"]) for name in ("source-only", "vox-uda", "self-training", "supervised"))
    return (
        f"On held-out samples of the simulated target, a network without adaptation reaches {steps[0]:.0f} % IoU, Vox-UDA"
        f" {steps[1]:.0f} %, our self-training {steps[2]:.0f} %, and training with target labels {steps[3]:.0f} % (at least"
        f" {seeds} seeds, small networks). Vox-UDA closes {shares['vox-uda']:.0f} % of the gap."
    )


def on_real_data() -> str:
    """The sentences about the microtubule and the ribosomes."""
    names = ("microtubule", "simulations-on-ribosomes", "real-laptop")
    tubule, boxes, real = (json.loads((RESULTS / f"{name}.json").read_text()) for name in names)

    def wall(row: str, statistics: str = "model") -> str:
        asked = {"row": row, "normalise": "tile", "batch_norm": statistics, "flips": False}
        return f"{100 * np.mean([m['iou'] for m in tubule['models'] if m.items() >= asked.items()]):.0f} %"

    blur = 100 * max(row["iou_same_size"] for row in tubule["blur"])

    def found(row: str, statistics: str = "model") -> float:
        return float(
            np.mean([100 * n["iou"] for n in boxes["networks"] if (n.get("row"), n["statistics"]) == (row, statistics)])
        )

    runs = {row["name"].removeprefix("real-"): row["runs"] for row in real["rows"]}
    mean = {name: 100 * np.mean([run["target"]["iou"] for run in of]) for name, of in runs.items()}
    blind = [name for name, of in runs.items() if of[0]["oracle"] and name != "supervised"]
    simulated = {
        (n["row"], n["statistics"]) for n in boxes["networks"] if not n.get("row", "supervised").startswith("supervised")
    }
    best = max(*(mean[name] for name in blind), *(found(*key) for key in simulated))
    return (
        f"On a real microtubule Vox-UDA has {wall('vox-uda')} IoU with the wall, the network without adaptation"
        f" {wall('source-only')}, self-training {wall('self-training')}, and a blur that is told the size of the wall"
        f" {blur:.0f} %. Normalisation matters more here: batch norm with statistics measured on the tomogram itself, which"
        f" needs no labels, gives {wall('source-only-batch', 'volume')} without adaptation and"
        f" {wall('vox-uda-batch', 'volume')} with Vox-UDA."
        f" On {boxes['n']} real ribosomes, networks that saw only simulations have {found('source-only'):.0f} %"
        f" without adaptation, {found('vox-uda'):.0f} % by Vox-UDA and {found('self-training'):.0f} % by self-training."
        f" No method without target labels exceeds {best:.0f} % on average. A network trained with labels of simulated cells"
        f" has {found('supervised'):.0f} %, a ball in the middle of the box {mean['ball']:.0f} %"
    )


def on_other_targets() -> str:
    """The sentences about the two targets that are simulated in other ways."""
    mean: dict[str, dict[str, float]] = {}
    seeds: set[int] = set()
    for recipe in ("phase-plate", "convolution"):
        found = sweep.collect(Sweep("ours", SCALE, recipe=recipe), RESULTS / f"{SCALE}-{recipe}")["rows"]
        mean[recipe] = {row["name"]: score[0] for row, score in zip(found, report.scores(found).values(), strict=True)}
        assert mean[recipe]["self-training"] < mean[recipe]["vox-uda"], "the sentence is not so any more"
        seeds.update(len(row["runs"]) for row in found)
    plate, quick = mean["phase-plate"], mean["convolution"]
    return (
        f"On targets simulated in other ways the gap differs (at least {min(seeds)} seeds). Near focus with a phase plate it is"
        f" small: {plate['source-only']:.0f} % without adaptation, {plate['vox-uda']:.0f} % with Vox-UDA,"
        f" {plate['supervised']:.0f} % with full supervision. With few neighbours around each molecule (the *quick target*) the"
        f" three have {quick['source-only']:.0f}, {quick['vox-uda']:.0f} and {quick['supervised']:.0f} %. On neither is"
        f" self-training better than Vox-UDA"
    )


def page(text: str) -> str:
    """The page with its figures."""
    return trusting.fill(text, figures())


def readme_table() -> str:
    """The table of the README: the rows of Table I and our own, shorter."""
    found = rows()
    scores, paper = report.scores(found.values()), PUBLISHED["table1"]
    cells = [[r["label"], str(paper.get(n, {}).get("iou", "")), _score(r, scores[n])] for n, r in found.items()]
    return report.in_markdown("| | paper | ours (95 % CI) |", cells)


def with_table(readme: str) -> str:
    """The README with the table of today's runs between its marks."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{readme_table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":  # after new runs
    path = RESULTS.parent / "README.md"
    path.write_text(with_table(path.read_text()))
