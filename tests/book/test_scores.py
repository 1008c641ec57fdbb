"""The pages of methods say what their classes do."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import scores

from voxuda import methods
from voxuda.experiments import report
from voxuda.experiments.tables import TABLES, Sweep
from voxuda.methods import (
    advent,
    asc,
    cbst,
    domain_randomisation,
    fda,
    le_uda,
    mean_teacher,
    mic,
    minent,
    pdam,
    self_training,
    tent,
    zero_shot,
)
from voxuda.training.run_folder import RESULTS

PAGES = Path(__file__).resolve().parents[2] / "book" / "methods"


def test_every_method_of_others_has_a_page_and_a_score():
    assert {path.stem for path in PAGES.glob("*.md")} == set(scores.PAGES)
    shown = {name for names in scores.PAGES.values() for name in names}
    ours = {"source-only", "supervised", "vox-uda", "balanced", "vox-uda-ngm", "vox-uda-bf", "self-training-nine"}
    assert shown | ours == {row.name for table in ("table1", "today", "ours") for row in TABLES[table]}


def test_a_score_is_that_of_the_runs():
    from voxuda.experiments import sweep

    runs = [sweep.collect(Sweep(table, "laptop"), RESULTS / "laptop")["rows"] for table in ("table1", "today", "ours")]
    collected = {row["name"]: row for rows in runs for row in rows}
    found, seeds = report.scores(collected.values())["pdam"], collected["pdam"]["runs"]
    text = scores.section(("pdam",))
    assert f"| PDAM | {len(seeds)} | {report.mean_and_interval(found)} | 39.8 |" in text and "voxuda.methods.pdam.PDAM" in text


def test_a_method_that_was_not_run_says_so(tmp_path):
    assert "| FDA | 0 | not run yet |  |" in scores.section(("fda",), tmp_path)


@pytest.mark.parametrize(
    ("page", "said", "value"),
    [
        ("pdam", "0.5,\\ 1.5", (float(pdam.source_weight(pdam.torch.full((4, 1), v))) for v in (-9.0, 9.0))),
        ("asc", "200\\,e", asc.ASC.WEIGHT),
        ("fda", "0.005\\,", fda.FDA.WEIGHT),
        ("fda", "two cycles", {2: "two"}[fda.FDA.BAND]),
        ("minent", "0.001\\,", minent.MinEnt.WEIGHT),
        ("advent", "weight 0.001", advent.ADVENT.WEIGHT),
        ("tent", "the last tenth of training", {0.9: "tenth"}[tent.TENT.START]),
        ("mean-teacher", "0.1\\,e", mean_teacher.MeanTeacher.WEIGHT),
        ("mic", "blocks of 8³", mic.MIC.BLOCK),
        ("mic", "0.7 and", mic.MIC.MASKED),
        ("mic", "exceeds 0.968", mic.MIC.SURE),
        ("cbst", "from 20 to 50 %", (round(100 * p) for p in cbst.CBST.PORTIONS)),
        ("cbst", "30 % of training", round(100 * cbst.CBST.WARM_UP)),
        ("domain-randomisation", "with standard deviation 0.5", domain_randomisation.DomainRandomisation.COLOUR),
        ("domain-randomisation", "up to 1.5 voxels", domain_randomisation.DomainRandomisation.BLUR),
        ("domain-randomisation", "up to twice", {2.0: "twice"}[domain_randomisation.DomainRandomisation.NOISE]),
        ("zero-shot", "between 0 and 2", zero_shot.NOISE_RANGE),
        ("self-training", "a factor from 0.8 to 2.5", self_training.SIZES),
        ("self-training", "half of the samples", {0.5: "half"}[self_training.COLOURED]),
        ("self-training", "From 0.3 of training", self_training.WARM_UP),
        ("self-training", "at least 0.65", self_training.SURE),
        ("le-uda", "0.1\\,", le_uda.LEUDA.TARGET_TEACHER),
        ("le-uda", "scaled by 0.01", le_uda.LEUDA.ADVERSARY),
        ("le-uda", "ten times", {10: "ten"}[round(le_uda.LEUDA.ADVERSARY / advent.ADVENT.WEIGHT)]),
    ],
)
def test_a_constant_on_a_page_is_the_one_of_the_class(page, said, value):
    assert said in " ".join((PAGES / f"{page}.md").read_text().split())
    parts = [value] if isinstance(value, (int, float, str)) else list(value)
    for part in parts:
        assert f"{part:g}" in said if not isinstance(part, str) else part in said


def test_pages_name_methods_that_exist():
    assert all(methods.method_class(name) for name in ("pdam", "asc-slices", "le-uda", "zero-shot"))
