import math

import pytest

from voxuda.experiments import intervals, report


def run(seed, samples, oracle=None):
    scores = dict(iou=sum(samples) / len(samples), dice=0.5, samples=samples, classes={"4v4r": 0.4, "4cr2": 0.2})
    return {"seed": seed, "target": scores, "running": scores, "oracle": oracle and {"epoch": 1, "iou": oracle}}


def row(name, label, *runs):
    return {"name": name, "label": label, "method": name, "statistics": "target", "runs": list(runs)}


RESULT = {
    "table": "table1",
    "rows": [
        row("dann", "DANN", run(0, [0.30, 0.32], 0.4), run(1, [0.34, 0.36], 0.4), run(2, [0.1, 0.1], 0.4)),
        row("vox-uda", "Vox-UDA (IBF)", run(0, [0.40, 0.42], 0.5), run(1, [0.48, 0.50])),
        row("asc", "ASC", run(3, [0.2, 0.2])),
    ],
}


def test_ours_stand_beside_the_papers():
    lines = report.beside_the_paper(RESULT, "dann").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:6] == ["", "seeds", "IoU (95 %, moderated t)", "paper", "minus DANN, common seeds (95 %)", "Dice"]
    dann, ours, slices = cells[2:]
    assert dann[2].startswith("25.3 (") and dann[3:5] == ["38.4", ""] and dann[-1] == "40.0"
    # Paired over the two seeds that both have: +10 and +14.
    assert ours[3] == "50.3" and ours[4] == "+12.0 (-13.4 to +37.4)"
    assert ours[-1] == "", "of one run there is no oracle"
    assert slices[3:5] == ["", ""], "no number in the paper, no seed in common"
    assert cells[0][-3:] == ["IoU 26S proteasome", "IoU ribosome", "best epoch by test labels"]


def test_a_table_that_is_not_the_papers_has_no_column_for_it():
    header = report.beside_the_paper({**RESULT, "table": "today"}, "dann").splitlines()[0]
    assert (
        header.startswith(
            "|  | seeds | IoU (95 %, moderated t) | minus DANN, common seeds (95 %) | Dice | IoU 26S proteasome |"
        )
        and "paper" not in header
    )


def test_the_scatter_of_differences_says_how_many_seeds():
    note = report.power_note(RESULT, "vox-uda")
    assert "scatter by 2.8 points" in note and "over 1 rows" in note  # of 10 and 14
    assert "65 for 1, 18 for 2, 10 for 3" in note
    same = {**RESULT["rows"][0], "name": "baseline"}
    assert report.power_note({"rows": [*RESULT["rows"], same]}, "vox-uda") == note, "the same runs count once"
    reference = {**RESULT["rows"][1], "name": "otsu", "method": "otsu"}
    assert report.power_note({"rows": [*RESULT["rows"], reference]}, "dann") == report.power_note(RESULT, "dann")
    assert "no trained row has two seeds in common" in report.power_note(RESULT, "asc")
    assert "no run of nope" in report.power_note(RESULT, "nope")


def test_plain_text_is_aligned():
    lines = report.plain(report.beside_the_paper(RESULT, "dann")).splitlines()
    end = lines[0].index("seeds") + len("seeds")
    assert [line[:end].split()[-1] for line in lines[2:]] == ["3", "2", "1"]
    assert set(lines[1]) == {"-", " "} and "|" not in "".join(lines)


def test_intervals_are_moderated_over_the_rows_of_a_table():
    rows = RESULT["rows"]
    found = intervals.moderated([[31.0, 35.0, 10.0], [41.0, 49.0], [20.0]], family=1).intervals
    expected = dict(zip(("dann", "vox-uda", "asc"), [*found[:2], (20.0, -math.inf, math.inf)], strict=True))
    again = {**rows[0], "name": "again"}
    scores = report.scores([*rows, again])
    assert scores.pop("again") == scores["dann"], "the same runs count once"
    assert scores == {name: pytest.approx(interval) for name, interval in expected.items()} == report.scores(rows)
    gains = report.gains([*rows, again], rows[0])
    assert gains == {"vox-uda": pytest.approx(intervals.student([10.0, 14.0]))}, "the others have its runs, or no seed of it"
    assert report.mean_and_interval(report.scores(rows[2:])["asc"]) == "20.0", "of one seed nothing is known"


def test_statistics_are_chosen_by_agreement_and_not_by_score():
    def run(agreements, scores):
        kinds = ("target", "running", "mixed")
        signs = {kind: {"agreement": value} for kind, value in zip(kinds, agreements, strict=True)}
        return {"signs": signs, **{kind: {"iou": value} for kind, value in zip(kinds, scores, strict=True)}}

    row = {"label": "a row", "runs": [run((0.5, 0.9, 0.6), (0.4, 0.1, 0.2)), run((0.6, 0.5, 0.5), (0.4, 0.1, 0.2))]}
    one = {"label": "group norm", "runs": [run((0.7, 0.7, 0.7), (0.3, 0.3, 0.3))]}
    old = {"label": "without signs", "runs": [{"target": {"iou": 0.1}}]}
    assert report.by_agreement(row) == "running" and report.by_agreement(old) is None
    lines = report.normalisations({"rows": [row, one, old]}).splitlines()
    assert lines[2] == "| a row | 2 | 40.0 | 10.0 | 20.0 | 55.0 | 70.0 | 55.0 | running |"
    assert lines[3].endswith("| any |") and len(lines) == 4
