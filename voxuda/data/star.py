"""Read and write star files of RELION and WarpTools as text, by block and column."""

from __future__ import annotations

import math
import re
from pathlib import Path

from voxuda.errors import InputError, shown

WORD = re.compile(r"""#.*|"(.*?)"(?!\S)|'(.*?)'(?!\S)|(\S+)""")
"""Pattern of a comment, or of a word, bare or in quotation marks that are followed by a blank."""


def read_star(path: Path) -> dict[str, dict[str, list[str]]]:
    """Read a star file as blocks by name, each a dictionary of columns; a block without a loop has one row.

    All values stay text, since a tomogram may be called 00255, 1e3 or nan; :func:`number` converts those that are numbers.

    Raises
    ------
    InputError
        The file is missing, names a column twice, or has a row with more or fewer values than its table has columns.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a star file of RELION or WarpTools, with the files it names beside it.")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    blocks: dict[str, dict[str, list[str]]] = {}
    name = ""
    columns: list[str] | None = None  # of the current loop
    for i, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        words = _words(line)
        if len(words) == 1 and words[0].startswith("data_"):
            name, columns = words[0].removeprefix("data_"), None
            blocks[name] = {}
        elif words == ["loop_"]:
            blocks[name], columns = {}, []
        elif words and words[0].startswith("_") and not (columns and blocks[name][columns[0]]):
            block, key = blocks.setdefault(name, {}), words[0][1:]
            if key in block:
                raise InputError(f"{path}: line {i} names {shown(key)} again; name each column of a table once.")
            block[key] = [" ".join(words[1:])] if columns is None else []
            if columns is not None:
                columns.append(key)
        elif words and not columns:
            raise InputError(f"{path}: line {i} is in no table of a star file; export it again from RELION or WarpTools.")
        elif words and columns:
            if len(words) != len(columns):
                wrong = f"line {i} has {len(words)} value{'s' * (len(words) > 1)} for {len(columns)} columns"
                raise InputError(f"{path}: {wrong}; put names with blanks in quotation marks, and a value in every column.")
            for column, word in zip(columns, words, strict=True):
                blocks[name][column].append(word)
    return blocks


def _words(line: str) -> list[str]:
    if not any(mark in line for mark in "#\"'"):
        return line.split()  # enough for most lines, and much faster
    return [next(g for g in match.groups() if g is not None) for match in WORD.finditer(line) if match[0][0] != "#"]


def number(star: Path, column: str, text: str, *, least: float = -math.inf) -> float:
    """Convert a star file's value to a finite number of at least ``least``, or refuse it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf or value == -math.inf:
        raise InputError(f"{star}: {column} holds {shown(text)}; it must be a number{' of at least 0' * (least == 0)}.")
    return value


BARE = re.compile(r"(?!(?:data|loop|save|stop|global)_)[^\W_][\w.+-]*|[+-]?[\d.]+", re.I)
"""Pattern of a value that needs no quotation marks; readers split at blanks and take # for a comment and _ for a label."""


def write_star(path: Path, block: str, columns: dict[str, list[str]]) -> None:
    """Write one table from columns of text values."""
    rows = zip(*columns.values(), strict=True)
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        print(f"data_{block}", "", "loop_", *(f"_{name} #{i}" for i, name in enumerate(columns, 1)), sep="\n", file=file)
        for row in rows:
            print(*(value if BARE.fullmatch(value) else f'"{value}"' for value in row), file=file)
