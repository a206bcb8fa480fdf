# SPDX-License-Identifier: Apache-2.0
"""Messages of D-Bus as bytes: the header, and values by their signature.

Whoever sends may be wrong: every length is checked against what is there, nesting has a bound, and what does not fit
raises ``WireError``.

Source: D-Bus Specification, "Message Protocol".
"""

from __future__ import annotations

import struct
import sys

from rkt.errors import Stage1Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
#: Longest message that is read; systemd's are a hundredth of that.
MAX_MESSAGE_BYTES = 16 << 20
_MAX_DEPTH = 16
_FIXED_HEADER = 16
_ENDIAN = {0x6C: "<", 0x42: ">"}
_OURS = 0x6C if sys.byteorder == "little" else 0x42
_PROTOCOL = 1
# Header fields.
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SENDER, _SIGNATURE = range(1, 9)
_FIELD_TYPES = {
    _PATH: "o",
    _INTERFACE: "s",
    _MEMBER: "s",
    _ERROR_NAME: "s",
    _REPLY_SERIAL: "u",
    _DESTINATION: "s",
    _SENDER: "s",
    _SIGNATURE: "g",
}
#: Types of a fixed size, which is their alignment too: code of ``struct``, size.
_FIXED = {
    "y": ("B", 1),
    "n": ("h", 2),
    "q": ("H", 2),
    "i": ("i", 4),
    "u": ("I", 4),
    "b": ("I", 4),
    "h": ("I", 4),
    "x": ("q", 8),
    "t": ("Q", 8),
    "d": ("d", 8),
}
_KEY_TYPES = frozenset((*_FIXED, "s", "o", "g"))
_ALIGNMENT = {"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}


class WireError(Stage1Error):
    """Bytes that are no message."""


class Message:
    """A message that came.

    Attributes:
        kind: of the constants above.
        reply_to: serial of the call that it answers, else 0.
        path, interface, member, error: of the header, empty without.
        body: its values.
    """

    __slots__ = ("body", "error", "interface", "kind", "member", "path", "reply_to")

    def __init__(self, kind: int, fields: dict[int, Any], body: list[Any]) -> None:
        self.kind = kind
        self.reply_to: int = fields.get(_REPLY_SERIAL, 0)
        self.path: str = fields.get(_PATH, "")
        self.interface: str = fields.get(_INTERFACE, "")
        self.member: str = fields.get(_MEMBER, "")
        self.error: str = fields.get(_ERROR_NAME, "")
        self.body = body


def call(
    serial: int, path: str, interface: str, member: str, signature: str, values: tuple[Any, ...]
) -> bytes:
    """A method call to whoever listens at the other end of a connection without a bus."""
    body = _Writer()
    for each, value in zip(split(signature), values, strict=True):
        body.put(each, value)
    fields: list[tuple[int, tuple[str, Any]]] = [
        (_PATH, ("o", path)),
        (_INTERFACE, ("s", interface)),
        (_MEMBER, ("s", member)),
    ]
    if signature:
        fields.append((_SIGNATURE, ("g", signature)))
    head = _Writer()
    head.data += struct.pack("=BBBBII", _OURS, METHOD_CALL, 0, _PROTOCOL, len(body.data), serial)
    head.put("a(yv)", fields)
    head.align(8)
    return bytes(head.data + body.data)


def message_length(data: bytes | bytearray) -> int:
    """Length of the message that begins there; 0 when there is too little to know.

    Raises:
        WireError: it is none, or too long.
    """
    if len(data) < _FIXED_HEADER:
        return 0
    endian = _ENDIAN.get(data[0])
    if endian is None or data[3] != _PROTOCOL:
        raise WireError("not a D-Bus message")
    (body,) = struct.unpack_from(endian + "I", data, 4)
    (fields,) = struct.unpack_from(endian + "I", data, 12)
    length = _FIXED_HEADER + (fields + 7 & ~7) + body
    if length > MAX_MESSAGE_BYTES:
        raise WireError(f"a D-Bus message of {length} bytes, more than {MAX_MESSAGE_BYTES}")
    return int(length)


def parse(data: bytes) -> Message:
    """A whole message, as long as ``message_length`` says.

    Raises:
        WireError: it is malformed.
    """
    endian = _ENDIAN[data[0]]
    (body_bytes,) = struct.unpack_from(endian + "I", data, 4)
    start = len(data) - body_bytes
    head = _Reader(data[:start], endian, 12)
    fields: dict[int, Any] = {}
    for code, variant in head.take("a(yv)", 0):
        kind, value = variant
        if _FIELD_TYPES.get(code, kind) != kind:
            raise WireError(f"header field {code} of a D-Bus message has type {kind}")
        fields[code] = value
    reader = _Reader(data[start:], endian, 0)
    body = [_plain(reader.take(each, 0), each) for each in split(fields.get(_SIGNATURE, ""))]
    if reader.at != len(reader.data):
        raise WireError("a D-Bus message is longer than its values")
    return Message(data[1], fields, body)


def split(signature: str) -> list[str]:
    """The complete types of a signature.

    Raises:
        WireError: it is malformed.
    """
    types = []
    at = 0
    while at < len(signature):
        end = _end_of_type(signature, at, 0)
        types.append(signature[at:end])
        at = end
    return types


def _end_of_type(signature: str, at: int, depth: int) -> int:
    if depth > _MAX_DEPTH or at >= len(signature):
        raise WireError(f"malformed D-Bus signature {signature[:64]!r}")
    code = signature[at]
    if code in _FIXED or code in "sogv":
        return at + 1
    if code == "a":
        return _end_of_type(signature, at + 1, depth + 1)
    if code in "({":
        close = ")" if code == "(" else "}"
        at += 1
        first = at
        count = 0
        while signature[at : at + 1] != close:
            at = _end_of_type(signature, at, depth + 1)
            count += 1
        # An entry of a dictionary is a key of a plain type and a value.
        if count == 0 or (code == "{" and (count != 2 or signature[first] not in _KEY_TYPES)):
            raise WireError(f"malformed D-Bus signature {signature[:64]!r}")
        return at + 1
    raise WireError(f"malformed D-Bus signature {signature[:64]!r}")


def _alignment(kind: str) -> int:
    return _FIXED[kind[0]][1] if kind[0] in _FIXED else _ALIGNMENT[kind[0]]


def _plain(value: Any, kind: str) -> Any:
    """Without the types that variants came with."""
    if kind == "v":
        inner, content = value
        return _plain(content, inner)
    if kind[0] == "a":
        element = kind[1:]
        if element[0] == "{":
            key, of = split(element[1:-1])
            return {_plain(k, key): _plain(v, of) for k, v in value}
        return value if isinstance(value, bytes) else [_plain(each, element) for each in value]
    if kind[0] in "({":
        return tuple(_plain(each, of) for each, of in zip(value, split(kind[1:-1]), strict=True))
    return value


class _Writer:
    """Values to bytes, in our own byte order."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, to: int) -> None:
        self.data += bytes(-len(self.data) % to)

    def put(self, kind: str, value: Any) -> None:
        code = kind[0]
        self.align(_alignment(kind))
        if code in _FIXED:
            self.data += struct.pack("=" + _FIXED[code][0], value)
        elif code in "so":
            text = value.encode()
            self.data += struct.pack("=I", len(text)) + text + b"\0"
        elif code == "g":
            self.data += struct.pack("=B", len(value)) + value.encode() + b"\0"
        elif code == "v":
            inner, content = value
            self.put("g", inner)
            self.put(inner, content)
        elif code == "a":
            at = len(self.data)
            self.data += bytes(4)
            self.align(_alignment(kind[1:]))
            start = len(self.data)
            for each in value:
                self.put(kind[1:], each)
            struct.pack_into("=I", self.data, at, len(self.data) - start)
        else:
            for each, of in zip(value, split(kind[1:-1]), strict=True):
                self.put(of, each)


class _Reader:
    """Bytes to values; those of a variant with their type."""

    __slots__ = ("at", "data", "endian")

    def __init__(self, data: bytes, endian: str, at: int) -> None:
        self.data = data
        self.endian = endian
        self.at = at

    def take(self, kind: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise WireError("values of a D-Bus message are nested too deeply")
        code = kind[0]
        self.align(_alignment(kind))
        if code in _FIXED:
            value = self._unpack(*_FIXED[code])
            return bool(value) if code == "b" else value
        if code in "so":
            return self._text(self._unpack("I", 4))
        if code == "g":
            return self._text(self._unpack("B", 1))
        if code == "v":
            types = split(self.take("g", depth))
            if len(types) != 1:
                raise WireError("a D-Bus variant has not one type")
            return types[0], self.take(types[0], depth + 1)
        if code == "a":
            return self._array(kind[1:], depth)
        return tuple(self.take(each, depth + 1) for each in split(kind[1:-1]))

    def align(self, to: int) -> None:
        self.at += -self.at % to

    def _array(self, element: str, depth: int) -> Any:
        size = self._unpack("I", 4)
        self.align(_alignment(element))
        end = self.at + size
        if end > len(self.data):
            raise WireError("an array of a D-Bus message is longer than the message")
        if element == "y":
            self.at = end
            return self.data[end - size : end]
        found = []
        while self.at < end:
            found.append(self.take(element, depth + 1))
        if self.at != end:
            raise WireError("an array of a D-Bus message does not end with an element")
        return found

    def _unpack(self, code: str, size: int) -> int:
        if self.at + size > len(self.data):
            raise WireError("a D-Bus message is shorter than its values")
        (value,) = struct.unpack_from(self.endian + code, self.data, self.at)
        self.at += size
        return int(value) if code != "d" else value

    def _text(self, length: int) -> str:
        end = self.at + length
        if end >= len(self.data) or self.data[end]:
            raise WireError("a text of a D-Bus message has no end")
        text = self.data[self.at : end]
        self.at = end + 1
        try:
            return text.decode()
        except UnicodeDecodeError as e:
            raise WireError("a text of a D-Bus message is not UTF-8") from e
