import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from voxuda.commands.main import main
from voxuda.denoising.bilateral import bilateral_filter
from voxuda.experiments import intervals, paper, report, tables, verdicts

STORED = Path(__file__).resolve().parents[2] / "results" / "laptop"
H = paper.GAP_HALF_WIDTH


def test_the_papers_spread_is_that_of_a_knob_that_does_nothing(generator):
    volume = torch.rand(1, 1, 8, 8, 8, generator=generator)
    filtered = [bilateral_filter(volume, sigma_d=sigma_d, sigma_r=1.2) for sigma_d in (100.0, 160.0)]
    assert torch.allclose(*filtered, atol=1e-4)
    assert math.isclose(paper.RUN_DEVIATION, math.sqrt((0.375**2 + 1.375**2 + 0.175**2 + 1.925**2) / 3))
    assert math.isclose(H, 3.182446 * math.sqrt(2) * paper.RUN_DEVIATION, rel_tol=1e-6)  # t of 3 degrees, from a table


@pytest.mark.parametrize(
    ("low", "high", "gap", "expected"),
    [
        (1.0, 30.0, 20.0, "[Re] as large"),
        (1.0, 20 - H - 0.1, 20.0, "[Re] smaller"),
        (20 + H + 0.1, 40.0, 20.0, "[Re] larger"),
        (-5.0, -1.0, 20.0, "[¬Re]"),
        (-1.0, 20 - H - 0.1, 20.0, "[¬Re]"),  # none as large as the paper's
        (-1.0, 20 - H + 0.1, 20.0, "[open]"),
        (0.0, 20.0, 20.0, "[open]"),
        (-math.inf, math.inf, 20.0, "[open]"),
        (0.5, 2.0, 1.0, "[Re] as large, within the paper's own spread"),
        (-2.0, -0.5, 1.0, "[¬Re], within the paper's own spread"),
        (-0.5, 0.5, 1.0, "[open], within the paper's own spread"),
        (0.5, 2.0, None, "shown"),
        (-0.5, 2.0, None, "not shown"),
        (-2.0, -0.5, None, "reversed"),
    ],
)
def test_rules(low, high, gap, expected):
    assert verdicts.rule(low, high, gap) == expected


def test_claims_are_the_papers_and_in_its_direction():
    assert len({claim.name for claim in verdicts.CLAIMS}) == len(verdicts.CLAIMS)
    by_name = {claim.name: claim for claim in verdicts.CLAIMS}
    assert by_name["table1/vox-uda/supervised"].paper == 4.3 and by_name["table3/vox-uda/dann"].paper == 18.4
    assert by_name["table4/n_sampled-10/n_sampled-5"].text == "n_sampled 10 above n_sampled 5"
    assert all(claim.paper > 0 for claim in verdicts.CLAIMS if claim.table.startswith("table"))
    assert all(claim.paper is None for claim in verdicts.CLAIMS if claim.table in ("figure7", "ours"))


def test_rows_without_runs_are_named_and_not_counted():
    sweep, first = tables.Sweep("table1", "laptop"), verdicts.CLAIMS[0]
    again, absent = (
        dataclasses.replace(first, name=name, worse=worse) for name, worse in (("again", first.worse), ("absent", "nope"))
    )
    rows = [
        {
            "statistics": "target",
            "runs": [json.loads(path.read_text()) for path in sorted(STORED.glob(f"{row}/*/summary.json"))],
        }
        for row in (first.better, first.worse)
    ]
    judged = verdicts.judge(sweep, STORED, (first, again, absent))
    assert [v.claim for v in judged.found] == [first, again] and judged.missing == [absent]
    assert judged.comparisons == 1, "the two claims are one comparison"
    found, alone = judged.found[0], intervals.student(report.differences_by_seed(*rows))
    assert (found.gain, found.low, found.high) == pytest.approx(alone), "of one claim, Student's"
    assert found.seeds == len(rows[1]["runs"])


def test_each_row_has_the_statistics_of_its_table():
    asc = next(claim for claim in verdicts.CLAIMS if claim.worse == "asc-slices")
    found = verdicts.judge(tables.Sweep("table1", "laptop"), STORED, [asc]).found[0]
    scores = [
        {
            run["seed"]: 100 * run[kind]["iou"]
            for path in STORED.glob(f"{row}/*/summary.json")
            for run in [json.loads(path.read_text())]
        }
        for row, kind in (("vox-uda", "target"), ("asc-slices", "running"))
    ]
    both = scores[0].keys() & scores[1].keys()
    assert found.gain == pytest.approx(sum(scores[0][seed] - scores[1][seed] for seed in both) / len(both))


def test_the_command_prints_a_line_for_each_claim_and_the_cost(tmp_path, capsys):
    assert main(["results", "verdicts", "--runs", str(STORED), "--markdown"]) == 0
    table, after = capsys.readouterr().out.split("\n\n")
    judged = verdicts.judge(tables.Sweep("table1", "laptop"), STORED)
    assert table.count("\n") - 1 == len(judged.found) > 9 and len(judged.found) + len(judged.missing) == len(verdicts.CLAIMS)
    assert "| Vox-UDA (IBF) above without adaptation | table1 | +40.6 ± 6.2 | " in table
    assert after.startswith(f"{len(judged.found)} claims, {judged.comparisons} comparisons;") and "d0 = " in after
    assert after.endswith(f"{report.cpu_hours(STORED):.1f} CPU hours.\n")
    assert main(["results", "verdicts", "--runs", str(tmp_path)]) == 2
    assert "holds no two rows of a claim" in capsys.readouterr().err


def test_cpu_hours_are_seconds_times_threads(tmp_path):
    for folder, threads in (("a/seed-0", 1), ("b/seed-0", 4)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "summary.json").write_text(json.dumps({"seconds": 1800.0, "provenance": {"threads": threads}}))
    assert report.cpu_hours(tmp_path) == 2.5


def test_a_claim_with_one_seed_is_open(monkeypatch):
    """Its rows' own scatter is unknown, and the other claims' intervals are as if it were not there."""
    monkeypatch.setattr(verdicts, "differences_by_seed", lambda row, _: {"dann": [9.0], "pdam": [5.0, 5.5]}[row["name"]])
    sweep = tables.Sweep("table1", "laptop")
    one, two = (dataclasses.replace(verdicts.CLAIMS[0], better=name, worse="source-only") for name in ("dann", "pdam"))
    found = verdicts.judge(sweep, STORED, claims=[one, two])
    assert [(v.seeds, v.gain) for v in found.found] == [(1, 9.0), (2, 5.25)] and found.comparisons == 1
    assert found.found[0].verdict == "[open]" and math.isinf(found.found[0].low)
    assert [verdicts.seeds(v) for v in found.found] == ["1 of 10", "2 of 5"]
    assert "2 of the verdicts are on fewer seeds than planned" in verdicts.note(found)
    assert found.found[1] == verdicts.judge(sweep, STORED, claims=[two]).found[0]
