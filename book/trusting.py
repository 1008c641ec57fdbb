"""Pages about trust: what was tried to break the package, with the figures of the trials, and whose code it stands on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRIALS = ROOT / "results" / "trust"

UNDECLARED = {"axe-playwright-python": "MIT", "cuda-toolkit": "no files, it only names NVIDIA's packages"}
"""Packages whose metadata name no licence, and what their licence file says."""


def _trial(name: str) -> dict:
    return json.loads((TRIALS / f"{name}.json").read_text())


def figures() -> dict[str, str]:
    """What the page of trust says of the trials, by the names that stand in its text."""
    interrupt, disk, pairs, fuzz, tried = (_trial(name) for name in ("interrupt", "full_disk", "pairs", "fuzz", "versions"))
    rows = [f"| {kind} | {c['answer']} | {c['sentence']} | {c['fault']} |" for kind, c in fuzz["kinds"].items()]
    total = {key: sum(counts[key] for counts in fuzz["kinds"].values()) for key in ("answer", "sentence", "fault")}
    columns = ("python", "torch", "numpy", "commit", "passed", "failed", "skipped")
    versions = ["| " + " | ".join(str(run[column]) for column in columns) + " |" for run in tried["runs"]]
    return {
        "KILLED": str(sum(interrupt["kills"].values())),
        "BY_TIME": str(interrupt["by_time"]),
        "BY_CHANGE": str(interrupt["by_change"]),
        "REACHED": "\n".join(f"| {where} | {count} |" for where, count in sorted(interrupt["kills"].items())),
        "KILL_DIFFERENT": str(interrupt["different"]),
        "FULL": str(disk["full"]),
        "CHECKPOINTS": str(disk["checkpoints"]),
        "DISK_DIFFERENT": str(disk["different"]),
        "SENTENCES": "\n".join(f"> {sentence}" for sentence in disk["sentences"]),
        "PAIRS": str(pairs["pairs"]),
        "PAIRS_KILLED": str(pairs["killed"]),
        "REFUSED": "\n".join(f"| {kind} | {sum(c.values())} | {_refused(c)} |" for kind, c in pairs["outcomes"].items()),
        "WRONG": str(pairs["wrong"]),
        "DAMAGED": f"{sum(total.values()):,}",
        "DAMAGE": "\n".join([*rows, f"| **all** | {total['answer']} | {total['sentence']} | {total['fault']} |"]),
        "VERSIONS": "\n".join(versions),
        "REASONS": "\n".join(f"- {reason}" for reason in sorted({r for run in tried["runs"] for r in run["reasons"]})),
        "MACHINE": "{processor}, Python {python}, torch {torch}; commit {commit}".format(**fuzz["provenance"]),
    }


def _refused(outcomes: dict[str, int]) -> int:
    """In how many pairs of jobs one of the two was refused."""
    return sum(count for how, count in outcomes.items() if "refused" in how)


def page(text: str) -> str:
    """The page with its figures."""
    return fill(text, figures())


def fill(text: str, values: dict[str, str]) -> str:
    """Put values in place of ``{{NAME}}``; all of them, and no others, stand in the text."""
    asked = set(re.findall(r"\{\{([\w-]+)\}\}", text))
    assert asked == set(values), f"the page asks for {asked - set(values)}, and does not show {set(values) - asked}"
    return re.sub(r"\{\{([\w-]+)\}\}", lambda found: values[found[1]], text)


def licences() -> list[dict[str, str]]:
    """Name, version and licence of every package that is installed here."""
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for entry in found:
        if entry["License"] == "UNKNOWN":
            entry["License"] = UNDECLARED.get(entry["Name"], "UNKNOWN")
    return sorted((entry for entry in found if entry["Name"] != "voxuda"), key=lambda entry: entry["Name"].lower())


def licence_page() -> str:
    """The licences of all dependencies as Markdown."""
    rows = [f"| {entry['Name']} | {entry['Version']} | {entry['License'].replace(';', ',')} |" for entry in licences()]
    return "\n".join(
        [
            "# Licences",
            "",
            "The package and the book are under the MIT licence. They stand on these packages, as installed where this page was"
            f" built: {len(rows)} of them, with what builds and tests the book. The list is made from their own metadata.",
            "",
            "| package | version | licence |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )
