# SPDX-License-Identifier: Apache-2.0
r"""Values in unit files and environment files of systemd, so that none can be more than a value (invariant RN21).

A unit file has lines, ``\`` at the end of one that joins it with the next, ``%`` that expands, words in quotes with the
escapes of C, and for many a directive no way to quote at all. What cannot be said in a place is refused by name there.

Source: systemd.syntax(7), systemd.service(5) "Command lines", systemd.exec(5) "EnvironmentFile=".
"""

from __future__ import annotations

from rkt.errors import Stage1Error, quoted

#: Longest line that systemd reads, LONG_LINE_MAX.
_MAX_LINE_BYTES = (1 << 20) - 1
_VARIABLE_START = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_VARIABLE = _VARIABLE_START | frozenset(b"0123456789")
_ESCAPES = {0x22: b'\\"', 0x5C: b"\\\\", 0x0A: b"\\n", 0x09: b"\\t", 0x25: b"%%"}
#: What an environment file takes a backslash before, within double quotes: SHELL_NEED_ESCAPE.
_SHELL = frozenset(b'"\\`$')
_DELETE = 0x7F
_SPACE = 0x20


def word(value: bytes, what: str) -> bytes:
    """One word of a command line, in quotes.

    Raises:
        Stage1Error: systemd takes text only, and this is none.
    """
    _check_text(value, what)
    out = bytearray(b'"')
    for byte in value:
        if byte in _ESCAPES:
            out += _ESCAPES[byte]
        elif byte < _SPACE or byte == _DELETE:
            out += b"\\x%02x" % byte
        else:
            out.append(byte)
    return bytes(out + b'"')


def plain(value: bytes, what: str) -> bytes:
    """The rest of a line that is taken as it stands, such as a path.

    Raises:
        Stage1Error: it holds a control character, for which there is no escape, or begins or ends by what would be cut off.
    """
    _check_text(value, what)
    if any(byte < _SPACE or byte == _DELETE for byte in value):
        raise Stage1Error(f"{what} {_shown(value)} has a control character, which systemd cannot be told")
    if value != value.strip() or value.endswith(b"\\"):
        raise Stage1Error(
            f"{what} {_shown(value)} begins or ends by a character that systemd does not keep there"
        )
    return value.replace(b"%", b"%%")


def directory(value: bytes, what: str) -> bytes:
    """An absolute directory, as ``plain``; ends that systemd would not keep are kept."""
    if not value.startswith(b"/"):
        raise Stage1Error(f"{what} {_shown(value)} is not absolute")
    ends_well = value == value.rstrip() and not value.endswith(b"\\")
    return plain(value if ends_well else value + b"/.", what)


def line(name: str, value: bytes | str) -> bytes:
    """One directive; ``value`` is one of the above, or of this program's own making.

    Raises:
        Stage1Error: it is longer than systemd reads.
    """
    data = name.encode() + b"=" + (value.encode() if isinstance(value, str) else value)
    if b"\n" in data or b"\0" in data:
        raise AssertionError(f"{name}: a value has become two lines")
    if len(data) > _MAX_LINE_BYTES:
        raise Stage1Error(
            f"{name} takes {len(data)} bytes, more than the {_MAX_LINE_BYTES} that systemd reads"
        )
    return data + b"\n"


def environment_file(variables: dict[bytes, bytes]) -> bytes:
    """An environment file with every variable whose name systemd takes, see ``is_variable``.

    Raises:
        Stage1Error: a value is no text.
    """
    out = bytearray()
    for name, value in variables.items():
        if not is_variable(name):
            continue
        _check_text(value, f"environment variable {quoted(name.decode())}:")
        out += name + b'="'
        for byte in value:
            if byte in _SHELL:
                out.append(0x5C)
            out.append(byte)
        out += b'"\n'
    return bytes(out)


def is_variable(name: bytes) -> bool:
    """Whether systemd lets an environment variable have that name: no dots and dashes."""
    return bool(name) and name[0] in _VARIABLE_START and _VARIABLE.issuperset(name)


def _check_text(value: bytes, what: str) -> None:
    try:
        value.decode()
    except UnicodeDecodeError as e:
        raise Stage1Error(f"{what} {_shown(value)} is not UTF-8, which systemd cannot be told") from e
    if b"\0" in value:
        raise Stage1Error(f"{what} {_shown(value)} has a zero byte")


def _shown(value: bytes) -> str:
    return quoted(value.decode(errors="backslashreplace"))
