"""Every row of every table: one step of its losses, and what a sweep makes of its run. Two rows are trained in full."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from test_pool import Here

from voxuda.commands.main import main
from voxuda.experiments import pool, report, sweep, tables
from voxuda.experiments.tables import Sweep
from voxuda.methods import build
from voxuda.networks.voxresnet import target_batch_norm
from voxuda.simulation import molecules, quick
from voxuda.simulation.samples import from_simulation
from voxuda.training import domains, run_folder
from voxuda.training.config import SCALES
from voxuda.training.domains import load_domains
from voxuda.training.loop import make_batch, open_folder, train
from voxuda.training.run_folder import load_network, save_weights

PAPERS = ("table1", "table2", "table3", "table4", "figure6", "figure7", "today")
OURS = ("modules", "ours", "normalisation", "sensitivity", "references")
IN_FULL = ("source-only", "dann")
"""Folders of the runs that are trained; all others take one step."""


def one_step(config, out, *, resume, progress, after_epoch):
    """In place of training: the losses of the last step, all of them counting, and their gradients."""
    if out.parent.name in IN_FULL:
        return train(config, out, resume=resume, progress=progress, after_epoch=after_epoch)
    torch.manual_seed(config.seed)
    method = build(config.method, config.size("width"), config.vox_uda, normalisation=config.normalisation)
    source, target, _ = load_domains(config)
    method.prepare(target.volumes)
    batch = make_batch(source, target, 0, 0, config, 1)
    losses = method.train().losses(batch, 0.9)
    torch.stack(list(losses.values())).sum().backward()
    method.after_step()
    gradients = [p.grad for p in method.student.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients), out
    assert any(g.any() for g in gradients), out
    open_folder(config, out, 0, again=False, processes=1)
    line = {"epoch": 0, "learning_rate": config.learning_rate, "seconds": 0.0}
    (out / "log.jsonl").write_text(json.dumps(line | {name: value.item() for name, value in losses.items()}) + "\n")
    after_epoch(1, method)
    save_weights(out / "weights.safetensors", method.student, target_batch_norm(method.student, target.volumes))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All rows of all tables, each once, on few samples of 16³ and in narrow networks."""
    out, threads = tmp_path_factory.mktemp("everything"), torch.get_num_threads()
    small = dict(per_source=4, per_target=6, width=4, batch_size=4)

    def source(which, n, snr, seed, progress):
        return from_simulation(quick.simulate_source([molecules.load("3gl1")], n_per_molecule=6 * n, snr=snr, size=16))

    def target(recipe, n, seed, progress):
        return from_simulation(quick.simulate_target([molecules.load("4v94")], n_per_molecule=3 * n, size=16))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCALES, "smoke", {**SCALES["smoke"], **small})
        patch.setattr(domains, "_simulated_source", lru_cache(source))
        patch.setattr(domains, "_simulated_target", lru_cache(target))
        patch.setattr(sweep, "train", one_step)
        patch.setattr(pool, "in_processes", Here)
        torch.set_num_threads(1)  # for so little to do, two threads take longer
        for table in (*PAPERS, *OURS):
            sweep.reproduce(Sweep(table), out)
        torch.set_num_threads(threads)
        yield out


@pytest.mark.parametrize("table", (*PAPERS, *OURS))
def test_every_row_makes_a_run_and_is_collected(everything, table):
    result = json.loads((everything / f"{table}-smoke.json").read_text())
    assert [row["name"] for row in result["rows"]] == [row.name for row in tables.select(table)]
    assert all(0 <= run["target"]["iou"] <= 1 for row in result["rows"] for run in row["runs"])


def test_the_table_real_has_the_same_configurations_on_another_target():
    """So that one step of its rows would show nothing new."""
    seen = {(row.method, repr(row.options)) for table in (*PAPERS, *OURS) for row in tables.TABLES[table]}
    assert {*tables.TABLES} == {*PAPERS, *OURS, "real"}
    for row in tables.TABLES["real"]:
        assert (row.method, repr(row.options)) in seen


@pytest.mark.parametrize("row", tables.REFERENCES, ids=lambda row: row.name)
def test_a_reference_trains_nothing_and_is_scored_as_a_run(everything, row):
    folder = row.folder(everything, 0)
    assert [path.name for path in folder.iterdir()] == ["summary.json"]
    run, trained = (json.loads((everything / name / "seed-0" / "summary.json").read_text()) for name in (row.name, "dann"))
    assert run["seconds"] > 0 and run["oracle"] is None and run["target"] == run["running"]
    extra = {"chosen", "best_with_labels"} if row.name == "blur-threshold" else {"chosen"}
    assert run.keys() - extra == trained.keys() - {"signs"} and run["target"].keys() == trained["target"].keys()
    assert run.get("best_with_labels", 1) >= run["target"]["iou"] - 1e-9, "the grid holds what was chosen"
    assert row.label in report.markdown(sweep.collect(Sweep("table1"), everything))


def test_figure_6_maps_both_domains_before_and_after(everything):
    result = json.loads((everything / "figure6-smoke.json").read_text())
    for name in ("source-only", "vox-uda"):
        assert result["embeddings"][name]["running"] == result["embeddings"][name]["target"], "group norm has one kind"
        found = result["embeddings"][name]["target"]
        assert len(found["points"]) == len(found["domain"]) == len(found["classes"]) > 20
        assert {*found["domain"]} == {"source", "target"}
        assert all(0 <= value <= 1 for kind in ("running", "target") for value in result["separability"][name][kind])


def test_results_are_shown_beside_the_papers_and_kept(everything, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["results", "keep", str(everything), "--into", "results/smoke"]) == 0
    assert main(["results", "show", "table1", "--scale", "smoke"]) == 0
    printed = capsys.readouterr().out
    assert "DANN" in printed and "38.4" in printed and "50.3" in printed and "no trained row has two seeds in common" in printed
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert main(["results", "show", "table2", "--scale", "smoke", "--markdown"]) == 0
    assert "| DANN | 1 |" in capsys.readouterr().out
    monkeypatch.chdir("/")
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path / "results")
    assert main(["results", "show", "table2", "--scale", "smoke"]) == 0
    assert main(["results", "show", "table1", "--scale", "paper"]) == 2
    where = f"looked in each folder above, and in {tmp_path / 'results' / 'paper'}; make some"
    assert f"{Path('results', 'paper')}: holds no finished run of table1; {where}" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["results", "keep", str(everything), "--into", "results/smoke"]) == 0
    assert capsys.readouterr().out.startswith("0 summaries copied")
    kept = tmp_path / "results" / "smoke" / "dann" / "seed-0" / "summary.json"
    course = sweep.curve(kept.parent)
    assert [line["epoch"] for line in course] == list(range(1, SCALES["smoke"]["epochs"] + 1))
    assert {"seg", "dis", "iou", "learning_rate"} <= {*course[0]}
    assert course == sweep.curve(everything / "dann" / "seed-0")
    best = max(course, key=lambda line: line["iou"])
    assert json.loads(kept.read_text())["oracle"] == {"epoch": best["epoch"], "iou": best["iou"]}
    assert sweep.curve(tmp_path / "none") == [], "no log was kept"
    kept.write_text(kept.read_text() + " ")
    assert main(["results", "keep", str(everything), "--into", "results/smoke"]) == 2
    assert "another run is kept there" in capsys.readouterr().err
    assert main(["results", "show", "table1", "--reference", "nope", "--scale", "smoke"]) == 2
    assert main(["results", "show", "table1", "--runs", str(tmp_path)]) == 2
    assert main(["results", "keep", str(tmp_path / "none"), "--into", "x"]) == 2
    errors = capsys.readouterr().err
    assert main(["results", "rows", "table4"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["n_sampled-10", "vox-uda", "n_sampled", "10"]
    assert "nope: no such row here" in errors and errors.count("no finished run") == 2


def test_weights_of_a_row_are_kept_at_half_precision(everything, tmp_path, capsys):
    kept = tmp_path / "kept"
    assert main(["results", "keep", str(everything), "--into", str(kept), "--weights", "dann"]) == 0
    whole, half = (load_network(folder / "dann" / "seed-0") for folder in (everything, kept))
    x = torch.randn(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(half(x).softmax(1), whole(x).softmax(1), atol=0.05, rtol=0)
    assert all(p.dtype == torch.float32 for p in half.parameters())
    sizes = [(folder / "dann" / "seed-0" / "weights.safetensors").stat().st_size for folder in (everything, kept)]
    assert sizes[1] < 0.6 * sizes[0]
    assert main(["results", "keep", str(everything), "--into", str(kept), "--weights", "dann"]) == 0, "the same again"
    other = kept / "dann" / "seed-0" / "weights.safetensors"
    other.write_bytes(other.read_bytes()[:-2] + b"xy")
    assert main(["results", "keep", str(everything), "--into", str(kept), "--weights", "dann"]) == 2
    assert "other weights are kept there" in capsys.readouterr().err
    assert main(["results", "keep", str(everything), "--into", str(kept), "--weights", "nope"]) == 2
    assert "has no finished run of nope" in capsys.readouterr().err


def start(out, table, *only):
    command = [sys.executable, "-m", "voxuda", "reproduce", table, "--only", *only, "--jobs", "1", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, **pipes, env=environment, start_new_session=True)


@pytest.mark.slow
def test_a_killed_sweep_ends_as_one_that_was_not(tmp_path):
    """Killed in its second row by the command line, gone on with, and that row made again in one go."""
    rows, out = [row for row in tables.TABLES["table1"] if row.name in ("dann", "pdam")], tmp_path / "out"
    names = [row.name for row in rows]
    process = start(out, "table1", *names)
    deadline = time.monotonic() + 300
    while not (out / "pdam" / "seed-0" / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-0/summary.json")}
    assert [path.parts[-3] for path in finished] == ["dann"], "not killed in the middle of the sweep"
    process = start(out, "table1", *names)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert "table1, smoke: 100%" in errors
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items()), "a finished run was made again"
    threads = torch.get_num_threads()
    kept = ("iou", "dice", "samples", "pooled_iou", "classes", "foreground_share")
    for row in rows:
        sweep.run_row(row.config("smoke", 0), row.folder(tmp_path, 0), 1)
        a, b = (json.loads((row.folder(folder, 0) / "summary.json").read_text()) for folder in (out, tmp_path))
        assert {k: a["target"][k] for k in kept} == {k: b["target"][k] for k in kept} and a["oracle"] == b["oracle"]
    torch.set_num_threads(threads)
