"""Star files of RELION and WarpTools, by blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxuda.errors import InputError


def read_star(path: Path) -> dict[str, Any]:
    """Read the blocks of a star file by name: a loop is a data frame, a block without one a dictionary.

    Raises
    ------
    InputError
        The file is missing or cannot be parsed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a star file of RELION or WarpTools, and the files it names beside it.")
    import starfile  # with pandas, slow to import

    try:
        # An image called 12 would else be read as a number.
        return starfile.read(path, always_dict=True, parse_as_string=["rlnImageName"])
    except Exception as error:  # the parser raises IndexError, ValueError or pandas errors, by what is broken
        raise InputError(f"{path}: not a readable star file; export it again from RELION or WarpTools.") from error
