import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from voxuda.commands.main import main
from voxuda.errors import InputError
from voxuda.experiments import report, tables
from voxuda.experiments import sweep as experiments
from voxuda.simulation import molecules, quick
from voxuda.simulation.samples import save_samples
from voxuda.training import evaluation
from voxuda.training.config import SCALES
from voxuda.training.run_folder import load_network


@pytest.fixture(autouse=True)
def threads():
    """A run sets the number of threads of its process, which here is this one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SOURCE_ONLY = tables.select("modules", ["source-only"])[0]


def test_finished_runs_are_kept_and_the_table_collects_them(tmp_path, short_smoke):
    for seed in range(2):
        experiments.run_row(SOURCE_ONLY.config("smoke", seed), SOURCE_ONLY.folder(tmp_path, seed), 1)
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("weights.safetensors")}
    result = experiments.reproduce("modules", tmp_path, seeds=2, only=["source-only"])
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("weights.safetensors")}
    assert json.loads((tmp_path / "modules-smoke.json").read_text()) == json.loads(json.dumps(result))
    runs = result["rows"][0]["runs"]
    assert (
        [run["seed"] for run in runs] == [0, 1]
        and runs[0]["seconds"] > 0
        and runs[0]["provenance"]["libraries"]["numpy"] == np.__version__
    )
    values = sorted(100 * run["target"]["iou"] for run in runs)
    assert f"| source-only | {sum(values) / 2:.1f} ({values[0]:.1f} to {values[1]:.1f}) |" in report.markdown(result)


def test_one_seed_at_a_time_makes_the_same_table(tmp_path, short_smoke):
    for seed in range(2):
        experiments.run_row(SOURCE_ONLY.config("smoke", seed), SOURCE_ONLY.folder(tmp_path, seed), 1)
        result = experiments.reproduce("modules", tmp_path, seeds=1, first_seed=seed, only=["source-only"])
    assert result["seeds"] == 2 and [run["seed"] for run in result["rows"][0]["runs"]] == [0, 1]


def test_the_oracle_saw_the_last_epoch_as_the_score_does(tmp_path, short_smoke, monkeypatch):
    monkeypatch.setitem(experiments.SCALES, "smoke", {**experiments.SCALES["smoke"], "epochs": 3})
    folder = SOURCE_ONLY.folder(tmp_path, 0)
    iou = experiments.run_row(SOURCE_ONLY.config("smoke", 0), folder, 1)
    seen = [json.loads(line) for line in (folder / "oracle.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in seen] == [1, 2, 3] and seen[-1]["iou"] == iou
    kept = json.loads((folder / "summary.json").read_text())
    assert kept["oracle"]["iou"] == max(line["iou"] for line in seen) >= kept["target"]["iou"] == iou


def test_scores_on_another_target_are_not_the_runs_own(tmp_path, short_smoke, folders):
    folder = SOURCE_ONLY.folder(tmp_path, 0)
    experiments.run_row(SOURCE_ONLY.config("smoke", 0), folder, 1)
    before = experiments.collect("modules", tmp_path, scale="smoke")
    evaluation.evaluate_run(folder, folders / "target")
    assert experiments.collect("modules", tmp_path, scale="smoke") == before


def test_a_run_of_another_version_of_the_row_is_refused(tmp_path, short_smoke):
    folder = SOURCE_ONLY.folder(tmp_path, 0)
    experiments.run_row(SOURCE_ONLY.config("smoke", 0), folder, 1)
    path = folder / "summary.json"
    kept = json.loads(path.read_text())
    for broken, message in [
        (
            {**kept, "config": {**kept["config"], "learning_rate": 0.5}},
            r"another configuration \(learning_rate is 0\.5, not 0\.001\)",
        ),
        ({**kept, "sizes": {**kept["sizes"], "width": 99}}, r"another configuration \(width is 99, not 8\)"),
        ([1], "not the summary of a run"),
    ]:
        path.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=message):
            experiments.reproduce("modules", tmp_path, only=["source-only"])


def test_what_cannot_be_scored_is_not_trained(tmp_path, folders):
    bare = tmp_path / "bare"
    shutil.copytree(folders / "target", bare)
    (bare / "masks.mrcs").unlink()
    with pytest.raises(InputError, match="bare: has no masks"):
        experiments.run_row(SOURCE_ONLY.config("smoke", 0, str(bare)), tmp_path / "run", 1)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_epoch_leaves_no_second_line_for_the_oracle(tmp_path, short_smoke):
    folder = SOURCE_ONLY.folder(tmp_path, 0)
    folder.mkdir(parents=True)
    (folder / "oracle.jsonl").write_text('{"epoch": 1, "iou": 0.99}\n')
    with pytest.raises(InputError, match="not empty"):
        experiments.run_row(SOURCE_ONLY.config("smoke", 0), folder, 1)
    (folder / "oracle.jsonl").rename(tmp_path / "torn")
    experiments.run_row(SOURCE_ONLY.config("smoke", 0), folder, 1)
    kept = (folder / "oracle.jsonl").read_text()
    shutil.rmtree(folder / "checkpoint")
    (tmp_path / "torn").rename(folder / "oracle.jsonl")
    experiments.run_row(SOURCE_ONLY.config("smoke", 0), folder, 1)
    assert (folder / "oracle.jsonl").read_text() == kept


def test_bad_names():
    with pytest.raises(InputError, match="no such table"):
        tables.select("nope")
    with pytest.raises(InputError, match="no such row"):
        tables.select("modules", ["nope"])
    with pytest.raises(InputError, match="at least 1"):
        experiments.reproduce("modules", "x", seeds=0)


def test_a_table_on_a_folder_says_which(tmp_path, short_smoke):
    samples = quick.simulate_target([molecules.load("4v94")], n_per_molecule=4)
    save_samples(samples, tmp_path / "mine")
    row = tables.select("real", ["real-zero-shot"])[0]
    config = row.config("smoke", 0, str(tmp_path / "mine"))
    assert config.batch_norm == "running" and config.target == str(tmp_path / "mine")
    experiments.run_row(config, row.folder(tmp_path, 0), 1)
    result = experiments.reproduce("real", tmp_path, only=["real-zero-shot"], target=str(tmp_path / "mine"))
    assert result["target"] == "mine" and result["rows"][0]["runs"][0]["n"] == 2
    assert len(result["rows"][0]["runs"][0]["target"]["samples"]) == 2


# --- every row at scale smoke, by the command line -----------------------------------------------------------------

PAPERS = ("table1", "table2", "table3", "table4", "figure6", "figure7", "today")


ALL_OTHERS = """
import contextlib, sys
from voxuda import experiments
with experiments.in_processes(2) as pool:
    experiments.in_processes = lambda jobs: contextlib.nullcontext(pool)
    for table in sys.argv[2:]:
        experiments.reproduce(table, sys.argv[1], jobs=2)
"""


def start(out, table):
    command = [sys.executable, "-m", "voxuda", "reproduce", table, "--jobs", "2", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}  # one thread for each of two jobs
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, **pipes, env=environment, start_new_session=True)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All rows of the paper's tables and of `today`, two runs at a time; the first table is killed on its way."""
    out = tmp_path_factory.mktemp("everything")
    sweep = start(out, "table1")
    deadline = time.monotonic() + 300
    while not list(out.glob("*/seed-0/summary.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.communicate()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-0/summary.json")}
    assert 0 < len(finished) < len(tables.TABLES["table1"]), "not killed in the middle of the sweep"
    sweep = start(out, "table1")
    _, errors = sweep.communicate(timeout=900)
    assert sweep.returncode == 0, errors
    assert "table1, smoke: 100%" in errors
    # The others in one process, whose workers need not start anew for each table.
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", ALL_OTHERS, str(out), *PAPERS[1:]]
    subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=1200)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items()), "a finished run was made again"
    return out


@pytest.mark.parametrize("table", PAPERS)
def test_every_row_runs_at_scale_smoke(everything, table):
    result = json.loads((everything / f"{table}-smoke.json").read_text())
    assert [row["name"] for row in result["rows"]] == [row.name for row in tables.TABLES[table]]
    assert all(0 <= run["target"]["iou"] <= 1 for row in result["rows"] for run in row["runs"])


def test_a_killed_sweep_ends_as_one_that_was_not(everything, tmp_path):
    """The first rows, of which the kill met some, made again in one go."""
    kept = ("iou", "dice", "samples", "pooled_iou", "classes", "foreground_share")
    for row in tables.TABLES["table1"][:4]:
        experiments.run_row(row.config("smoke", 0), row.folder(tmp_path, 0), 1)
        a, b = (json.loads((row.folder(out, 0) / "summary.json").read_text()) for out in (everything, tmp_path))
        assert {k: a["target"][k] for k in kept} == {k: b["target"][k] for k in kept} and a["oracle"] == b["oracle"]


def test_figure_6_maps_both_domains_before_and_after(everything):
    result = json.loads((everything / "figure6-smoke.json").read_text())
    for name in ("source-only", "vox-uda"):
        assert result["embeddings"][name]["running"] != result["embeddings"][name]["target"]
        found = result["embeddings"][name]["target"]
        assert len(found["points"]) == len(found["domain"]) == len(found["classes"]) > 20
        assert {*found["domain"]} == {"source", "target"}
        assert all(0 <= value <= 1 for kind in ("running", "target") for value in result["separability"][name][kind])


def test_results_are_shown_beside_the_papers_and_kept(everything, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["results", "keep", str(everything), "--into", "results/smoke"]) == 0
    assert main(["results", "show", "table1", "--scale", "smoke"]) == 0
    printed = capsys.readouterr().out
    assert "DANN" in printed and "38.4" in printed and "50.3" in printed and "fewer than two seeds" in printed
    assert main(["results", "show", "table2", "--scale", "smoke", "--markdown"]) == 0
    assert "| DANN | 1 |" in capsys.readouterr().out
    assert main(["results", "keep", str(everything), "--into", "results/smoke"]) == 0
    assert capsys.readouterr().out.startswith("0 summaries copied")
    kept = tmp_path / "results" / "smoke" / "dann" / "seed-0" / "summary.json"
    course = experiments.curve(kept.parent)
    assert [line["epoch"] for line in course] == list(range(1, SCALES["smoke"]["epochs"] + 1))
    assert {"seg", "dis", "iou", "learning_rate"} <= {*course[0]}
    assert course == experiments.curve(everything / "dann" / "seed-0")
    best = max(course, key=lambda line: line["iou"])
    assert json.loads(kept.read_text())["oracle"] == {"epoch": best["epoch"], "iou": best["iou"]}
    assert experiments.curve(tmp_path / "none") == [], "no log was kept"
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
