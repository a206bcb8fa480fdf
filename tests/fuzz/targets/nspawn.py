# SPDX-License-Identifier: Apache-2.0
"""What the nspawn flavour says to the pod's systemd, and what that answers.

The first is written, not read: the target writes values and reads them again as systemd does, by readers of its own
after systemd.syntax(7), systemd.service(5) and ``load_env_file``. No value may be more, less or something else there.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, cast

from rkt.errors import Stage1Error
from rkt.stage1.nspawn import dbus_wire, unit_text, units
from tests.fuzz.target import Target

_SEPARATOR = b"\x1f"
_SPACE = b" \t\n\r"
_C_ESCAPES = {
    ord("n"): 10,
    ord("t"): 9,
    ord("\\"): 92,
    ord('"'): 34,
    ord("'"): 39,
    ord("r"): 13,
    ord("s"): 32,
}


def directives(text: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of a unit file: lines end by line feed, carriage return or NUL, or go on by a backslash."""
    found = []
    lines = text.replace(b"\r", b"\n").replace(b"\0", b"\n").split(b"\n")
    held = b""
    for each in lines:
        whole = held + each.strip(_SPACE) if held else each.lstrip(_SPACE)
        held = b""
        if whole[:1] in {b"", b"#", b";", b"["}:
            continue
        if (len(whole) - len(whole.rstrip(b"\\"))) % 2:
            held = whole[:-1] + b" "
            continue
        name, equals, value = whole.partition(b"=")
        assert equals, "a line that is no directive"
        found.append((name.strip(_SPACE), value.strip(_SPACE)))
    assert not held, "the last line goes on"
    return found


def specifiers(value: bytes) -> bytes:
    """A value with ``%%`` read as a percent sign; any other would be replaced by something of the host."""
    parts = value.split(b"%%")
    assert all(b"%" not in part for part in parts), "a specifier"
    return b"%".join(parts)


def words(value: bytes) -> list[bytes]:
    """Words of a command line, quotes and escapes taken away."""
    found: list[bytes] = []
    at = 0
    while at < len(value):
        if value[at] in _SPACE:
            at += 1
            continue
        word, quote = bytearray(), 0
        start = at
        while at < len(value) and (quote or value[at] not in _SPACE):
            byte = value[at]
            at += 1
            if byte == 0x5C:
                assert at < len(value), "an escape of nothing"
                escape = value[at]
                at += 1
                if escape == ord("x"):
                    word.append(int(value[at : at + 2], 16))
                    at += 2
                else:
                    word.append(_C_ESCAPES[escape])
            elif quote:
                if byte == quote:
                    quote = 0
                else:
                    word.append(byte)
            elif byte in b"'\"":
                quote = byte
            else:
                word.append(byte)
        assert not quote, "a quote without an end"
        assert value[start:at] != b";", "another command"
        found.append(specifiers(bytes(word)))
    return found


def environment(text: bytes) -> dict[bytes, bytes]:
    """An environment file, for as much as one in double quotes needs."""
    found = {}
    at = 0
    while at < len(text):
        name, _, _ = text[at:].partition(b"=")
        at += len(name) + 1
        assert text[at : at + 1] == b'"', "a value without quotes"
        at += 1
        value = bytearray()
        while text[at] != ord('"'):
            if text[at] == 0x5C:
                at += 1
                if text[at] not in b'"\\`$':
                    value.append(0x5C)
            value.append(text[at])
            at += 1
        assert text[at : at + 2] == b'"\n', "something behind a value"
        at += 2
        assert name not in found, "a variable twice"
        found[name] = bytes(value)
    return found


def read_unit(data: bytes) -> None:
    """Whatever an image or a person says stays one value of one directive, the same that was said (RN21)."""
    values = data.split(_SEPARATOR)
    program, text, place, *arguments = (*values, b"", b"", b"")[: max(3, len(values))]
    lines: list[tuple[bytes, bytes, bytes]] = []
    refused: Stage1Error | None = None
    for name, make, value in (
        (b"Description", unit_text.plain, text),
        (b"RootDirectory", unit_text.directory, b"/" + place.lstrip(b"/")),
    ):
        try:
            lines.append((name, make(value, "value"), value))
        except Stage1Error as e:
            refused = e
    out = b"[Service]\n" + b"".join(unit_text.line(name.decode(), said) for name, said, _ in lines)
    execute = cast("Any", SimpleNamespace(argv=arguments))
    try:
        command = units._command(b"/" + program.lstrip(b"/"), execute, prefix="!")
    except Stage1Error as e:
        command, refused = None, e
    if command is not None:
        out += unit_text.line("ExecStart", command)
    read = directives(out)
    assert [name for name, _ in read] == [
        *(name for name, _, _ in lines),
        *([b"ExecStart"] if command is not None else []),
    ], "other directives"
    for (_, said), (name, _, meant) in zip(read, lines, strict=False):
        got = specifiers(said)
        assert got == meant or (name == b"RootDirectory" and got == meant + b"/."), "another value"
    if command is not None:
        spoken = words(read[-1][1])
        assert spoken == [b"!:@/" + program.lstrip(b"/"), *arguments], "another command"
    try:
        variables = {bytes(b"V%d" % n): value for n, value in enumerate(arguments)} | {text: place}
        known = {name: value for name, value in variables.items() if unit_text.is_variable(name)}
        assert environment(unit_text.environment_file(known)) == known, "another environment"
    except Stage1Error as e:
        refused = e
    if refused is not None:
        raise refused


def read_dbus(data: bytes) -> None:
    """A message is whole and well-formed or refused; what it says is text and values, never more than it was long."""
    length = dbus_wire.message_length(data)
    if not length or length > len(data):
        raise dbus_wire.WireError("not whole")
    message = dbus_wire.parse(data[:length])
    for text in (message.path, message.interface, message.member, message.error):
        assert isinstance(text, str), "no text"
    assert isinstance(message.reply_to, int), "no number"
    assert len(message.body) <= length, "more values than bytes"
    kind = struct.unpack_from("B", data, 1)[0]
    assert message.kind == kind, "another kind"


TARGETS = (
    Target(
        name="unit",
        read=read_unit,
        refuses=(Stage1Error,),
        pieces=(_SEPARATOR, b"\n", b"\r", b"\\", b"\\\n", b'"', b"'", b"%", b"%%", b"%i", b"$", b"${X}", b"`", b";", b"\\;", b"#", b"[Service]", b"=",
                b"ExecStart=/bin/sh", b" ", b"\t", b"\x7f", b"\x01", b"\0", b"\xff", b"\xc2\x85", b"\xe2\x80\xa8", b"-", b"@", b"+", b"!", b":", b"|", b"~"),
    ),
    Target(
        name="dbus-message",
        read=read_dbus,
        refuses=(dbus_wire.WireError,),
        pieces=(b"l", b"B", b"\x01", b"\x02\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"a(yv)", b"a{sv}", b"a{s}", b"a{sss}", b"a{ays}", b"a{aiv}", b"()", b"v", b"g", b"o", b"s",
                b"\x08\x01g\0", b"\x01\x01o\0", b"(", b")", b"{", b"}", b"a" * 20),
    ),
)  # fmt: skip
