"""Tables of runs: run one by one or side by side, resumed, collected."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, get_args

import torch
from tqdm import tqdm

from voxuda.data.files import append_line
from voxuda.errors import InputError
from voxuda.experiments.tables import Row, select
from voxuda.methods.base import Method
from voxuda.networks.voxresnet import target_batch_norm
from voxuda.training.config import SCALES, BatchNorm, Config, Scale
from voxuda.training.domains import load_target
from voxuda.training.evaluation import evaluate_run, iou_and_dice, predict
from voxuda.training.features import domain_features, embed, separability
from voxuda.training.loop import train, trim_log
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import read_record, save_json


def reproduce(
    table: str,
    out: str | Path,
    *,
    scale: Scale = "smoke",
    seeds: int = 1,
    first_seed: int = 0,
    only: list[str] | None = None,
    jobs: int = 1,
    target: str | None = None,
    epochs: int | None = None,
    device: Literal["cpu", "cuda", "auto"] = "cpu",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
) -> dict:
    """Run a table and write ``OUT/TABLE-SCALE.json``; finished runs are kept, interrupted ones go on.

    Parameters
    ----------
    table : str
        Name of the table.
    out : path
        Folder of the runs, ``OUT/ROW/seed-K``; what :func:`collect` needs of each is its ``summary.json``.
    scale : str
        Sizes, see ``SCALES``.
    seeds : int
        Runs of each row, with seeds ``first_seed``, ``first_seed + 1``, …
    first_seed : int
        For a sweep whose seeds run on different machines.
    only : list of str, optional
        Names of rows.
    jobs : int
        Runs side by side, each on its share of the processor's cores.
    target : str, optional
        Folder with the target samples of all runs; each seed tests on other ones of them. Simulated when absent.
    epochs : int, optional
        Fewer or more than the scale has.
    device, precision : str
        Where and how the runs are trained, see :class:`voxuda.training.config.Config`.

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
    runs = {}
    for seed in range(first_seed, first_seed + seeds):
        for row in rows:
            config = row.config(scale, seed, target, epochs=epochs, device=device, precision=precision)
            runs[row.folder(out, seed)] = (f"{row.label}, seed {seed}", config)
    todo = {folder: run for folder, run in runs.items() if summary(folder, run[1]) is None}
    threads = max(1, torch.get_num_threads() // jobs)
    each = epochs or SCALES[scale]["epochs"]
    with (
        tqdm(total=len(runs) * each, initial=(len(runs) - len(todo)) * each, unit="epoch", desc=f"{table}, {scale}") as bar,
        in_processes(jobs) as pool,
    ):
        pending: dict[Future, tuple[str, Path]] = {}
        for folder, (label, config) in todo.items():
            pending[pool.submit(run_row, config, folder, threads)] = (label, folder)
        try:
            _watch(bar, pending, dict.fromkeys(set(runs) - set(todo), each))
        except BrokenProcessPool as error:
            raise InputError(f"{out}: a run was killed, perhaps for want of memory; try again with fewer --jobs.") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # do not start the runs that wait
            raise
    result = collect(table, out, scale=scale, target=target, epochs=epochs)
    if table == "figure6":
        result |= _figure6(
            {row.name: [row.folder(out, seed) for seed in range(first_seed, first_seed + seeds)] for row in rows}
        )
    # Jobs of a sweep over many machines may end at one time.
    mine = out / f"{table}-{scale}.{os.getpid()}.json"
    save_json(result, mine)
    os.replace(mine, out / f"{table}-{scale}.json")
    return result


def _figure6(runs: dict[str, list[Path]]) -> dict:
    """By row and kind of batch norm statistics: a map of the first seed's features, and how well every seed's tell domains."""
    kinds = get_args(BatchNorm)
    return {
        "embeddings": {row: {kind: embed(seeds[0], kind) for kind in kinds} for row, seeds in runs.items()},
        "separability": {
            row: {kind: [round(separability(*domain_features(run, kind)[0]), 4) for run in seeds] for kind in kinds}
            for row, seeds in runs.items()
        },
    }


def _watch(bar: tqdm, pending: dict[Future, tuple[str, Path]], epochs: dict[Path, int]) -> None:
    """Wait for all runs, and show how many epochs have been trained."""
    waiting = set(pending)
    while waiting:
        done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
        for _, folder in pending.values():
            log = folder / "log.jsonl"
            epochs[folder] = len(log.read_text().splitlines()) if log.exists() else 0
        bar.n = sum(epochs.values())
        bar.refresh()
        for future in done:
            bar.write(f"{pending[future][0]}: IoU {100 * future.result():.1f} %")


def in_processes(jobs: int) -> Executor:
    """Worker processes for runs side by side."""
    # Spawned, since a fork of a process that has used OpenMP hangs.
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))


# --- one run -------------------------------------------------------------------------------------------------------


def run_row(config: Config, folder: Path, threads: int) -> float:
    """Train and score one run in a process of its own, and write its ``summary.json``; returns its IoU.

    After each epoch the test samples are scored too, into ``oracle.jsonl``: no choice is made by it, it only tells what a
    choice with target labels would have gained.
    """
    torch.set_num_threads(threads)
    seen, test = load_target(config)
    if test.masks is None:
        raise InputError(f"{config.target}: has no masks; a table's runs are scored on them.")
    oracle, masks = folder / "oracle.jsonl", test.masks[:, 0]

    def score_epoch(epoch: int, method: Method) -> None:
        network = copy.deepcopy(method.student)
        network.load_state_dict(target_batch_norm(network, seen.volumes), strict=False)
        iou = float(iou_and_dice(predict(network, test.volumes) > 0.5, masks)[0].numpy().mean())
        trim_log(oracle, epoch - 1)  # an interrupted epoch may have left a line
        append_line(json.dumps({"epoch": epoch, "iou": iou}), oracle)

    train(config, folder, resume=True, progress=False, after_epoch=score_epoch)
    report = evaluate_run(folder)
    save_json(_summarise(config, folder, report), folder / "summary.json")
    return report["iou"]


def _summarise(config: Config, folder: Path, report: dict) -> dict:
    """What a table keeps of a run."""
    log, oracle = _lines(folder / "log.jsonl"), folder / "oracle.jsonl"
    watched = _lines(oracle) if oracle.exists() else []  # missing where the run was trained otherwise
    kept = {
        kind: {
            "iou": s["overall"]["iou"],
            "dice": s["overall"]["dice"],
            "samples": s["samples"],
            "pooled_iou": s["pooled"]["iou"],
            "classes": {name: values["iou"] for name, values in s["classes"].items()},
            "foreground_share": s["foreground_share"],
        }
        for kind, s in report["by_batch_norm"].items()
    }
    return {
        "config": dataclasses.asdict(config),
        "sizes": config.sizes(),
        "seed": config.seed,
        "n": report["overall"]["n"],
        "seconds": round(sum(line["seconds"] for line in log), 1),
        "provenance": read_record(folder)["provenance"],
        "oracle": max(watched, key=lambda line: line["iou"], default=None),
        **kept,
    }


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def curve(folder: Path) -> list[dict]:
    """How a run went, epoch by epoch, from its ``log.jsonl`` and ``oracle.jsonl``.

    Returns
    -------
    list of dict
        For each epoch its number, from 1, the ``learning_rate``, the mean of each loss, and the ``iou`` of the test samples
        with batch norm statistics of the target; empty where no log was kept.
    """
    log, oracle = folder / "log.jsonl", folder / "oracle.jsonl"
    if not (log.exists() and oracle.exists()):
        return []
    after = {line["epoch"]: line["iou"] for line in _lines(oracle)}
    epochs = [{**line, "epoch": line["epoch"] + 1} for line in _lines(log)]
    return [{**line, "iou": after[line["epoch"]]} for line in epochs if line["epoch"] in after]


_ANYWHERE = dict(device=None, precision=None)
"""What of a configuration says where a run was trained and not what was trained."""


def summary(folder: Path, config: Config) -> dict | None:
    """The summary of a finished run, ``None`` of one that is not finished.

    Raises
    ------
    InputError
        The run was made with another configuration, or its summary cannot be read.
    """
    path = folder / "summary.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        wanted = json.loads(json.dumps({**dataclasses.asdict(config), **_ANYWHERE}))
        same = ({**found["config"], **_ANYWHERE}, found["sizes"]) == (wanted, json.loads(json.dumps(config.sizes())))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the summary of a run; delete it, and the run is scored again.") from error
    if not same:
        kept = {**found["config"], **found["sizes"], **_ANYWHERE}
        asked = {**wanted, **json.loads(json.dumps(config.sizes())), **_ANYWHERE}
        other = [f"{name} is {kept.get(name)}, not {value}" for name, value in asked.items() if kept.get(name) != value]
        raise InputError(f"{folder}: was made with another configuration ({'; '.join(other[:2])}); choose another folder.")
    return found


# --- a table -------------------------------------------------------------------------------------------------------


def collect(table: str, out: str | Path, *, scale: Scale, target: str | None = None, epochs: int | None = None) -> dict:
    """Gather the scores of all finished runs of a table, by whatever device; the arguments are those of :func:`reproduce`.

    Returns
    -------
    dict
        ``table``, ``scale``, ``target`` (name of its folder), ``sizes``, ``seeds`` (the most that a row has), ``collected_by``
        (code and hardware of this call) and ``rows``; a row has its ``name``, ``label``, ``method``, ``options``,
        ``statistics`` (whose batch norm statistics its score has) and ``runs``. A run, one a seed, has ``n`` test samples, the
        ``seconds`` and the ``provenance`` of its training, the ``oracle`` (best epoch by test labels, and its IoU with target
        statistics), and for both kinds of batch norm statistics IoU, Dice, the IoU of each sample, pooled IoU, IoU by class
        and foreground share.
    """
    out = Path(out)
    collected = []
    for row in select(table):
        runs = _runs(row, out, scale, target, epochs)
        if runs:
            about = {name: getattr(row, name) for name in ("name", "label", "method", "options", "statistics")}
            collected.append({**about, "runs": runs})
    return {
        "table": table,
        "scale": scale,
        "target": None if target is None else Path(target).name,
        "sizes": {**SCALES[scale], "epochs": epochs or SCALES[scale]["epochs"]},
        "seeds": max((len(row["runs"]) for row in collected), default=0),
        "collected_by": provenance(),
        "rows": collected,
    }


def _runs(row: Row, out: Path, scale: Scale, target: str | None, epochs: int | None) -> list[dict]:
    """What a table shows of the finished runs of a row, in the order of their seeds."""
    suffixes = (path.name.removeprefix("seed-") for path in row.folder(out, 0).parent.glob("seed-*"))
    seeds = sorted(int(suffix) for suffix in suffixes if suffix.isdecimal())
    found = (summary(row.folder(out, seed), row.config(scale, seed, target, epochs=epochs)) for seed in seeds)
    shown = ("device", "precision")
    return [
        {**{k: v for k, v in run.items() if k not in ("config", "sizes")}, **{k: run["config"][k] for k in shown}}
        for run in found
        if run
    ]
