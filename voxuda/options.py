"""Options held in data classes: a field has the type that it is declared to have."""

from __future__ import annotations

from typing import Literal, get_args, get_origin, get_type_hints

from typeguard import TypeCheckError, check_type

from voxuda.volumes import InputError, shown


def check_types(options: object) -> None:
    """Refuse a data class one of whose fields is not of the type that it is declared to have.

    Raises
    ------
    InputError
        Says which field, and what it may be.
    """
    for name, kind in get_type_hints(type(options)).items():
        try:
            check_type(getattr(options, name), kind)
        except TypeCheckError as error:
            choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
            right = f"choose from {', '.join(choices)}" if choices else f"it must be {getattr(kind, '__name__', kind)}"
            raise InputError(f"{name} is {shown(getattr(options, name))}; {right}.") from error
