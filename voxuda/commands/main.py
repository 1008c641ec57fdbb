"""The command line, ``voxuda COMMAND``."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Annotated

import tyro

from voxuda.commands.data import Data
from voxuda.commands.molecules import Molecules
from voxuda.commands.results import Results
from voxuda.commands.runs import Evaluate, Reproduce, Train
from voxuda.commands.segment import Segment
from voxuda.commands.simulate import Simulate
from voxuda.errors import InputError

Command = (
    Simulate
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Segment, tyro.conf.subcommand("segment")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Results
    | Data
    | Molecules
)

DESCRIPTION = """Vox-UDA for cryo-ET subtomograms: simulate, train, evaluate, segment.

Start with:
  voxuda train --method vox-uda --scale smoke --out runs/first
  voxuda evaluate runs/first

Add --debug to see where an error came from; --version alone prints the version."""


ASCII = {"Å": "A", "±": "+/-", "²": "^2", "³": "^3", "°": " deg", "–": "-", "×": "x", "¬": "not ", "•": "*", "…": "..."}
"""Replacements for characters that the output cannot encode; others are escaped, so that paths stay readable."""
codecs.register_error("voxuda", lambda e: ("".join(ASCII.get(c, ascii(c)[1:-1]) for c in e.object[e.start : e.end]), e.end))  # type: ignore[attr-defined]


def main(arguments: list[str] | None = None) -> int:
    """Run ``voxuda`` and return the exit code, 2 for input that cannot be used."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(f"voxuda {version('voxuda')}")
        return 0
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="voxuda")
    try:
        chosen = tyro.cli(
            Command,  # type: ignore[arg-type]
            args=[a for a in arguments if a != "--debug"],
            prog="voxuda",
            description=DESCRIPTION,
        )
        chosen.run()
    except InputError as error:
        if debug:
            raise
        print(f"voxuda: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError) as error:  # errors that no check caught, also in one sentence
        if debug:
            raise
        about = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(f"voxuda: {about or 'out of memory'}; add --debug to see where.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "voxuda: interrupted; `train --resume`, and `reproduce` or `segment` repeated unchanged, continue where they"
            " stopped; other commands begin again.",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
