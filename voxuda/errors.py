"""Input that cannot be used is said in one sentence: the error, and the checks that raise it."""

from __future__ import annotations

from typing import Literal, get_args, get_origin, get_type_hints


class InputError(Exception):
    """Input that cannot be used. The message is one sentence: the file or value, and what would be right."""


def shown(value: object) -> str:
    """A value from a file as a message shows it: printable, on one line, not too long."""
    text = str(value) if str(value).isprintable() else ascii(value)
    return text if len(text) <= 80 else f"{text[:60]} …"


def check_types(options: object) -> None:
    """Refuse a data class one of whose fields is not of the type that it is declared to have.

    Raises
    ------
    InputError
        Says which field, and what it may be.
    """
    from typeguard import TypeCheckError, check_type  # slow to import

    for name, kind in get_type_hints(type(options)).items():
        try:
            check_type(getattr(options, name), kind)
        except TypeCheckError as error:
            choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
            right = f"choose from {', '.join(choices)}" if choices else f"it must be {getattr(kind, '__name__', kind)}"
            raise InputError(f"{name} is {shown(getattr(options, name))}; {right}.") from error
