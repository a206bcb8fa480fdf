# SPDX-License-Identifier: Apache-2.0
"""The systemd of a pod, spoken to by D-Bus over its private socket, without a bus and without a program in the pod.

systemd refuses a peer whose process it cannot see, so a short-lived child joins the pod's pid namespace, connects with
the ids of the pod's root, and hands the connected socket back. Apps reach neither the socket nor the directory it is in.

Calls wait for their answer up to a deadline; what systemd tells about units meanwhile is kept for ``receive``.
"""

from __future__ import annotations

import _socket
import array
import os
import select
import time

from rkt.errors import Stage1Error, quoted
from rkt.linux import libc
from rkt.stage1.nspawn import dbus_wire as wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_DIRECTORY = b"run/systemd"
_SOCKET = b"private"
_SERVICE = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_UNITS = f"{_PATH}/unit/"
_MANAGER = f"{_SERVICE}.Manager"
_UNIT = f"{_SERVICE}.Unit"
_PROPERTIES = "org.freedesktop.DBus.Properties"
#: What ``properties`` asks for, by interface.
_ASKED = {
    _UNIT: ("LoadState", "ActiveState", "SubState", "InvocationID", "Job"),
    f"{_SERVICE}.Service": (
        "Result",
        "MainPID",
        "ControlPID",
        "ExecMainPID",
        "ExecMainCode",
        "ExecMainStatus",
        "ExecStartPre",
        "ExecStopPost",
        "NRestarts",
        "ControlGroup",
    ),
}
#: Told by ``receive`` as if it were a property of the unit: the object of a job of its that has ended, or was cancelled. What
#: the job has changed about the unit is told before (bus_job_send_removed_signal in systemd's dbus-job.c).
ENDED_JOB = "rkt.EndedJob"
#: How long systemd may take to answer a call, in seconds.
CALL_SECONDS = 10.0
_MAX_GREETING_BYTES = 4096
_READ_BYTES = 64 << 10
_MAX_QUEUED = 10_000
_PEERCRED_INTS = 3
_RETRY_SECONDS = 0.01
_LABEL = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_DIGITS = frozenset(b"0123456789")


class CallError(Stage1Error):
    """systemd has refused a call.

    Attributes:
        name: of the error.
    """

    def __init__(self, message: str, name: str) -> None:
        """``name`` as D-Bus has it."""
        super().__init__(message)
        self.name = name


def connect(leader_pid: int, leader_pidfd: int, *, uid: int = 0, deadline: float) -> Manager:
    """A connection to the systemd of a pod.

    Args:
        leader_pid: its process.
        leader_pidfd: likewise.
        uid: of the pod's root on the host, and its group's.
        deadline: by the monotonic clock.
    Raises:
        Stage1Error: it does not answer in time, or is not whom it should be.
    """
    channel, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        root = os.open(f"/proc/{leader_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            directory = libc.openat2(root, _DIRECTORY, os.O_PATH | os.O_DIRECTORY, libc.RESOLVE_IN_ROOT)
        finally:
            os.close(root)
    except OSError as e:
        channel.close()
        theirs.close()
        raise Stage1Error(f"the pod's systemd has no {os.fsdecode(_DIRECTORY)}: {e.strerror}") from e
    child = os.fork()
    if child == 0:
        _help(theirs, directory, leader_pidfd, uid, deadline)
    os.close(directory)
    theirs.close()
    try:
        fd = _take(channel, deadline)
    finally:
        channel.close()
        os.waitpid(child, 0)
    link = _socket.socket(fileno=fd)
    try:
        _check_peer(link, leader_pid)
        link.setblocking(False)
        return Manager(link, deadline=deadline)
    except BaseException:
        link.close()
        raise


def _help(channel: _socket.socket, directory: int, leader_pidfd: int, uid: int, deadline: float) -> NoReturn:
    """Join the pid namespace and have a child of it connect; never returns."""
    try:
        libc.setns(leader_pidfd, libc.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            os.fchdir(directory)
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            link = _connect(deadline)
            rights = array.array("i", [link.fileno()]).tobytes()
            channel.sendmsg([b"+"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
            os._exit(0)
        os.waitpid(child, 0)
    except BaseException as e:  # noqa: BLE001 - a forked child must not unwind into the parent's frames
        channel.send(b"-" + str(e).encode(errors="replace")[:512])
    finally:
        os._exit(0)


def _connect(deadline: float) -> _socket.socket:
    while True:
        link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            link.connect(_SOCKET)
        except (FileNotFoundError, ConnectionRefusedError):
            # It is about to be made.
            link.close()
            if time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return link


def _take(channel: _socket.socket, deadline: float) -> int:
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    if not poll.poll(max(0, int((deadline - time.monotonic()) * 1000))):
        raise Stage1Error("the pod's systemd does not answer")
    data, ancillary, _, _ = channel.recvmsg(1024, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, rights in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    if len(fds) != 1:
        raise Stage1Error(f"cannot reach the pod's systemd: {data[1:].decode(errors='replace')}")
    return fds[0]


def _check_peer(link: _socket.socket, leader_pid: int) -> None:
    """Nobody else has made that socket."""
    data = link.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 4 * _PEERCRED_INTS)
    pid = array.array("i", data)[0]
    if pid != leader_pid:
        raise Stage1Error(f"the socket of the pod's systemd belongs to process {pid}, not {leader_pid}")


class Manager:
    """The connection.

    Args:
        link: connected, not blocking; owned from here on.
        deadline: for the greeting, by the monotonic clock.
    """

    __slots__ = ("_buffer", "_events", "_link", "_replies", "_serial", "_waiting")

    def __init__(self, link: _socket.socket, *, deadline: float) -> None:
        self._link = link
        self._buffer = bytearray()
        #: Unit and changed properties, in the order in which they came.
        self._events: list[tuple[str, dict[str, object]]] = []
        self._replies: dict[int, wire.Message] = {}
        #: Serials of calls whose answer somebody waits for.
        self._waiting: set[int] = set()
        self._serial = 0
        self._greet(deadline)

    def fileno(self) -> int:
        """For poll(2): readable when ``receive`` has something to do."""
        return self._link.fileno()

    @property
    def has_queued(self) -> bool:
        """Whether ``receive`` has something to tell that came while a call waited."""
        return bool(self._events)

    def subscribe(self) -> None:
        """Ask to be told of units."""
        self._manager("Subscribe", "", ())

    def start(self, unit: str) -> str:
        """Begin to start a unit; the object of the job that does."""
        body = self._manager("StartUnit", "ss", (unit, "replace"))
        return body[0] if body and isinstance(body[0], str) else ""

    def start_scope(self, unit: str, pid: int, description: str) -> None:
        """Begin to put a process into a scope of its own, in which it may make groups."""
        properties = [
            ("PIDs", ("au", [pid])),
            ("Delegate", ("b", True)),
            ("Slice", ("s", "machine.slice")),
            ("CollectMode", ("s", "inactive-or-failed")),
            ("Description", ("s", description)),
        ]
        self._manager("StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "fail", properties, []))

    def stop(self, unit: str) -> None:
        """Begin to stop a unit."""
        self._manager("StopUnit", "ss", (unit, "replace"))

    def kill(self, unit: str, signal: int, whom: str = "main") -> None:
        """Send a signal to a unit's processes: ``main``, ``control`` or ``all``."""
        self._manager("KillUnit", "ssi", (unit, whom, signal))

    def reset_failed(self, unit: str) -> None:
        """Forget that a unit has failed."""
        self._manager("ResetFailedUnit", "s", (unit,))

    def reload(self) -> None:
        """Read all files of units again."""
        self._manager("Reload", "", ())

    def properties(self, unit: str) -> dict[str, object]:
        """What ``_ASKED`` names, as far as it is there."""
        serials = {
            name: self._send(unit_path(unit), _PROPERTIES, "Get", "ss", (interface, name))
            for interface, names in _ASKED.items()
            for name in names
        }
        found = {}
        deadline = time.monotonic() + CALL_SECONDS
        for name, serial in serials.items():
            reply = self._wait(serial, f"property {name} of {unit}", deadline)
            if reply.kind == wire.METHOD_RETURN and len(reply.body) == 1:
                found[name] = reply.body[0]
        return found

    def exit(self, status: int) -> None:
        """End the pod with a status; whatever still runs gets the usual time of a shutdown."""
        self._manager("SetExitCode", "y", (status,))
        try:
            self._manager("Exit", "", ())
        except ConnectionError:
            pass  # done

    def receive(self) -> list[tuple[str, dict[str, object]]]:
        """What has changed about units since the last call; never blocks.

        Raises:
            ConnectionError: the other side has hung up, and there is nothing more to tell.
            WireError: it has sent what is no message.
        """
        try:
            self._read()
        except ConnectionError:
            if not self._events:
                raise
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Hang up."""
        self._link.close()

    def _greet(self, deadline: float) -> None:
        """SASL EXTERNAL: root, as the kernel says itself of this connection."""
        # All in one, as systemd's own clients do. What is read together with BEGIN alone systemd leaves lying until more comes.
        self._write(b"\0AUTH EXTERNAL " + b"0".hex().encode() + b"\r\nBEGIN\r\n", deadline)
        answer = b""
        while not answer.endswith(b"\r\n"):
            self._poll(select.POLLIN, deadline, "greeting")
            data = self._link.recv(_MAX_GREETING_BYTES)
            answer += data
            if not data or len(answer) > _MAX_GREETING_BYTES:
                raise Stage1Error("the pod's systemd does not greet")
        if not answer.startswith(b"OK ") or answer.count(b"\n") != 1:
            raise Stage1Error(f"the pod's systemd refuses us: {quoted(answer[:64].decode(errors='replace'))}")

    def _manager(self, member: str, signature: str, values: tuple[Any, ...]) -> list[Any]:
        """Call a method and wait for the answer.

        Raises:
            CallError: it was refused.
            Stage1Error: there was no answer in time.
        """
        what = f"{member} {values[0]}" if values and isinstance(values[0], str) else member
        serial = self._send(_PATH, _MANAGER, member, signature, values)
        reply = self._wait(serial, what, time.monotonic() + CALL_SECONDS)
        if reply.kind == wire.ERROR:
            reason = reply.body[0] if reply.body and isinstance(reply.body[0], str) else reply.error
            raise CallError(f"the pod's systemd refuses {what}: {quoted(reason)}", reply.error)
        return reply.body

    def _send(self, path: str, interface: str, member: str, signature: str, values: tuple[Any, ...]) -> int:
        self._serial += 1
        data = wire.call(self._serial, path, interface, member, signature, values)
        self._waiting.add(self._serial)
        self._write(data, time.monotonic() + CALL_SECONDS)
        return self._serial

    def _wait(self, serial: int, what: str, deadline: float) -> wire.Message:
        try:
            while serial not in self._replies:
                self._poll(select.POLLIN, deadline, what)
                self._read()
            return self._replies.pop(serial)
        finally:
            self._waiting.discard(serial)

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._link.send(view, _socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                # Whoever does not read because we do not: let it finish.
                self._poll(select.POLLIN | select.POLLOUT, deadline, "sending")
                self._read()

    def _poll(self, events: int, deadline: float, what: str) -> None:
        poll = select.poll()
        poll.register(self._link.fileno(), events)
        if not poll.poll(max(0, int((deadline - time.monotonic()) * 1000) + 1)):
            raise Stage1Error(f"the pod's systemd does not answer: {what}")

    def _read(self) -> None:
        """Take everything that is there."""
        while True:
            try:
                data = self._link.recv(_READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                raise ConnectionResetError("the pod's systemd has hung up")
            self._buffer += data
            while (length := wire.message_length(self._buffer)) and len(self._buffer) >= length:
                message = wire.parse(bytes(self._buffer[:length]))
                del self._buffer[:length]
                self._sort(message)

    def _sort(self, message: wire.Message) -> None:
        if message.kind in {wire.METHOD_RETURN, wire.ERROR}:
            if message.reply_to in self._waiting:
                self._replies[message.reply_to] = message
            return
        if message.kind != wire.SIGNAL:
            return
        what = (message.interface, message.member)
        if what == (_PROPERTIES, "PropertiesChanged") and message.path.startswith(_UNITS):
            if len(message.body) < 2 or not isinstance(message.body[1], dict):
                raise wire.WireError("a change of properties without properties")
            self._keep(unit_of(message.path), message.body[1])
        elif what == (_MANAGER, "JobRemoved") and message.path == _PATH:
            if len(message.body) < 3 or not all(isinstance(each, str) for each in message.body[1:3]):
                raise wire.WireError("the end of a job without a job")
            self._keep(message.body[2], {ENDED_JOB: message.body[1]})

    def _keep(self, unit: str, changed: dict[str, object]) -> None:
        """Keep an event for ``receive``."""
        if len(self._events) >= _MAX_QUEUED:
            raise wire.WireError("too many changes of units at once")
        if changed:
            self._events.append((unit, changed))


def unit_path(unit: str) -> str:
    """The object of a unit: what is neither letter nor digit, or a digit at the beginning, is ``_`` and two hex digits."""
    escaped = "".join(
        chr(byte) if byte in _LABEL and (index or byte not in _DIGITS) else f"_{byte:02x}"
        for index, byte in enumerate(unit.encode())
    )
    return _UNITS + escaped


def unit_of(path: str) -> str:
    """The unit of an object; what is not escaped properly stays as it is."""
    label = path[len(_UNITS) :]
    out = bytearray()
    at = 0
    while at < len(label):
        if label[at] == "_":
            try:
                out.append(int(label[at + 1 : at + 3], 16))
            except ValueError:
                out += b"_"
            else:
                at += 3
                continue
        else:
            out += label[at].encode()
        at += 1
    return out.decode(errors="replace")
