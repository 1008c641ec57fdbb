"""The error for unusable input, and the checks that raise it."""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args, get_origin, get_type_hints


@cache
def _types(kind: type) -> dict:
    """Return the declared type of each field of a class; finding them takes longer than checking a configuration."""
    return get_type_hints(kind)


class InputError(Exception):
    """Error for unusable input. The message is one sentence that names the file or value and says how to correct it."""


def shown(value: object) -> str:
    """Format a value from a file for a message, printable, on one line and at most 80 characters long."""
    text = str(value) if str(value).isprintable() else ascii(value)
    return text if len(text) <= 80 else f"{text[:60]} …"


def check_types(options: object) -> None:
    """Refuse a dataclass if a field does not have its declared type.

    Raises
    ------
    InputError
        A field has the wrong type; the message names the field and what it may be.
    """
    from typeguard import TypeCheckError, check_type  # slow to import

    for name, kind in _types(type(options)).items():  # type: ignore[arg-type]  # a class can be hashed
        try:
            check_type(getattr(options, name), kind)
        except TypeCheckError as error:
            choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
            right = f"choose from {', '.join(choices)}" if choices else f"it must be {getattr(kind, '__name__', kind)}"
            raise InputError(f"{name} is {shown(getattr(options, name))}; {right}.") from error
