"""The page of results says what the stored runs say, and so does the landing page."""

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import results_page
import scales

from voxuda.experiments import verdicts
from voxuda.experiments.tables import Sweep
from voxuda.training.run_folder import RESULTS

BOOK = Path(__file__).resolve().parents[2] / "book"


def test_every_claim_with_runs_has_a_line_and_a_verdict():
    page = results_page.page((BOOK / "results.md").read_text()).partition("## Scale")[0]
    judged = verdicts.judge(Sweep("table1", "laptop"), results_page.RUNS)
    lines = re.findall(r"^\| [^|]* above [^|]* \| (\[Re\]|\[¬Re\]|\[open\]|shown|not shown|reversed)[^|]*\|", page, re.M)
    assert len(lines) == len(judged.found) > 9 and "{{" not in page
    values = results_page.figures()
    assert sum(int(values[name]) for name in ("reproduced", "refuted", "open")) == int(values["judged"])
    with pytest.raises(AssertionError, match="asks for"):
        results_page.page("nothing")


def test_the_gap_is_closed_from_no_adaptation_to_supervision():
    found = results_page.rows()
    shares = results_page.closed(found)
    assert shares["source-only"] == 0 and shares["supervised"] == 100
    iou = {n: {r["seed"]: r["running"]["iou"] for r in found[n]["runs"]} for n in ("source-only", "vox-uda", "supervised")}
    common = set.intersection(*map(set, iou.values()))
    mean = {n: sum(of[seed] for seed in common) / len(common) for n, of in iou.items()}
    by_hand = (mean["vox-uda"] - mean["source-only"]) / (mean["supervised"] - mean["source-only"])
    assert shares["vox-uda"] == pytest.approx(100 * by_hand)
    assert f"closes {shares['vox-uda']:.0f} % of the gap" in results_page.headline()
    assert "{{headline}}" in (BOOK / "index.md").read_text()


def test_scales_grow_as_the_page_says_and_show_the_means_of_their_runs():
    work = [scales.operations(scale) for scale in ("smoke", "laptop", "desk", "paper")]
    assert all(49 < more / less < 101 for less, more in pairwise(work))
    assert work[-1] == pytest.approx(59e15, rel=0.01)  # chapter F counts the same
    runs = [json.loads(path.read_text()) for path in (RESULTS / "laptop" / "vox-uda").glob("seed-*/summary.json")]
    mean = sum(run["target"]["iou"] for run in runs) / len(runs)
    line = next(line for line in scales.score_table().splitlines() if line.startswith("| Vox-UDA (IBF) "))
    assert f" {100 * mean:.1f} ({len(runs)}) " in line and "{{VERDICTS}}" in (BOOK / "results.md").read_text()


def test_a_published_page_links_each_claim_to_its_runs(monkeypatch):
    monkeypatch.setenv("VOXUDA_REPOSITORY", "https://example.org/a/b")
    judged = verdicts.judge(Sweep("table1", "laptop"), results_page.RUNS)
    links = [re.search(r"\(https://example.org/a/b/tree/main/(.+)\)", results_page._claim(v)[4])[1] for v in judged.found]
    assert links and all((RESULTS.parent / link / "seed-0" / "summary.json").is_file() for link in links)
