# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from rkt.errors import Stage1Error
from rkt.stage1.nspawn import dbus
from rkt.stage1.nspawn import dbus_wire as wire

if TYPE_CHECKING:
    from collections.abc import Iterator


def signal(
    path: str,
    body: bytes,
    signature: str,
    member: str = "PropertiesChanged",
    interface: str = "org.freedesktop.DBus.Properties",
) -> bytes:
    """A signal with a body that is given."""
    head = wire._Writer()
    head.data += struct.pack("=BBBBII", wire._OURS, wire.SIGNAL, 1, 1, len(body), 7)
    fields = [
        (1, ("o", path)),
        (2, ("s", interface)),
        (3, ("s", member)),
        (8, ("g", signature)),
    ]
    head.put("a(yv)", fields)
    head.align(8)
    return bytes(head.data) + body


def change(unit: str, **properties: str | int) -> bytes:
    """That properties of a unit have changed."""
    body = wire._Writer()
    body.put("s", "org.freedesktop.systemd1.Unit")
    pairs = [(name, ("s" if isinstance(v, str) else "u", v)) for name, v in properties.items()]
    body.put("a{sv}", pairs)
    body.put("as", [])
    return signal(dbus.unit_path(unit), bytes(body.data), "sa{sv}as")


def removed(job: str, unit: str, result: str) -> bytes:
    """That a job has ended, or was cancelled."""
    body = wire._Writer()
    for kind, value in zip("uoss", (7, job, unit, result), strict=True):
        body.put(kind, value)
    return signal(
        "/org/freedesktop/systemd1",
        bytes(body.data),
        "uoss",
        "JobRemoved",
        "org.freedesktop.systemd1.Manager",
    )


def reply(serial: int, signature: str = "", *values: object, error: str = "") -> bytes:
    """An answer to a call."""
    body = wire._Writer()
    for kind, value in zip(wire.split(signature), values, strict=True):
        body.put(kind, value)
    head = wire._Writer()
    what = wire.ERROR if error else wire.METHOD_RETURN
    head.data += struct.pack("=BBBBII", wire._OURS, what, 1, 1, len(body.data), 9)
    fields: list[tuple[int, tuple[str, object]]] = [(5, ("u", serial))]
    if error:
        fields.append((4, ("s", error)))
    if signature:
        fields.append((8, ("g", signature)))
    head.put("a(yv)", fields)
    head.align(8)
    return bytes(head.data + body.data)


class Pair:
    """A manager and the other end of its connection."""

    def __init__(self) -> None:
        ours, self.systemd = socket.socketpair()
        ours.setblocking(False)
        self.systemd.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
        self.manager = dbus.Manager(socket.socket(fileno=ours.detach()), deadline=time.monotonic() + 5)
        self.greeting = self.systemd.recv(1000)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection after the greeting."""
    made = Pair()
    yield made
    made.manager.close()
    made.systemd.close()


def test_the_greeting_is_one_write(pair: Pair) -> None:
    """Root introduces itself and begins at once, as systemd's own clients do."""
    assert pair.greeting == b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n"


@pytest.mark.parametrize("answer", [b"REJECTED EXTERNAL\r\n", b"OK x\r\nmore\r\n", b"x" * 5000, b""])
def test_another_greeting_is_refused(answer: bytes) -> None:
    """What does not accept us, talks on, or hangs up is no systemd."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    with ours, theirs, pytest.raises(Stage1Error, match="the pod's systemd"):
        dbus.Manager(ours, deadline=time.monotonic() + 5)


def test_changes_are_told_in_order(pair: Pair) -> None:
    """Each change of a unit is told once, in the order in which it came, whatever its bytes were cut into."""
    data = change("web-app.service", ActiveState="active") + change("1.service", MainPID=7, Result="success")
    for byte in data:
        pair.systemd.sendall(bytes([byte]))
        first = pair.manager.receive()
        if first:
            assert first == [("web-app.service", {"ActiveState": "active"})]
            break
    pair.systemd.sendall(data[len(change("web-app.service", ActiveState="active")) :])
    assert pair.manager.receive() == [("1.service", {"MainPID": 7, "Result": "success"})]
    assert pair.manager.receive() == []


def test_what_comes_while_a_call_waits_is_kept(pair: Pair) -> None:
    """A change before the answer to a call is there afterwards, and the descriptor need not be readable for it."""
    pair.systemd.sendall(change("web.service", ActiveState="active") + reply(1, "o", "/job/1"))
    assert pair.manager.start("web.service") == "/job/1"
    assert pair.manager.has_queued
    assert pair.manager.receive() == [("web.service", {"ActiveState": "active"})]
    assert not pair.manager.has_queued
    sent = pair.systemd.recv(4096)
    assert wire.message_length(sent) == len(sent)
    call = wire.parse(sent)
    assert (call.member, call.interface, call.body) == (
        "StartUnit",
        "org.freedesktop.systemd1.Manager",
        ["web.service", "replace"],
    )


def test_the_end_of_a_job_is_told(pair: Pair) -> None:
    """A job that ends, or is cancelled, is told of its unit, after what it has changed about that."""
    pair.systemd.sendall(
        change("web.service", ActiveState="inactive") + removed("/job/1", "web.service", "canceled")
    )
    assert pair.manager.receive() == [
        ("web.service", {"ActiveState": "inactive"}),
        ("web.service", {dbus.ENDED_JOB: "/job/1"}),
    ]


def test_a_refused_call_says_why(pair: Pair) -> None:
    """An error of systemd's is an error of rkt's with its words and its name."""
    pair.systemd.sendall(
        reply(1, "s", "Unit x.service\nnot found.", error="org.freedesktop.systemd1.NoSuchUnit")
    )
    with pytest.raises(dbus.CallError, match=r"refuses StopUnit x\.service: .*not found") as caught:
        pair.manager.stop("x.service")
    assert caught.value.name == "org.freedesktop.systemd1.NoSuchUnit"
    assert "\n" not in caught.value.message


def test_properties_are_read_all_at_once(pair: Pair) -> None:
    """What is there is told with plain values, what is refused is left out."""

    def answer() -> None:
        for serial in range(1, 16):
            if serial == 1:
                data = reply(serial, "v", ("s", "loaded"))
            elif serial == 4:
                data = reply(serial, "v", ("ay", b"\1\2"))
            elif serial == 5:
                data = reply(serial, "v", ("(uo)", (0, "/")))
            elif serial == 12:
                handler = ("/bin/sh", ["sh", "-c"], False, 1, 2, 3, 4, 5, 1, 7)
                data = reply(serial, "v", ("a(sasbttttuii)", [handler]))
            else:
                data = reply(serial, error="no.such")
            pair.systemd.sendall(data)

    thread = threading.Thread(target=answer)
    thread.start()
    found = pair.manager.properties("web.service")
    thread.join()
    assert found == {
        "LoadState": "loaded",
        "InvocationID": b"\1\2",
        "Job": (0, "/"),
        "ExecStartPre": [("/bin/sh", ["sh", "-c"], False, 1, 2, 3, 4, 5, 1, 7)],
    }


def test_values_come_back_as_they_were() -> None:
    """What is written is read again, with alignment, nesting and all types that are used."""
    values = (True, 255, -1, 2**64 - 1, "text", [("A", ("as", ["x", ""])), ("B", ("t", 7))], b"ab")
    signature = "byitsa(sv)ay"
    message = wire.parse(wire.call(1, "/a", "b.c", "D", signature, values))
    assert message.body == [True, 255, -1, 2**64 - 1, "text", [("A", ["x", ""]), ("B", 7)], b"ab"]


def test_the_end_is_an_error_of_its_own(pair: Pair) -> None:
    """When systemd hangs up, what it said before is told first."""
    pair.systemd.sendall(change("web.service", ActiveState="failed"))
    pair.systemd.close()
    assert pair.manager.receive() == [("web.service", {"ActiveState": "failed"})]
    with pytest.raises(ConnectionError):
        pair.manager.receive()


def test_an_answer_that_never_comes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call waits no longer than it may."""
    monkeypatch.setattr(dbus, "CALL_SECONDS", 0.05)
    with pytest.raises(Stage1Error, match=r"does not answer: StartUnit web\.service"):
        pair.manager.start("web.service")


@pytest.mark.parametrize("seed", range(60))
def test_garbage_is_refused(seed: int) -> None:
    """Bytes that were changed are either a message or an error of rkt's, at once, whatever they claim to be."""
    choose = random.Random(seed)
    whole = bytearray(change("web.service", ActiveState="active", MainPID=7))
    for _ in range(choose.randint(1, 8)):
        whole[choose.randrange(len(whole))] = choose.randrange(256)
    pair = Pair()
    try:
        pair.systemd.sendall(whole)
        pair.manager.receive()
    except wire.WireError:
        pass
    finally:
        pair.manager.close()
        pair.systemd.close()


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("=I", 1 << 26),
        struct.pack("=I", 5) + b"abc",
        struct.pack("=I", 3) + b"abcd",
        struct.pack("=I", 2) + b"\xff\xfe\0",
    ],
    ids=["array beyond the end", "text beyond the end", "text without an end", "no UTF-8"],
)
def test_lengths_are_not_believed(body: bytes) -> None:
    """A length that leads beyond the message is refused."""
    with pytest.raises(wire.WireError):
        wire.parse(signal("/x", body, "as" if len(body) == 4 else "s"))


@pytest.mark.parametrize("signature", ["a" * 200, "(" * 50, "()", "(s", "z", "a", "v" * 3 + "}"])
def test_signatures_are_not_believed(signature: str) -> None:
    """Types that are nested too deeply, incomplete or unknown are refused."""
    with pytest.raises(wire.WireError):
        wire.split(signature)


def test_a_message_too_long_is_refused_before_it_is_read() -> None:
    """Memory is not given to whoever announces a message that is longer than any."""
    head = struct.pack("=BBBBIII", wire._OURS, wire.SIGNAL, 0, 1, wire.MAX_MESSAGE_BYTES, 1, 0)
    with pytest.raises(wire.WireError, match="a D-Bus message of"):
        wire.message_length(head)
    with pytest.raises(wire.WireError, match="not a D-Bus message"):
        wire.message_length(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "unit", ["web.service", "web-app.service", "1.service", "systemd-journald_.service", "é.service"]
)
def test_units_have_one_object_each(unit: str) -> None:
    """The object of a unit is named as systemd names it, and leads back to the unit."""
    path = dbus.unit_path(unit)
    assert dbus.unit_of(path) == unit
    assert path.removeprefix("/org/freedesktop/systemd1/unit/").replace("_", "").isalnum()
    assert dbus.unit_path("web-1.service").endswith("/web_2d1_2eservice")
