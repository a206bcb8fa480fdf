# SPDX-License-Identifier: Apache-2.0
"""JSON with limits, without the start-up cost of the ``json`` package.

``json`` imports ``re`` and ``enum`` for 6 ms; its C scanner and encoder need neither, and are used here directly. Where
they are missing (an interpreter without the accelerator) the package takes over. Repeated members are refused
(CVE-2021-41190 and kin), as are NaN and infinity, half surrogate pairs, deep nesting, documents over the caller's limit,
and integers of more than 4300 digits (CVE-2020-10735, the interpreter's own bound).
"""

from __future__ import annotations

import sys

from rkt.errors import InvalidManifest, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Largest document that is parsed unless the caller says otherwise, in bytes (invariant UN14).
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
#: Deepest nesting of arrays and objects.
MAX_DEPTH = 64
_WHITE_SPACE = " \t\n\r"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"member {quoted(name)} appears twice")
            seen.add(name)
    return members


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"{quoted(text)} is out of range")
    return number


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} has no JSON form")


class _Settings:
    """What the C scanner reads its settings from."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_unique)
    parse_float = staticmethod(_finite)
    parse_int = int
    parse_constant = staticmethod(_no_constant)

    def __init__(self) -> None:
        self.memo: dict[str, str] = {}


try:
    import _json

    _scan: Callable[[str, int], tuple[Any, int]] = _json.make_scanner(_Settings())  # type: ignore[arg-type]
    # No memory of containers seen: values come from parsed documents and records, which hold no cycles.
    _encode: Callable[[Any, int], tuple[str, ...]] = _json.make_encoder(
        None,
        _refuse,
        _json.encode_basestring,
        None,
        ":",
        ",",
        False,
        False,
        False,
    )
except (ImportError, TypeError, AttributeError):  # pragma: no cover - CPython has the accelerator
    import json

    _scan = json.JSONDecoder(
        object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
    ).raw_decode
    _encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    def _encode(value: Any, _level: int) -> tuple[str, ...]:
        return tuple(_encoder.iterencode(value))


def _depth_exceeded(text: str) -> bool:
    """Whether brackets outside strings nest deeper than allowed; one cheap pass over large or suspicious text only."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    in_string = escaped = False
    for c in text:
        if in_string:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == '"':
                in_string = False
        elif c == '"':
            in_string = True
        elif c in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif c in "]}":
            depth -= 1
    return False


def parse(data: bytes | str, *, what: str, limit_bytes: int = MAX_DOCUMENT_BYTES) -> Any:
    """Decode one JSON document.

    Args:
        data: UTF-8 bytes or text; a byte order mark is refused.
        what: names the document in errors.
        limit_bytes: largest size accepted.
    Raises:
        InvalidManifest: not one well-formed document within the limits.
    """
    if len(data) > limit_bytes:
        raise InvalidManifest(f"{what} is too large: {len(data)} bytes, at most {limit_bytes} are accepted")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        if _depth_exceeded(text):
            raise InvalidManifest(f"{what} is nested deeper than {MAX_DEPTH} levels")
        start = 0
        end = len(text)
        while start < end and text[start] in _WHITE_SPACE:
            start += 1
        value, position = _scan(text, start)
        while position < end and text[position] in _WHITE_SPACE:
            position += 1
        if position != end:
            raise ValueError(f"extra data at character {position}")
        if "\\u" in text or not isinstance(data, bytes):
            # Half a surrogate pair is no text: it could never be written again, or would smuggle a byte into a path.
            dump(value).encode("utf-8")
    except StopIteration as e:
        raise InvalidManifest(f"{what} is not JSON: a value is expected at character {e.value}") from None
    except SystemError:
        # Before 3.12 the scanner finds its exception class only if the package is loaded; the package words the error.
        raise InvalidManifest(f"{what} is not JSON: {_worded_error(text)}") from None
    except (ValueError, RecursionError) as e:
        raise InvalidManifest(f"{what} is not JSON: {e}") from None
    return value


def prepare() -> None:
    """Load what words errors, for whoever can import nothing later (privsep.confine)."""
    if sys.version_info < (3, 12):
        import json

        _ = json


def _worded_error(text: str) -> str:
    try:
        import json

        json.loads(text)
    except (ImportError, OSError):
        return "malformed"
    except ValueError as e:
        return str(e)
    return "malformed"  # pragma: no cover - the scanner is stricter than the package only in hooks


def dump(value: Any) -> str:
    """Compact JSON on one line, members in the order given, non-ASCII text kept.

    Raises:
        ValueError: a number is infinite or no number.
        TypeError: something in ``value`` has no JSON form.
    """
    return "".join(_encode(value, 0))


def dump_pretty(value: Any) -> str:
    """JSON indented by tabs, as rkt prints it; not for the hot path."""
    import json

    return json.dumps(value, ensure_ascii=False, indent="\t", allow_nan=False)
