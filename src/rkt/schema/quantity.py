# SPDX-License-Identifier: Apache-2.0
"""Quantities of resource isolators: ``500m``, ``1.5Gi``, ``12e6`` (spec cli §9.7), as exact integers.

A decimal number with optional sign, then nothing, ``m`` (thousandth), ``k`` or ``K``, ``M``, ``G``, ``T``, ``P``, ``E``
(powers of 1000), ``Ki`` … ``Ei`` (powers of 1024), or an exponent ``e12``, ``E-3``. Fractions of the wanted unit round
up, so that a limit that is not zero never becomes zero.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted

_DIGITS = frozenset("0123456789")
_MULTIPLIERS = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}
#: Longest quantity, in characters; the grammar itself has no bound.
_MAX_LENGTH = 64
#: Largest power of ten of an exponent, either way.
_MAX_EXPONENT = 18
#: Largest result: what a signed 64-bit kernel counter holds.
_MAX_RESULT = 2**63 - 1


def quantity_text(value: object, what: str) -> str:
    """The text of a quantity as JSON gives it, a string or a number.

    Raises:
        InvalidManifest: ``value`` is something else, or no quantity.
    """
    if isinstance(value, str):
        text = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        text = repr(value)
    else:
        raise InvalidManifest(f"invalid {what}: a quantity is a string or a number, as in 16M")
    _fraction(text, what)
    return text


def to_units(text: str, what: str) -> int:
    """Whole units (bytes, operations), rounded up.

    Raises:
        InvalidManifest: ``text`` is no quantity, is negative, or is too large.
    """
    numerator, denominator = _fraction(text, what)
    return _bounded(-(-numerator // denominator), text, what)


def to_thousandths(text: str, what: str) -> int:
    """Thousandths of the unit (millicores), rounded up.

    Raises:
        InvalidManifest: ``text`` is no quantity, is negative, or is too large.
    """
    numerator, denominator = _fraction(text, what)
    return _bounded(-(-numerator * 1000 // denominator), text, what)


def bytes_text(size_bytes: int) -> str:
    """A number of bytes as one would type it, exact: ``25Mi``."""
    for suffix in ("Gi", "Mi", "Ki"):
        if size_bytes and size_bytes % _MULTIPLIERS[suffix] == 0:
            return f"{size_bytes // _MULTIPLIERS[suffix]}{suffix}"
    return str(size_bytes)


def _bounded(result: int, text: str, what: str) -> int:
    if result > _MAX_RESULT:
        raise InvalidManifest(f"invalid {what} {quoted(text)}: the quantity is too large")
    return result


def _fraction(text: str, what: str) -> tuple[int, int]:
    """The value as numerator and denominator, both integers."""
    position = 1 if text[:1] in {"+", "-"} else 0
    start = position
    while text[position : position + 1] in _DIGITS:
        position += 1
    digits = text[start:position]
    decimals = 0
    if text[position : position + 1] == ".":
        start = position + 1
        position = start
        while text[position : position + 1] in _DIGITS:
            position += 1
        decimals = position - start
        digits += text[start:position]
    suffix = text[position:]
    if not digits or len(text) > _MAX_LENGTH:
        raise _malformed(text, what)
    number = int(digits)
    denominator = 10**decimals
    if suffix == "m":
        denominator *= 1000
    elif suffix in _MULTIPLIERS:
        number *= _MULTIPLIERS[suffix]
    elif suffix[0] in {"e", "E"}:
        exponent = suffix[1:]
        negative = exponent[:1] == "-"
        exponent = exponent[1:] if exponent[:1] in {"+", "-"} else exponent
        if not exponent or not _DIGITS.issuperset(exponent) or int(exponent) > _MAX_EXPONENT:
            raise _malformed(text, what)
        if negative:
            denominator *= 10 ** int(exponent)
        else:
            number *= 10 ** int(exponent)
    else:
        raise _malformed(text, what)
    if text[0] == "-" and number:
        raise InvalidManifest(f"invalid {what} {quoted(text)}: the quantity is negative")
    return number, denominator


def _malformed(text: str, what: str) -> InvalidManifest:
    return InvalidManifest(
        f"invalid {what} {quoted(text)}: a quantity is a number with a suffix, as in 500m, 16M or 1.5Gi"
    )
