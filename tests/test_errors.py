"""Options of another type than declared are refused in one sentence."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest

from voxuda.errors import InputError, check_types
from voxuda.training.config import Config


@dataclass
class Options:
    kind: Literal["a", "b"] = "a"
    count: int = 1
    level: float | None = 0.5
    weights: tuple[float, float] = (0.5, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(kind="c"), "kind is c; choose from a, b."),
        (dict(count=1.5), "count is 1.5; it must be int."),
        (dict(level="high"), "level is high; it must be float | None."),
        (dict(weights=(1.0,)), "weights is (1.0,); it must be tuple."),
        (dict(count="x" * 1000), f"count is {'x' * 60} …; it must be int."),
        (dict(kind="a\nb"), r"kind is 'a\nb'; choose from a, b."),
    ],
)
def test_a_wrong_type_is_named(change, message):
    check_types(Options())
    with pytest.raises(InputError) as caught:
        check_types(dataclasses.replace(Options(), **change))
    assert str(caught.value) == message


def test_a_run_has_the_options_it_declares():
    for bad in (dict(scale="huge"), dict(seed=0.5), dict(batch_norm="x"), dict(width="8"), dict(device="tpu")):
        with pytest.raises(InputError, match=f"{next(iter(bad))} is"):
            Config(**bad)
