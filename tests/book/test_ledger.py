"""The fidelity ledger says what is so, and finds what is not."""

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import ledger


def test_every_statement_holds():
    assert ledger.faults() == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (dict(symbol="voxuda.denoising.noise.no_such"), "voxuda.denoising.noise.no_such: no such name"),
        (dict(value=0.3), "voxuda.methods.options.VoxUDAOptions.rho is 0.244, the ledger says 0.3"),
        (
            dict(also={"voxuda.training.config.SCALES.laptop.width": 9}),
            "voxuda.training.config.SCALES.laptop.width is 8, the ledger says 9",
        ),
        (dict(test="test_noise.py::test_no_such"), "test_noise.py::test_no_such: no such test"),
        (dict(cell=("03_noise_generation", "no such line")), "03_noise_generation: no cell has no such line"),
        (dict(cell=("99_none", "x")), "99_none: no cell has x"),
    ],
)
def test_a_planted_fault_is_found(monkeypatch, change, found):
    rho = next(s for s in ledger.STATEMENTS if s.symbol.endswith("VoxUDAOptions.rho"))
    monkeypatch.setattr(ledger, "STATEMENTS", [dataclasses.replace(rho, **change)])
    assert ledger.faults() == [found]


def test_every_option_of_the_method_is_in_the_ledger_or_in_its_page():
    from voxuda.methods import VoxUDAOptions

    text = ledger.page({s.cell[0]: s.cell[0] for s in ledger.STATEMENTS})
    for where, says in ((s.where, s.says) for s in ledger.STATEMENTS):
        assert f"{where}: {says}" in text
    open_or_ours = {
        "gradient",
        "reading",
        "segment_noised",
        "pseudo",
        "share",
        "ema",
        "adversary",
        "warm_up",
        "denoiser",
        "window",
    }
    listed = {s.symbol.rsplit(".", 1)[1] for s in ledger.STATEMENTS if ".VoxUDAOptions." in s.symbol}
    assert {f.name for f in dataclasses.fields(VoxUDAOptions)} == listed | open_or_ours
