# SPDX-License-Identifier: Apache-2.0
"""Reading the members of decoded JSON objects, with errors that name the place.

Member names are matched in any case, as rkt's decoder did and as the appc specification's own examples need; unknown
members are ignored; ``null`` is the same as absent. Two spellings of one member are refused like a repeated member.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def spellings(*names: str) -> dict[str, str]:
    """Table from accepted spellings to the canonical one, for ``members``."""
    table = {name: name for name in names}
    for name in names:
        table[name.lower()] = name
    return table


def members(value: object, table: dict[str, str], what: str) -> dict[str, Any]:
    """The known members of an object under their canonical names, without those that are ``null``.

    Args:
        value: decoded JSON.
        table: result of ``spellings``.
        what: names the object in errors.
    Raises:
        InvalidManifest: ``value`` is no object, or one member appears in two spellings.
    """
    if not isinstance(value, dict):
        raise InvalidManifest(f"{what} must be an object")
    known: dict[str, Any] = {}
    for spelling, member in value.items():
        name = table.get(spelling) or table.get(spelling.lower())
        if name is None:
            continue
        if name in known:
            raise InvalidManifest(f"{what} has the member {quoted(name)} twice")
        known[name] = member
    return (
        {name: member for name, member in known.items() if member is not None}
        if None in known.values()
        else known
    )


def read_text(value: object, what: str) -> str:
    """A string without NUL, which no argument, variable or path can carry."""
    if not isinstance(value, str):
        raise InvalidManifest(f"{what} must be a string")
    if "\0" in value:
        raise InvalidManifest(f"{what} {quoted(value)} contains a NUL character")
    return value


def read_list(value: object, what: str) -> list[Any]:
    """An array."""
    if not isinstance(value, list):
        raise InvalidManifest(f"{what} must be a list")
    return value


def read_texts(value: object, what: str) -> list[str]:
    """An array of strings."""
    return [read_text(element, f"an element of {what}") for element in read_list(value, what)]


def read_flag(value: object, what: str) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise InvalidManifest(f"{what} must be true or false")
    return value


def read_integer(value: object, what: str, minimum: int, maximum: int) -> int:
    """An integer within bounds, both included; ``1.0`` and ``true`` are none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidManifest(f"{what} must be an integer")
    if not minimum <= value <= maximum:
        raise InvalidManifest(f"{what} must be between {minimum} and {maximum}")
    return value


def read_text_map(value: object, what: str) -> dict[str, str]:
    """An object whose members are all strings."""
    if not isinstance(value, dict):
        raise InvalidManifest(f"{what} must be an object")
    for name, text in value.items():
        read_text(name, f"a name in {what}")
        read_text(text, f"{what} {quoted(name)}")
    return dict(value)
