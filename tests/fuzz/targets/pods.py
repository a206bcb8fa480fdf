# SPDX-License-Identifier: Apache-2.0
"""What comes from inside pods and images, and from processes without rights: accounts, filters, messages, logs."""

from __future__ import annotations

import os
import re
import struct

from rkt.errors import InvalidManifest, Stage1Error
from rkt.linux import seccomp_isolators, syscalls
from rkt.linux import seccomp_profiles as profiles
from rkt.pod.log import escape_controls, parse_line
from rkt.privsep import wire
from rkt.schema.appc import ANNOTATION_DOCKER_REPOSITORY, ANNOTATION_DOCKER_USER
from rkt.stage1.common import control, users
from tests.fuzz.target import Target
from tests.fuzz.targets.documents import JSON_PIECES

# --- accounts -----------------------------------------------------------------------------------------------------


class _Tree:
    """A root that has one account file."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def open(self, path: bytes, flags: int) -> int:
        fd = os.memfd_create("accounts", os.MFD_CLOEXEC)
        os.write(fd, self._text)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd


def _expected(name: str, text: bytes) -> int | None:
    """The id of a name by the book: the first line that has the name and an id."""
    if name == "root":
        return 0
    if re.fullmatch(r"[0-9]+", name):
        return int(name) if len(name) <= 10 and int(name) <= users.MAX_ID else None
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if (
            len(fields) >= 3
            and fields[0] == name.encode()
            and re.fullmatch(rb"[0-9]{1,10}", fields[2])
            and int(fields[2]) <= users.MAX_ID
        ):
            return int(fields[2])
    return None


def read_accounts(data: bytes) -> None:
    """Digits are an id, names are looked up, what is not known is an error, and no id is beyond 2^32-2 (RN13, UN18)."""
    first, _, text = data.partition(b"\n")
    user, _, group = first.decode("utf-8", "replace").replace("\0", "").partition(" ")
    if user.startswith("/") or group.startswith("/"):
        raise Stage1Error("a path needs a root")
    tree = _Tree(text)
    for resolve, name in ((users.resolve_user, user), (users.resolve_group, group)):
        expected = _expected(name, text)
        try:
            found = resolve(tree, name)
        except Stage1Error:
            assert expected is None, "it is there"
        else:
            assert found == expected, "another id"
    ids = users.resolve_both(
        tree,
        user,
        user,
        annotations={ANNOTATION_DOCKER_USER: user, ANNOTATION_DOCKER_REPOSITORY: "x"},
    )
    assert all(0 <= number <= users.MAX_ID for number in ids), "an id that wraps"


# --- filters ------------------------------------------------------------------------------------------------------

_FALL_THROUGH = 0x7FFF0001
#: Stands for the default filter: an answer that no isolator gives.
_DEFAULT = struct.pack("=HBBI", 0x06, 0, 0, _FALL_THROUGH)
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_MACHINE = os.uname().machine


def run_filter(program: bytes, number: int, arch: int) -> int:
    """What a filter answers to a call; every jump leads forward into the program, as the kernel asks (bpf_check_classic)."""
    code = [struct.unpack_from("=HBBI", program, offset) for offset in range(0, len(program), 8)]
    position = accumulator = 0
    while True:
        assert position < len(code), "a jump leads out"
        operation, if_true, if_false, value = code[position]
        position += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            accumulator = {0: number, 4: arch}[value]
        elif operation == 0x05:
            position += value
        else:
            is_true = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[
                operation
            ]
            position += if_true if is_true else if_false


def read_seccomp(data: bytes) -> None:
    """A retain set allows what it names and what is implicit and nothing else; a remove set takes away and gives nothing."""
    lines = data.decode("utf-8", "replace").split("\n")
    kind = seccomp_isolators.REMOVE if lines[0] == "remove" else seccomp_isolators.RETAIN
    errno_name, names = (lines[1] if len(lines) > 1 else ""), lines[2:]
    wish = seccomp_isolators.parse([(kind, names, errno_name)])
    program = seccomp_isolators.compile_isolators([(kind, names, errno_name)], _DEFAULT)
    if wish.everything:
        assert not program, "all is allowed, and yet there is a filter"
        return
    assert len(program) % 8 == 0, "half an instruction"
    assert len(program) // 8 <= 4096, "more than the kernel takes"
    table = syscalls.numbers(_MACHINE)
    arch = syscalls.AUDIT_ARCH.get(_MACHINE)
    if table is None or arch is None:
        return
    named = {
        table[name]
        for name in profiles.expand(n for n in names if not n.startswith("@appc.io/"))
        if name in table
    }
    implicit = {
        table[name] for name in (*profiles.words((profiles.IMPLICIT,)), *profiles.NOT_THERE) if name in table
    }
    for number in {
        *range(0, 480, 7),
        *sorted(named)[:40],
        *sorted(implicit)[:10],
        1 << 30,
        (1 << 30) + 59,
        0xFFFFFFFF,
    }:
        answer = run_filter(program, number, arch)
        if kind == seccomp_isolators.REMOVE:
            assert answer in {wish.action, _FALL_THROUGH}, "a remove set allows something"
            assert (answer == wish.action) == (number in named) or wish.action == _FALL_THROUGH, (
                "another call is removed"
            )
        elif number < 1 << 30:
            allowed = answer in {_ALLOW, _FALL_THROUGH}
            assert allowed == (number in named or number in implicit), (
                "a retain set allows another call, or not what it names"
            )
        else:
            assert answer == _FALL_THROUGH, "another ABI is not left to the default filter"
    assert run_filter(program, 0, arch ^ 1) == _FALL_THROUGH, "another ABI is not left to the default filter"


# --- messages -----------------------------------------------------------------------------------------------------


class _Connection:
    """The other side has said this, in pieces."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data = data
        self._piece = piece

    def recv(self, count: int, /) -> bytes:
        """What comes next."""
        count = min(count, self._piece)
        data, self._data = self._data[:count], self._data[count:]
        return data

    def sendall(self, data: bytes, /) -> None:
        """Nothing listens."""


def _messages(data: bytes, piece: int) -> tuple[list[object], bool]:
    receiver = wire.Receiver(_Connection(data, piece))
    found: list[object] = []
    try:
        while (message := receiver.receive()) is not None:
            found.append(message)
    except wire.WireError:
        return found, False
    return found, True


def read_wire(data: bytes) -> None:
    """Messages of a worker are objects, however the stream is cut; what is shown of them is one line."""
    found, whole = _messages(data, 1 << 16)
    assert _messages(data, 7) == (found, whole), "cut elsewhere it says something else"
    for message in found:
        assert isinstance(message, dict), "not an object"
        for value in message.values():
            assert wire.foreign_text(value).isprintable(), "control characters"
    if not whole:
        raise wire.WireError("not in the protocol")


def read_control(data: bytes) -> None:
    """What is said to the supervisor is one object, or refused."""
    message = control.receive(_Connection(data, 1 << 20))  # type: ignore[arg-type]
    assert message is None or isinstance(message, dict), "not an object"
    assert message is not None or not data, "it hung up, and said something"


def read_log(data: bytes) -> None:
    """A line of a log is cut in one way, and what is shown of it has no control characters but tabs (LG3)."""
    for line in data.split(b"\n"):
        entry = parse_line(line)
        shown = escape_controls(line)
        text = shown.decode()
        assert not any((c < " " and c != "\t") or "\x7f" <= c <= "\x9f" for c in text), "a control character"
        assert escape_controls(shown) == shown, "escaped twice"
        if entry is not None:
            assert line.endswith(entry.text), "text from nowhere"
            assert line.startswith(entry.time + b" " + entry.stream.encode() + b" "), "another time or stream"


_CALLS = (b"read", b"write", b"clone", b"clone3", b"mount", b"bpf", b"socket", b"@rkt/default-whitelist", b"@docker/default-whitelist", b"@systemd/mount",
          b"@appc.io/all", b"@appc.io/empty", b"EPERM", b"ENOSYS", b"__doc__", b"errorcode", b"remove\n", b"retain\n", b"\n", b"nanosleep", b"_sysctl")  # fmt: skip
TARGETS = (
    Target(
        name="accounts",
        read=read_accounts,
        refuses=(Stage1Error,),
        pieces=(b"root", b"0", b"4294967295", b"4294967294", b"00", b":", b"::", b"\n", b"x", b"app app\n", b"app:x:1000:1000::/:/bin/sh\n", b"\xd9\xa3", b"\xc2\xb2", b"-1",
                b" ", b"\r", b"\0", b"99999999999"),
    ),
    Target(name="seccomp", read=read_seccomp, refuses=(ValueError, OSError), pieces=_CALLS),
    Target(name="worker-message", read=read_wire, refuses=(wire.WireError,), pieces=(*JSON_PIECES, b"\n", b'{"event":', b'{"result":', b'{"error":')),
    Target(name="stage1-control", read=read_control, refuses=(InvalidManifest,), pieces=(*JSON_PIECES, b'"ask"', b'"app"', b'"stop"')),
    Target(
        name="app-log",
        read=read_log,
        pieces=(b"2026-11-23T01:00:00.000000000Z ", b"stdout ", b"stderr ", b"F ", b"P ", b"F:x ", b" ", b"\n", b"\x1b[2J", b"\xc2\x9b", b"\xff", b"\xe2\x80\xae", b"\r"),
    ),
)  # fmt: skip
