"""Tables of runs: declared here, run one by one or side by side, resumed, collected."""

from __future__ import annotations

import dataclasses
import json
import statistics
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from voxuda.evaluation import evaluate_run
from voxuda.methods import VoxUDAOptions
from voxuda.runs import SCALES, BatchNorm, Config, Recipe, Scale, is_run_of, provenance, read_record, save_json
from voxuda.training import train
from voxuda.volumes import InputError


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Parameters
    ----------
    name : str
        Folder and key.
    label : str
        What the page shows.
    method : str
        Name of the method.
    options : dict
        Fields of :class:`VoxUDAOptions` that differ from the paper's.
    recipe : str
        How the target is simulated where no folder is given.
    """

    name: str
    label: str
    method: str = "vox-uda"
    options: dict = field(default_factory=dict)
    recipe: Recipe = "convolution"

    def config(self, scale: Scale, seed: int, target: str | None = None) -> Config:
        """The configuration of this row's run of one seed, on a target folder or a simulated target."""
        options = VoxUDAOptions(**self.options)
        statistics_of: BatchNorm = "running" if self.method == "zero-shot" else "target"  # it has no target to measure
        return Config(
            self.method, scale, target=target, recipe=self.recipe, batch_norm=statistics_of, seed=seed, vox_uda=options
        )


_ALONE = dict(noise="none", adversary=0.0)
_BALANCED = dict(pseudo="balanced", adversary=0.0)

_MAIN = (
    Row("source-only", "source-only", "source-only"),
    Row("zero-shot", "zero-shot (noise of random level)", "zero-shot"),
    Row("dann", "DANN", "dann"),
    Row("ngm", "NGM alone", options=dict(pseudo="none", adversary=0.0)),
    Row("pl-ibf", "pseudo-labels, IBF", options=_ALONE),
    Row("vox-uda", "Vox-UDA (paper's settings)"),
    Row("ours", "Vox-UDA, balanced, no adversary", options=_BALANCED),
    Row("supervised", "supervised on target", "supervised"),
)

TABLES: dict[str, tuple[Row, ...]] = {
    "modules": (
        Row("source-only", "source-only", "source-only"),
        Row("dann", "DANN", "dann"),
        Row("ngm", "NGM alone", options=dict(pseudo="none", adversary=0.0)),
        Row("pl-none", "pseudo-labels, not denoised", options=dict(**_ALONE, denoiser="none")),
        Row("pl-ibf", "pseudo-labels, IBF", options=_ALONE),
        Row(
            "pl-balanced-none", "balanced pseudo-labels, not denoised", options=dict(_ALONE, pseudo="balanced", denoiser="none")
        ),
        Row("pl-balanced", "balanced pseudo-labels, IBF", options=dict(_ALONE, pseudo="balanced")),
        Row("vox-uda", "Vox-UDA (paper's settings)"),
        Row("vox-uda-no-adversary", "Vox-UDA without adversary", options=dict(adversary=0.0)),
        Row("vox-uda-balanced", "Vox-UDA, balanced", options=dict(pseudo="balanced")),
        Row("ours", "Vox-UDA, balanced, no adversary", options=_BALANCED),
        Row("supervised", "supervised on target", "supervised"),
    ),
    "share": (
        Row("share-02", "share 0.02", options=dict(_BALANCED, share=0.02)),
        Row("ours", "share 0.05", options=_BALANCED),
        Row("share-10", "share 0.10", options=dict(_BALANCED, share=0.10)),
        Row("share-source", "share of the source masks", options=dict(_BALANCED, share=None)),
    ),
    "tilt-series": tuple(dataclasses.replace(row, name=f"tilt-{row.name}", recipe="tilt-series") for row in _MAIN),
    "real": tuple(dataclasses.replace(row, name=f"real-{row.name}") for row in _MAIN),
}
"""Declared tables.

``modules``: which part of Vox-UDA closes how much of the gap. ``share``: what the balanced variant's prior is worth.
``tilt-series``: the main methods on the target by tilt series. ``real``: the same on a folder of real subtomograms.
"""


def select(table: str, only: list[str] | None = None) -> list[Row]:
    """The rows of a table, or those named.

    Raises
    ------
    InputError
        Unknown table or row.
    """
    if table not in TABLES:
        raise InputError(f"{table}: no such table; choose from {', '.join(TABLES)} and ladder.")
    rows = TABLES[table]
    unknown = set(only or []) - {row.name for row in rows}
    if unknown:
        raise InputError(f"{', '.join(sorted(unknown))}: no such row; choose from {', '.join(row.name for row in rows)}.")
    return [row for row in rows if not only or row.name in only]


def reproduce(
    table: str,
    out: str | Path,
    *,
    scale: Scale = "smoke",
    seeds: int = 1,
    only: list[str] | None = None,
    jobs: int = 1,
    target: str | None = None,
) -> dict:
    """Run a table and write ``OUT/TABLE-SCALE.json``; finished runs are kept, interrupted ones go on.

    Parameters
    ----------
    table : str
        Name of the table.
    out : path
        Folder of the runs, ``OUT/ROW/seed-K``.
    scale : str
        Sizes, see ``SCALES``.
    seeds : int
        Runs of each row, with seeds 0, 1, …
    only : list of str, optional
        Names of rows.
    jobs : int
        Runs side by side, each on its share of the processor's cores.
    target : str, optional
        Folder with the target samples of all runs; each seed tests on other ones of them. Simulated when absent.

    Returns
    -------
    dict
        See :func:`collect`.
    """
    if seeds < 1 or jobs < 1:
        raise InputError(f"seeds is {seeds} and jobs is {jobs}; both must be at least 1.")
    out = Path(out)
    rows = select(table, only)
    if table == "tilt-series" and target is not None:
        raise InputError("the table tilt-series simulates its target; leave --target away, or choose the table real.")
    if table == "real" and target is None:
        raise InputError("the table real needs --target, a folder of real subtomograms such as `voxuda data ribosomes` makes.")
    runs = [
        (row.label, seed, row.config(scale, seed, target), run_folder(out, row, seed)) for seed in range(seeds) for row in rows
    ]
    todo = [run for run in runs if not _finished(run[2], run[3])]
    threads = max(1, torch.get_num_threads() // jobs)
    with (
        tqdm(total=len(runs), initial=len(runs) - len(todo), unit="run", desc=f"{table}, {scale}") as bar,
        in_processes(jobs) as pool,
    ):
        pending = {pool.submit(_run, config, folder, threads): (label, seed) for label, seed, config, folder in todo}
        try:
            for done in as_completed(pending):
                label, seed = pending[done]
                bar.write(f"{label}, seed {seed}: IoU {100 * done.result():.1f} %")
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # do not start the runs that wait
            raise
    result = collect(table, out, scale=scale, target=target)
    save_json(result, out / f"{table}-{scale}.json")
    return result


def in_processes(jobs: int) -> Executor:
    """Worker processes for runs side by side."""
    # Spawned, since a fork of a process that has used OpenMP hangs.
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))


def run_folder(out: Path, row: Row, seed: int) -> Path:
    """Where a row's run of one seed stands."""
    return out / row.name / f"seed-{seed}"


def _finished(config: Config, folder: Path) -> bool:
    """Whether a run is trained and scored on its own test samples; refuses a run of another configuration."""
    if not (folder / "scores.json").exists():
        return False
    if not is_run_of(folder, config):
        raise InputError(f"{folder}: was made with another configuration than its row has now; choose another --out.")
    return json.loads((folder / "scores.json").read_text())["target"] is None


def _run(config: Config, folder: Path, threads: int) -> float:
    """Train and score one run in a process of its own."""
    torch.set_num_threads(threads)
    train(config, folder, resume=True, progress=False)
    return evaluate_run(folder)["iou"]


def collect(table: str, out: str | Path, *, scale: Scale, target: str | None = None) -> dict:
    """Gather the scores of all finished runs of a table.

    Returns
    -------
    dict
        ``table``, ``scale``, ``target`` (name of its folder), ``sizes``, ``seeds`` (the most that a row has), ``collected_by``
        (code and hardware of this call) and ``rows``; a row has its ``name``, ``label``, ``method``, ``options`` and ``runs``.
        A run, one a seed, has ``n`` test samples, the ``seconds`` and the ``provenance`` of its training, and for both kinds of
        batch norm statistics IoU, Dice, the IoU of each sample, pooled IoU, IoU by class and foreground share.
    """
    out = Path(out)
    collected = []
    for row in select(table):
        found = sorted(int(p.name.removeprefix("seed-")) for p in (out / row.name).glob("seed-*"))
        seeds = [seed for seed in found if _finished(row.config(scale, seed, target), run_folder(out, row, seed))]
        if seeds:
            runs = [_summary(run_folder(out, row, seed), seed) for seed in seeds]
            collected.append({"name": row.name, "label": row.label, "method": row.method, "options": row.options, "runs": runs})
    return {
        "table": table,
        "scale": scale,
        "target": None if target is None else Path(target).name,
        "sizes": SCALES[scale],
        "seeds": max((len(row["runs"]) for row in collected), default=0),
        "collected_by": provenance(),
        "rows": collected,
    }


def _summary(folder: Path, seed: int) -> dict:
    """What a table keeps of a run."""
    scores = json.loads((folder / "scores.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    kept = {
        kind: {
            "iou": s["overall"]["iou"],
            "dice": s["overall"]["dice"],
            "samples": s["samples"],
            "pooled_iou": s["pooled"]["iou"],
            "classes": {name: values["iou"] for name, values in s["classes"].items()},
            "foreground_share": s["foreground_share"],
        }
        for kind, s in scores["by_batch_norm"].items()
    }
    seconds = round(sum(line["seconds"] for line in log), 1)
    return {
        "seed": seed,
        "n": scores["overall"]["n"],
        "seconds": seconds,
        "provenance": read_record(folder)["provenance"],
        **kept,
    }


def markdown(result: dict) -> str:
    """A table of :func:`collect` as Markdown: mean over seeds, and the lowest and highest, in percent."""
    lines = [
        "| | IoU, batch norm of the target | IoU, running batch norm | Dice, batch norm of the target |",
        "| --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        cells = []
        for kind, metric in (("target", "iou"), ("running", "iou"), ("target", "dice")):
            values = [100 * run[kind][metric] for run in row["runs"]]
            cells.append(f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        lines.append(f"| {row['label']} | {' | '.join(cells)} |")
    return "\n".join(lines)
