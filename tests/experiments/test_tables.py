import dataclasses
from pathlib import Path

import pytest

from voxuda.experiments import paper, tables
from voxuda.experiments.references import REFERENCES
from voxuda.methods import METHODS, VoxUDAOptions


@pytest.mark.parametrize("table", list(tables.TABLES))
def test_rows_are_distinct_and_valid(table):
    rows = tables.select(table)
    assert len({row.name for row in rows}) == len({row.label for row in rows}) == len(rows)
    made = [(repr(row.config("smoke", 0)), row.statistics) for row in rows if row.runs is None]
    assert len(set(made)) == len(made), "two rows are the same"


def test_a_folder_holds_runs_of_one_configuration():
    seen = {}
    for table in tables.TABLES:
        for row in tables.select(table):
            folder = row.folder(Path(), 0)
            assert seen.setdefault(folder, row.config("smoke", 0)) == row.config("smoke", 0), folder


def test_rows_have_group_norm_unless_they_say_so():
    rows = {row.name: row for table in ("today", "ours", "normalisation") for row in tables.TABLES[table]}
    assert rows["vox-uda"].config("smoke", 0).normalisation == "group"
    assert rows["tent"].config("smoke", 0).normalisation == "batch", "it learns the scales of batch norm"
    assert rows["adabn"].config("smoke", 0) == rows["source-only-batch"].config("smoke", 0)
    assert rows["adabn"].folder(Path(), 0) == rows["source-only-batch"].folder(Path(), 0) == Path("source-only-batch/seed-0")
    assert rows["dann-group"].folder(Path(), 1) == Path("dann/seed-1")


@pytest.mark.parametrize("scale, recipe", [("smoke", "convolution"), ("laptop", "tilt-series"), ("paper", "tilt-series")])
def test_only_a_first_test_has_the_quick_target(scale, recipe):
    row = tables.select("table1")[0]
    assert tables.Sweep("table1", scale).config(row, 0).recipe == recipe
    assert tables.Sweep("table1", scale, recipe="phase-plate").config(row, 0).recipe == "phase-plate"


def test_all_has_each_run_once():
    found = [row.folder(Path(), 0) for row in tables.Sweep("all").rows()]
    assert len(set(found)) == len(found)
    shown = {row.folder(Path(), 0) for name in tables.TABLES for row in tables.select(name)}
    assert set(found) == {folder for folder in shown if not folder.parts[0].startswith("real-")}


def test_every_method_and_every_reference_has_a_row():
    assert {row.method for rows in tables.TABLES.values() for row in rows} == {*METHODS, *REFERENCES}


def test_the_papers_row_has_the_papers_options():
    for table in ("table1", "table3", "modules"):
        assert next(r for r in tables.TABLES[table] if r.name == "vox-uda").options == {}


def test_the_table_of_normalisations_varies_nothing_else():
    rows = tables.TABLES["normalisation"]
    plain = {row.name: row for table in ("table1", "today", "modules") for row in tables.TABLES[table]}
    main = ["source-only", "dann", "vox-uda", "supervised"]
    assert [row.name for row in rows[:12]] == [f"{row}-{kind}" for row in main for kind in ("batch", "group", "renorm")]
    others = [row.method for row in rows[12:]]
    assert others[::2] == others[1::2] and {*others, *main, "self-training", "tent"} == {*METHODS}
    for row in rows:
        name, kind = row.name.rsplit("-", 1)
        wanted = dataclasses.replace(plain[name].config("smoke", 3), normalisation=kind)
        assert row.config("smoke", 3) == wanted
        assert row.runs == (name if kind == plain[name].normalisation else None)


def test_table_2_is_table_1_on_another_source():
    for one, two in zip(tables.TABLES["table1"], tables.TABLES["table2"], strict=True):
        assert (one.method, one.options, one.label) == (two.method, two.options, two.label)
        assert two.source_set == ("table1" if one.method == "supervised" else "table2")


def test_table_4_varies_one_number_at_a_time_and_shows_the_papers_choice():
    defaults, varied = VoxUDAOptions(), {}
    for row in tables.TABLES["table4"]:
        assert len(row.options) == 1 if row.options else row.runs == "vox-uda"
        for option, value in row.options.items():
            assert getattr(defaults, option) != value
            varied.setdefault(option, []).append(value)
    assert set(varied) == {"n_sampled", "rho", "lambdas", "sigma_d", "sigma_r"}
    assert {len(values) for values in varied.values()} == {3}
    assert all(sum(values) == pytest.approx(1) for values in varied["lambdas"])


@pytest.mark.parametrize("table", list(paper.PUBLISHED))
def test_every_number_of_the_paper_has_a_row_of_ours(table):
    ours = {row.name for row in tables.TABLES[table]}
    assert set(paper.PUBLISHED[table]) <= ours
    assert {name.removeprefix("table2-") for name in ours - set(paper.PUBLISHED[table])} <= {"asc", "le-uda"}


def test_published_numbers_hang_together():
    """What the paper says of itself: supervised is the same in both tables, Table IV's chosen values are Table I's best."""
    p = paper.PUBLISHED
    assert p["table1"]["supervised"] == p["table2"]["supervised"]
    best = p["table1"]["vox-uda"]
    chosen = [v for v in p["table4"].values() if v["iou"] == best["iou"]]
    assert len(chosen) == 5 and all(v["dice"] == best["dice"] for v in chosen)
    assert p["table3"]["dann"] == p["table2"]["table2-dann"], "as printed: Table III's baseline is Table II's"


@pytest.mark.parametrize(
    ("row", "seeds"),
    [
        ("vox-uda", 10),
        ("table2-dann", 10),
        ("ball", 10),
        ("self-training", 10),
        ("asc", 5),
        ("without-pl", 5),
        ("rho-0.084", 3),
    ],
)
def test_the_planned_number_of_seeds_is_that_of_the_rows_kind(row, seeds):
    assert tables.planned_seeds(row) == seeds
