"""The page of trust shows every figure of the trials, and the trials were clean; every licence is known."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import trusting

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_has_all_figures_and_no_other():
    page = trusting.page((ROOT / "book" / "trust.md").read_text())
    assert "{{" not in page and "Runs that differ in any bit: 0 of" in page
    with pytest.raises(AssertionError, match="does not show"):
        trusting.page("nothing")


def test_no_trial_found_a_fault():
    found = {path.stem: json.loads(path.read_text()) for path in trusting.TRIALS.glob("*.json")}
    assert found["interrupt"]["different"] == found["full_disk"]["different"] == 0
    assert found["interrupt"]["by_time"] >= 50 and len(found["full_disk"]["sentences"]) == 1
    kinds = found["fuzz"]["kinds"]
    assert sum(sum(counts.values()) for counts in kinds.values()) >= 1000
    assert all(counts["fault"] == 0 for counts in kinds.values())
    assert all(run["failed"] == 0 and run["passed"] > 500 for run in found["versions"]["runs"])
    assert {run["python"].rpartition(".")[0] for run in found["versions"]["runs"]} == {"3.11", "3.12", "3.13"}
    made = [record["provenance"] for name, record in found.items() if name != "versions"]
    assert not any(by["commit"].endswith("dirty") for by in [*made, *found["versions"]["runs"]])
    assert len({(by["processor"], by["commit"]) for by in made}) == 1, "the page names one machine and one commit"


def test_every_licence_is_known_and_none_forbids():
    found = trusting.licences()
    assert len(found) > 100
    for entry in found:
        terms = entry["License"]
        assert terms != "UNKNOWN", f"{entry['Name']}: find its licence and name it in UNDECLARED"
        only_gpl = "GPL" in terms and not any(other in terms for other in ("BSD", "MIT", "LGPL", "Public Domain"))
        assert not only_gpl, f"{entry['Name']}: {terms}"
