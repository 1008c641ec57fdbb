import json

import pytest

from voxuda import data, evaluation, experiments, molecules, simulate
from voxuda.volumes import InputError


@pytest.mark.parametrize("table", list(experiments.TABLES))
def test_rows_are_distinct_and_valid(table):
    rows = experiments.TABLES[table]
    assert len({row.name for row in rows}) == len({row.label for row in rows}) == len(rows)
    configs = [row.config("smoke", 0) for row in rows]
    assert len({repr(c) for c in configs}) == len(configs), "two rows are the same run"


def test_a_row_of_the_same_name_is_the_same_run_in_every_table():
    seen = {}
    for rows in experiments.TABLES.values():
        for row in rows:
            assert seen.setdefault(row.name, row.config("smoke", 0)) == row.config("smoke", 0)


def test_the_papers_row_has_the_papers_options():
    row = next(r for r in experiments.TABLES["modules"] if r.name == "vox-uda")
    assert row.options == {}


def test_finished_runs_are_kept_and_the_table_collects_them(tmp_path, short_smoke):
    rows = experiments.select("modules", ["source-only"])
    for seed in range(2):
        folder = experiments.run_folder(tmp_path, rows[0], seed)
        experiments._run(rows[0].config("smoke", seed), folder, 1)
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("weights.safetensors")}
    result = experiments.reproduce("modules", tmp_path, seeds=2, only=["source-only"])
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("weights.safetensors")}
    assert json.loads((tmp_path / "modules-smoke.json").read_text()) == json.loads(json.dumps(result))
    runs = result["rows"][0]["runs"]
    assert [run["seed"] for run in runs] == [0, 1] and runs[0]["seconds"] > 0 and "torch" in runs[0]["provenance"]
    values = sorted(100 * run["target"]["iou"] for run in runs)
    assert f"| source-only | {sum(values) / 2:.1f} ({values[0]:.1f} to {values[1]:.1f}) |" in experiments.markdown(result)


def test_scores_on_another_target_are_not_the_runs_own(tmp_path, short_smoke, folders):
    row = experiments.select("modules", ["source-only"])[0]
    folder = experiments.run_folder(tmp_path, row, 0)
    experiments._run(row.config("smoke", 0), folder, 1)
    assert experiments._finished(row.config("smoke", 0), folder)
    evaluation.evaluate_run(folder, folders / "target")
    assert not experiments._finished(row.config("smoke", 0), folder)


def test_fewer_seeds_do_not_shorten_the_table(tmp_path, short_smoke):
    row = experiments.select("modules", ["source-only"])[0]
    for seed in range(2):
        experiments._run(row.config("smoke", seed), experiments.run_folder(tmp_path, row, seed), 1)
    result = experiments.reproduce("modules", tmp_path, seeds=1, only=["source-only"])
    assert result["seeds"] == 2 and [run["seed"] for run in result["rows"][0]["runs"]] == [0, 1]


def test_a_run_of_another_version_of_the_row_is_refused(tmp_path, short_smoke):
    row = experiments.select("modules", ["source-only"])[0]
    folder = experiments.run_folder(tmp_path, row, 0)
    experiments._run(row.config("smoke", 0), folder, 1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "learning_rate": 0.5}))
    with pytest.raises(InputError, match="another configuration"):
        experiments.reproduce("modules", tmp_path, only=["source-only"])


def test_bad_names():
    with pytest.raises(InputError, match="no such table"):
        experiments.select("nope")
    with pytest.raises(InputError, match="no such row"):
        experiments.select("modules", ["nope"])
    with pytest.raises(InputError, match="at least 1"):
        experiments.reproduce("modules", "x", seeds=0)


def test_a_table_on_a_folder_says_which(tmp_path, short_smoke):
    samples = simulate.simulate_target([molecules.load("4v94")], n_per_molecule=4)
    data.save(samples, tmp_path / "mine")
    row = experiments.select("real", ["real-zero-shot"])[0]
    config = row.config("smoke", 0, str(tmp_path / "mine"))
    assert config.batch_norm == "running" and config.target == str(tmp_path / "mine")
    experiments._run(config, experiments.run_folder(tmp_path, row, 0), 1)
    result = experiments.reproduce("real", tmp_path, only=["real-zero-shot"], target=str(tmp_path / "mine"))
    assert result["target"] == "mine" and result["rows"][0]["runs"][0]["n"] == 2
    assert len(result["rows"][0]["runs"][0]["target"]["samples"]) == 2
