"""Make, resume and collect the runs of a table."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from voxuda.data.files import append_line, locked
from voxuda.errors import InputError
from voxuda.experiments import references
from voxuda.experiments.pool import Work, run_all
from voxuda.experiments.tables import Row, Sweep
from voxuda.methods.base import Method
from voxuda.networks.voxresnet import target_batch_norm
from voxuda.training.config import BatchNorm, Config
from voxuda.training.domains import load_domains, load_target
from voxuda.training.evaluation import Evaluation, Scores, evaluate_run, iou_and_dice, predict, scores
from voxuda.training.features import domain_features, embed, separability
from voxuda.training.loop import train, trim_log
from voxuda.training.provenance import provenance
from voxuda.training.run_folder import as_stored, load_network, read_record, save_json
from voxuda.training.signs import read_signs


def reproduce(sweep: Sweep, out: str | Path, *, jobs: int = 1) -> dict:
    """Run a table and write ``OUT/TABLE-SCALE.json``; finished runs are kept, interrupted ones resume.

    Parameters
    ----------
    sweep : Sweep
        The runs to make.
    out : path
        Folder of the runs, ``OUT/ROW/seed-K``; :func:`collect` needs only the ``summary.json`` of each.
    jobs : int
        Number of parallel runs, each on its share of the CPU cores.

    Returns
    -------
    dict
        See :func:`collect`.
    """
    sweep.check()
    out = Path(out)
    rows, seeds = sweep.rows(), range(sweep.first_seed, sweep.first_seed + sweep.seeds)
    todo: dict[Path, tuple[str, Work]] = {}
    finished = set()
    for seed in seeds:
        for row in rows:
            folder, config = row.folder(out, seed), sweep.config(row, seed)
            if summary(folder, config):
                finished.add(folder)
            else:  # two rows may show the runs of one folder
                todo[folder] = (f"{row.label}, seed {seed}", partial(run_row, config, folder))
    title = f"{sweep.table}, {sweep.scale}"
    run_all(todo, jobs=jobs, epochs=sweep.sizes()["epochs"], finished=len(finished), title=title)
    result = collect(sweep, out)
    if sweep.table == "figure6":
        trained = [row for row in rows if row.method not in references.REFERENCES]
        result |= _features({row.name: [row.folder(out, seed) for seed in seeds] for row in trained})
    save_json(result, out / f"{sweep.table}-{sweep.scale}.json")
    return result


def _features(runs: dict[str, list[Path]]) -> dict:
    """Map the first seed's features and compute every seed's separability, by row and kind of batch norm statistics."""
    kinds: tuple[BatchNorm, ...] = ("target", "running")
    found: dict = {"embeddings": {row: {kind: embed(of[0], kind) for kind in kinds} for row, of in runs.items()}}
    apart: dict = {row: {kind: [] for kind in kinds} for row in runs}
    # Seed by seed: simulating the samples of one takes minutes, and only the last are cached.
    for of_seed in zip(*runs.values(), strict=True):
        for row, run in zip(runs, of_seed, strict=True):
            for kind in kinds:
                apart[row][kind].append(round(separability(*domain_features(run, kind)[0]), 4))
    return found | {"separability": apart}


# --- one run -------------------------------------------------------------------------------------------------------


def run_row(config: Config, folder: Path, threads: int) -> float:
    """Train and score one run in its own process, and write its ``summary.json``; returns its IoU.

    After each epoch the test samples are also scored, into ``oracle.jsonl``. Nothing is chosen by these scores; they only show
    what choosing the epoch with target labels would gain. A reference is not trained.
    """
    torch.set_num_threads(threads)
    seen, test = load_target(config)
    if test.masks is None:
        raise InputError(f"{config.target}: has no masks; a table's runs are scored on them.")
    if config.method in references.REFERENCES:
        return _run_reference(config, folder)
    oracle, masks = folder / "oracle.jsonl", test.masks[:, 0]

    def score_epoch(epoch: int, method: Method) -> None:
        network = copy.deepcopy(method.student)
        network.load_state_dict(target_batch_norm(network, seen.volumes), strict=False)
        iou = float(iou_and_dice(predict(network, test.volumes) > 0.5, masks)[0].numpy().mean())
        trim_log(oracle, epoch - 1)  # an interrupted epoch may have left a line
        append_line(json.dumps({"epoch": epoch, "iou": iou}), oracle)

    with locked(folder):
        train(config, folder, resume=True, progress=False, after_epoch=score_epoch)
        report = evaluate_run(folder)
        save_json(_summarise(config, folder, report), folder / "summary.json")
    return report.scores.overall.iou


def _run_reference(config: Config, folder: Path) -> float:
    """Score a reference, and write its ``summary.json`` with the settings ``chosen`` on the source; returns its IoU."""
    source, seen, test = load_domains(config)
    began = time.perf_counter()
    found = references.find(config.method, source, seen, test, torch.Generator().manual_seed(config.seed))
    seconds = time.perf_counter() - began
    of = scores(found.masks, test)
    about: dict = {"chosen": found.chosen}
    if config.method == "blur-threshold":  # the score of the best settings by test labels
        about["best_with_labels"] = references.blur_scores(test).max().item()
    values = {
        "config": dataclasses.asdict(config), "sizes": config.sizes(), "seed": config.seed, "n": of.overall.n,
        "seconds": round(seconds, 6), "provenance": provenance(), "oracle": None, **about,
        **dict.fromkeys(get_args(BatchNorm), _kept(of)),  # the same for all kinds, since it has no batch norm
    }  # fmt: skip
    with locked(folder):
        save_json(values, folder / "summary.json")
    return of.overall.iou


def _kept(found: Scores) -> dict:
    """Select the scores that a table keeps."""
    return {
        "iou": found.overall.iou,
        "dice": found.overall.dice,
        "samples": found.samples,
        "pooled_iou": found.pooled["iou"],
        "classes": {name: score.iou for name, score in found.classes.items()},
        "foreground_share": found.foreground_share,
    }


def _summarise(config: Config, folder: Path, report: Evaluation) -> dict:
    """Summarise a run for a table."""
    kept = {kind: _kept(found) for kind, found in report.by_batch_norm.items()}
    source, seen, _ = load_domains(config)
    share = float(source.masks.float().mean())  # type: ignore[union-attr]
    return {
        "config": dataclasses.asdict(config),
        "sizes": config.sizes(),
        "seed": config.seed,
        "n": report.scores.overall.n,
        "seconds": round(sum(line["seconds"] for line in _lines(folder / "log.jsonl")), 1),
        "provenance": read_record(folder)["provenance"],
        "oracle": max(_lines(folder / "oracle.jsonl"), key=lambda line: line["iou"], default=None),
        "signs": {kind: dataclasses.asdict(read_signs(load_network(folder, kind), seen.volumes, share)) for kind in kept},
        **kept,
    }


def _lines(path: Path) -> list[dict]:
    """Read the lines of a log; none if the run was trained without it."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def curve(folder: Path) -> list[dict]:
    """Read the learning curve of a run from its ``log.jsonl`` and ``oracle.jsonl``; empty if no log was kept.

    Each epoch has its number, from 1, the ``learning_rate``, the mean of each loss, and the ``iou`` of the test samples with
    batch norm statistics of the target.
    """
    after = {line["epoch"]: line["iou"] for line in _lines(folder / "oracle.jsonl")}
    epochs = [{**line, "epoch": line["epoch"] + 1} for line in _lines(folder / "log.jsonl")]
    return [{**line, "iou": after[line["epoch"]]} for line in epochs if line["epoch"] in after]


_ANYWHERE = dict(device=None, precision=None)
"""Fields of a configuration that say where a run was trained, not what was trained."""


def summary(folder: Path, config: Config) -> dict | None:
    """Read the summary of a run, ``None`` if it is not finished; refuses a run of another configuration."""
    path = folder / "summary.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        # Options that a run of an earlier version lacks had what is now the default value.
        usual, said = as_stored(dataclasses.asdict(Config())), found["config"]
        said = {**usual, **said, "vox_uda": {**usual["vox_uda"], **said["vox_uda"]}}
        kept = {**said, **found["sizes"], **_ANYWHERE}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the summary of a run; delete it, and the run is scored again.") from error
    asked = as_stored({**dataclasses.asdict(config), **config.sizes(), **_ANYWHERE})
    other = [f"{name} is {kept.get(name)}, not {asked.get(name)}" for name in asked | kept if kept.get(name) != asked.get(name)]
    if other:
        differ = f"was made with another configuration ({'; '.join(other[:2])})"
        raise InputError(f"{folder}: {differ}; give the options of its runs, or choose another folder.")
    return found


# --- a table -------------------------------------------------------------------------------------------------------


def collect(sweep: Sweep, out: str | Path) -> dict:
    """Collect the scores of all finished runs of a table, for all rows, seeds and devices.

    Parameters
    ----------
    sweep : Sweep
        Gives table, scale, target and epochs; runs of these rows with other settings are refused.
    out : path
        Folder of the runs.

    Returns
    -------
    dict
        ``table``, ``scale``, ``target`` (name of its folder), ``sizes``, ``seeds`` (the most that a row has), ``collected_by``
        (code and hardware of this call) and ``rows``. A row has ``name``, ``label``, ``method``, ``options``, ``statistics``
        (batch norm statistics of its score) and ``runs``. A run, one per seed, has ``n`` test samples, ``seconds`` and
        ``provenance`` of its training, the ``oracle`` (best epoch by test labels, and its IoU with target statistics), and for
        each kind of batch norm statistics IoU, Dice, the IoU of each sample, pooled IoU, IoU by class and foreground share;
        runs of earlier versions lack "mixed". A reference has no oracle, but the settings ``chosen`` on the source, and
        blur-threshold has ``best_with_labels``, the IoU of the best settings by test labels.
    """
    collected = []
    for row in dataclasses.replace(sweep, only=()).rows():
        runs = _runs(sweep, row, Path(out))
        if runs:
            about = {name: getattr(row, name) for name in ("name", "label", "method", "options", "statistics")}
            collected.append({**about, "runs": runs})
    return {
        "table": sweep.table,
        "scale": sweep.scale,
        "target": None if sweep.target is None else Path(sweep.target).name,
        "sizes": sweep.sizes(),
        "seeds": max((len(row["runs"]) for row in collected), default=0),
        "collected_by": provenance(),
        "rows": collected,
    }


def _runs(sweep: Sweep, row: Row, out: Path) -> list[dict]:
    """Read what a table shows of the finished runs of a row, in the order of their seeds."""
    suffixes = (path.name.removeprefix("seed-") for path in row.folder(out, 0).parent.glob("seed-*"))
    runs = []
    for seed in sorted(int(suffix) for suffix in suffixes if suffix.isdecimal()):
        if run := summary(row.folder(out, seed), sweep.config(row, seed)):
            config, _ = run.pop("config"), run.pop("sizes")
            runs.append({**run, "device": config["device"], "precision": config["precision"]})
    return runs
