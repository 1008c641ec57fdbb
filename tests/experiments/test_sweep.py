import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from voxuda.data.files import LOCK
from voxuda.errors import InputError
from voxuda.experiments import report, tables
from voxuda.experiments import sweep as experiments
from voxuda.experiments.tables import Sweep
from voxuda.simulation import molecules, quick
from voxuda.simulation.samples import save_samples
from voxuda.training import evaluation
from voxuda.training.config import SCALES


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
    result = experiments.reproduce(Sweep("modules", only=("source-only",), seeds=2), tmp_path)
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("weights.safetensors")}
    assert json.loads((tmp_path / "modules-smoke.json").read_text()) == json.loads(json.dumps(result))
    runs = result["rows"][0]["runs"]
    assert (
        [run["seed"] for run in runs] == [0, 1]
        and runs[0]["seconds"] > 0
        and runs[0]["provenance"]["libraries"]["numpy"] == np.__version__
    )
    assert runs[0]["signs"].keys() == {"target", "running", "mixed"} and "mixed" in runs[0]
    for found in runs[0]["signs"].values():
        assert (
            0 <= found["agreement"] <= 1
            and 0 <= found["entropy"] <= 1
            and found["foreground_share"].keys() == {"predicted", "source"}
        )
    values = sorted(100 * run["target"]["iou"] for run in runs)
    assert f"| without adaptation | {sum(values) / 2:.1f} ({values[0]:.1f} to {values[1]:.1f}) |" in report.markdown(result)


def test_one_seed_at_a_time_makes_the_same_table(tmp_path, short_smoke):
    for seed in range(2):
        experiments.run_row(SOURCE_ONLY.config("smoke", seed), SOURCE_ONLY.folder(tmp_path, seed), 1)
        result = experiments.reproduce(Sweep("modules", only=("source-only",), first_seed=seed), tmp_path)
    assert result["seeds"] == 2 and [run["seed"] for run in result["rows"][0]["runs"]] == [0, 1]


def test_the_oracle_saw_the_last_epoch_as_the_score_does(tmp_path, short_smoke, monkeypatch):
    monkeypatch.setitem(SCALES, "smoke", {**SCALES["smoke"], "epochs": 3})
    folder = SOURCE_ONLY.folder(tmp_path, 0)
    iou = experiments.run_row(SOURCE_ONLY.config("smoke", 0), folder, 1)
    seen = [json.loads(line) for line in (folder / "oracle.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in seen] == [1, 2, 3] and seen[-1]["iou"] == iou
    kept = json.loads((folder / "summary.json").read_text())
    assert kept["oracle"]["iou"] == max(line["iou"] for line in seen) >= kept["target"]["iou"] == iou


def test_scores_on_another_target_are_not_the_runs_own(tmp_path, short_smoke, folders):
    folder = SOURCE_ONLY.folder(tmp_path, 0)
    experiments.run_row(SOURCE_ONLY.config("smoke", 0), folder, 1)
    before = experiments.collect(Sweep("modules"), tmp_path)
    evaluation.evaluate_run(folder, folders / "target")
    assert experiments.collect(Sweep("modules"), tmp_path) == before


def test_a_run_is_held_until_its_summary_is_written(tmp_path, monkeypatch, tiny):
    held = []

    def look(*_, **__):
        held.append((tmp_path / "run" / LOCK).exists())
        return SimpleNamespace(scores=SimpleNamespace(overall=SimpleNamespace(iou=0.5)))

    for name in ("train", "evaluate_run"):
        monkeypatch.setattr(experiments, name, look)
    monkeypatch.setattr(experiments, "_summarise", lambda *_: look() and {})
    assert experiments.run_row(tiny(), tmp_path / "run", 1) == 0.5
    assert held == [True] * 3 and [p.name for p in (tmp_path / "run").iterdir()] == ["summary.json"]


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
            experiments.reproduce(Sweep("modules", only=("source-only",)), tmp_path)


def test_a_run_of_before_an_option_is_one_with_its_default(tmp_path, short_smoke):
    folder, config = SOURCE_ONLY.folder(tmp_path, 0), dataclasses.replace(SOURCE_ONLY, normalisation="batch").config("smoke", 0)
    experiments.run_row(config, folder, 1)
    path = folder / "summary.json"
    kept = json.loads(path.read_text())
    assert kept["config"].pop("normalisation") == "batch" and kept["config"]["vox_uda"].pop("warm_up") == 0.3
    path.write_text(json.dumps(kept))
    assert experiments.summary(folder, config) == kept
    with pytest.raises(InputError, match="normalisation is batch, not group"):
        experiments.summary(folder, dataclasses.replace(config, normalisation="group"))


def test_what_cannot_be_scored_is_not_trained(tmp_path, folders):
    bare = tmp_path / "bare"
    shutil.copytree(folders / "target", bare)
    (bare / "masks.mrcs").unlink()
    with pytest.raises(InputError, match="bare: has no masks"):
        experiments.run_row(SOURCE_ONLY.config("smoke", 0, target=str(bare)), tmp_path / "run", 1)
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
    with pytest.raises(InputError, match="seeds is 0; it must be at least 1"):
        experiments.reproduce(Sweep("modules", seeds=0), "x")
    with pytest.raises(InputError, match="jobs is 0; it must be at least 1"):
        experiments.reproduce(Sweep("modules", seeds=1), "x", jobs=0)


def test_a_table_on_a_folder_says_which(tmp_path, short_smoke):
    samples = quick.simulate_target([molecules.load("4v94")], n_per_molecule=4)
    save_samples(samples, tmp_path / "mine")
    row = tables.select("real", ["real-zero-shot"])[0]
    config = row.config("smoke", 0, target=str(tmp_path / "mine"))
    assert config.batch_norm == "running" and config.target == str(tmp_path / "mine")
    experiments.run_row(config, row.folder(tmp_path, 0), 1)
    result = experiments.reproduce(Sweep("real", only=("real-zero-shot",), target=str(tmp_path / "mine")), tmp_path)
    assert result["target"] == "mine" and result["rows"][0]["runs"][0]["n"] == 2
    assert len(result["rows"][0]["runs"][0]["target"]["samples"]) == 2
