"""The page of results says what the stored runs say, and so does the landing page."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import results_page

from voxuda.experiments import verdicts
from voxuda.experiments.tables import Sweep

BOOK = Path(__file__).resolve().parents[2] / "book"


def test_every_claim_with_runs_has_a_line_and_a_verdict():
    page = results_page.page((BOOK / "results.md").read_text())
    judged = verdicts.judge(Sweep("table1", "laptop"), results_page.RUNS)
    lines = re.findall(r"^\| .* above .* \| (\[Re\]|\[¬Re\]|\[open\]|shown|not shown|reversed)[^|]*\|$", page, re.M)
    assert len(lines) == len(judged.found) > 9 and "{{" not in page
    values = results_page.figures()
    assert sum(int(values[name]) for name in ("reproduced", "refuted", "open")) == int(values["judged"])
    with pytest.raises(AssertionError, match="asks for"):
        results_page.page("nothing")


def test_the_gap_is_closed_from_no_adaptation_to_supervision():
    found = results_page.rows()
    shares = results_page.closed(found)
    assert shares["source-only"] == 0 and shares["supervised"] == 100
    mean = {
        n: sum(run["running"]["iou"] for run in found[n]["runs"]) / len(found[n]["runs"])
        for n in ("source-only", "vox-uda", "supervised")
    }
    by_hand = (mean["vox-uda"] - mean["source-only"]) / (mean["supervised"] - mean["source-only"])
    assert shares["vox-uda"] == pytest.approx(100 * by_hand)
    assert f"closes {shares['vox-uda']:.0f} % of the gap" in results_page.headline()
    assert "{{headline}}" in (BOOK / "index.md").read_text()
