# SPDX-License-Identifier: Apache-2.0
"""The metadata service (spec runtime §5.6): appc's answers to pods, by a URL that only the pod has.

Two processes. This one, root, keeps the registrations and takes requests of root alone on a Unix socket. The other,
``rkt-metadata``, has no rights at all (``privsep.confine``) and answers pods on the TCP sockets that this one opens for it:
the loopback address for pods of the host's network, and for others the address of this host by which they reach it, from
when the first of them says so until the last has gone.
"""

from __future__ import annotations

import errno
import hmac
import os
import select
import signal
import socket
import struct
from urllib.parse import parse_qs

from rkt.errors import HostError, RktError, UsageError, quoted
from rkt.linux import libc
from rkt.linux.locks import lock_file
from rkt.linux.metadata_socket import SOCKET_PATH
from rkt.metadata import worker
from rkt.metadata.http import JSON, Answer, Head, Refused, end_of_head, parse_head, render, text_answer
from rkt.metadata.registry import Registration, Registry, answers, is_token, token_digest
from rkt.privsep import confine
from rkt.schema import appc, jsontext
from rkt.values import ACName, PodUUID, is_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.linux.listening import Listening
    from rkt.linux.locks import Lock

LOOPBACK = "127.0.0.1"
_EVERY_ADDRESS = frozenset(("0.0.0.0", "::"))  # noqa: S104 - what an operator may have asked for
#: How long one request of root may take, in seconds.
_REQUEST_SECONDS = 5.0
#: Largest manifest that is accepted, in bytes.
_MAX_MANIFEST_BYTES = jsontext.MAX_DOCUMENT_BYTES
_BACKLOG = 128
_UCRED = struct.Struct("iII")
#: Of <linux/in6.h> and <linux/in.h>; ``socket`` does not have them.
_IPV6_FREEBIND = 78
_IP_FREEBIND = 15
_READ_BYTES = 64 << 10
#: Of the worker's end.
_CHANNEL_FD = 3


class _WorkerEnded(HostError):
    """Nobody answers pods any more."""

    def __init__(self) -> None:
        super().__init__("rkt-metadata, which answers pods, has ended")


class Service:
    """The privileged half.

    Args:
        data_dir: where registrations are kept.
        port: of the public addresses.
        addresses: public addresses; none for those that pods need.
        passed: sockets of a service manager.
        report: says something to the operator.
    """

    def __init__(
        self,
        data_dir: str,
        port: int,
        addresses: list[str],
        passed: list[Listening],
        report: Callable[[str], None],
    ) -> None:
        self._port = port
        self._report = report
        self._fixed = bool(addresses)
        self._lock: Lock | None = None
        self._open: dict[str, socket.socket] = {}
        server = self._take(passed)
        #: By the address on which somebody asks them: ``0.0.0.0`` answers for all.
        for address in addresses or ([] if self._open else [LOOPBACK]):
            self._open[address] = _bind(address, port)
        self._server = server or self._listen()
        self._server.setblocking(False)
        if self._open:
            # Of sockets that were passed, the first says where pods ask.
            self._port = next(iter(self._open.values())).getsockname()[1]
        self._kept = frozenset(self._open)
        self._registry = Registry(data_dir)
        self._registry.load(report)
        self._worker, pid = _start_worker()
        self._worker_fd = os.pidfd_open(pid)

    def _take(self, passed: list[Listening]) -> socket.socket | None:
        """The sockets that a service manager made: a Unix socket to register, others to ask."""
        server = None
        for each in passed:
            handle = socket.socket(fileno=each.fd)
            handle.set_inheritable(False)
            if handle.family == socket.AF_UNIX and handle.type == socket.SOCK_STREAM and server is None:
                server = handle
            elif each.protocol == "tcp":
                self._open[each.address] = handle
            else:
                raise UsageError(f"the socket that was passed as descriptor {each} is not of use here")
        return server

    def _listen(self) -> socket.socket:
        directory = os.path.dirname(SOCKET_PATH)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        os.chmod(directory, 0o755)
        try:
            self._lock = lock_file(f"{SOCKET_PATH}.lock", exclusive=True, blocking=False, mode=0o600)
        except BlockingIOError:
            raise HostError(f"a metadata service listens on {SOCKET_PATH} already") from None
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.unlink(SOCKET_PATH)
        except FileNotFoundError:
            pass
        old = os.umask(0o177)
        try:
            server.bind(SOCKET_PATH)
        finally:
            os.umask(old)
        server.listen(_BACKLOG)
        return server

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            HostError: the other process has ended.
        """
        wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_w)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        self._tell({"op": "key", "key": self._registry.key().hex()})
        for address, listener in self._open.items():
            self._tell({"op": "listen", "address": address}, listener)
        for registration in list(self._registry.known.values()):
            try:
                self._publish(registration)
            except RktError as e:
                self._report(f"registration of pod {registration.uuid} cannot be used: {e.message}")
                del self._registry.known[registration.uuid]
        for address in self._registry.addresses():
            try:
                # Networks come and go with their pods; this one may be back in a moment.
                self._need(address, even_if_absent=True)
            except OSError as e:
                self._report(f"cannot listen on {address}: {e.strerror}")
        where = ", ".join(f"{address} port {each.getsockname()[1]}" for address, each in self._open.items())
        self._report(f"listening on {where}; pods register at {SOCKET_PATH}")
        _notify(b"READY=1")
        poll = select.poll()
        for fd in (self._server.fileno(), self._worker_fd, wake_r):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if wake_r in ready:
                return
            if self._worker_fd in ready:
                raise _WorkerEnded
            self._serve()

    def close(self) -> None:
        """Let go of the socket, if it is ours."""
        if self._lock is not None:
            os.unlink(SOCKET_PATH)
            os.unlink(f"{SOCKET_PATH}.lock")
            self._lock.close()

    def _tell(self, message: dict[str, Any], listener: socket.socket | None = None) -> None:
        try:
            worker.send(self._worker, message, () if listener is None else (listener.fileno(),))
        except OSError:
            raise _WorkerEnded from None

    def _publish(self, registration: Registration) -> None:
        message = {"op": "put", "uuid": registration.uuid, "token": registration.token}
        self._tell({**message, "answers": answers(registration)})

    def _serve(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        with connection:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            pid, uid, _ = _UCRED.unpack(raw)
            if uid != 0:
                self._report(f"user {uid} (process {pid}) may not register pods")
                return
            connection.settimeout(_REQUEST_SECONDS)
            try:
                head, body = _receive(connection)
                if head is None:
                    return  # who only looked whether somebody is there
                try:
                    answer = self._answer(head, body)
                except _WorkerEnded:
                    raise
                except RktError as e:
                    raise Refused(400, e.message) from None
                # Never the query, which has the token.
                self._report(f"{head.method} {quoted(head.path)[1:-1]} - {answer.status}")
            except Refused as e:
                answer = text_answer(f"{e.reason}\n", e.status)
                self._report(f"registration refused: {e.reason}")
            except TimeoutError:
                return
            try:
                connection.sendall(render(answer))
            except OSError:
                return

    def _answer(self, head: Head, body: bytes) -> Answer:
        parts = head.path.removeprefix("/").split("/")
        if parts == [""] and head.method == "GET":
            return Answer(status=200, body=jsontext.dump({"port": self._port}).encode(), kind=JSON)
        if parts[0] == "pods" and len(parts) in {2, 3}:
            uuid = PodUUID.parse(parts[1])
            if head.method == "DELETE" and len(parts) == 2:
                return self._remove(uuid)
            if head.method == "PUT" and len(parts) == 2:
                return self._put_pod(uuid, head.query, body)
            if head.method == "PUT":
                return self._put_app(uuid, parts[2], body)
            raise Refused(405, "the method is PUT or DELETE")
        if parts[0] == "listen" and len(parts) == 3 and head.method == "PUT":
            return self._put_address(PodUUID.parse(parts[1]), parts[2])
        raise Refused(404, "not found")

    def _put_pod(self, uuid: str, query: str, body: bytes) -> Answer:
        token = parse_qs(query).get("token", [""])[-1]
        if not is_token(token):
            raise Refused(400, "a token of at least 32 hexadecimal digits is missing")
        digest = token_digest(token)
        if any(each.token == digest and each.uuid != uuid for each in self._registry.known.values()):
            raise Refused(409, "the token is another pod's")
        pod = appc.parse_pod_manifest(body)
        old = self._registry.known.get(uuid)
        names = {str(app.name) for app in pod.apps}
        registration = Registration(uuid=uuid, token=digest, manifest=body.decode())
        if old is not None and old.token == digest:
            # The pod lives, and its apps have changed.
            apps = {name: manifest for name, manifest in old.apps.items() if name in names}
            registration = registration.replace(apps=apps, addresses=old.addresses)
        return self._keep(registration)

    def _put_app(self, uuid: str, app: str, body: bytes) -> Answer:
        old = self._known(uuid)
        ACName.parse(app, what="app name")
        if appc.parse_pod_manifest(old.manifest.encode()).app(app) is None:
            raise Refused(404, f"pod {uuid} has no app {quoted(app)}")
        appc.parse_image_manifest(body)
        return self._keep(old.replace(apps={**old.apps, app: body.decode()}))

    def _put_address(self, uuid: str, address: str) -> Answer:
        old = self._known(uuid)
        if address in _EVERY_ADDRESS or not is_ip(address):
            raise Refused(400, f"{quoted(address)} is not an address of a host")
        try:
            self._need(address, even_if_absent=False)
        except OSError as e:
            raise Refused(409, f"cannot listen on {quoted(address)}: {e.strerror or e}") from e
        return self._keep(old.replace(addresses=sorted({*old.addresses, address})))

    def _known(self, uuid: str) -> Registration:
        if uuid not in self._registry.known:
            raise Refused(404, f"pod {uuid} is not registered")
        return self._registry.known[uuid]

    def _keep(self, registration: Registration) -> Answer:
        self._registry.put(registration)
        self._publish(registration)
        return text_answer("")

    def _remove(self, uuid: str) -> Answer:
        self._known(uuid)
        self._registry.remove(uuid)
        self._tell({"op": "remove", "uuid": uuid})
        if not self._fixed:
            for address in set(self._open) - self._registry.addresses() - self._kept:
                self._open.pop(address).close()
                self._tell({"op": "close", "address": address})
        return text_answer("")

    def _need(self, address: str, *, even_if_absent: bool) -> None:
        """Listen on an address too, unless that is done already.

        Raises:
            OSError: it cannot be had.
        """
        if address in self._open or _EVERY_ADDRESS & set(self._open):
            return
        if self._fixed:
            raise OSError(errno.EPERM, "--listen-address names others")
        listener = _bind(address, self._port, even_if_absent=even_if_absent)
        self._open[address] = listener
        self._tell({"op": "listen", "address": address}, listener)


def _bind(address: str, port: int, *, even_if_absent: bool = False) -> socket.socket:
    """A listening socket.

    Args:
        address: IPv4 or IPv6.
        port: number.
        even_if_absent: also if no interface has the address yet.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if even_if_absent:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            else:
                listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _receive(connection: socket.socket) -> tuple[Head | None, bytes]:
    """A request; no head when the other side sent nothing."""
    data = bytearray()
    while not (start := end_of_head(data)):
        chunk = _read(connection)
        if not chunk:
            if data:
                raise Refused(400, "half a request")
            return None, b""
        data += chunk
    head = parse_head(bytes(data[:start]), max_body_bytes=_MAX_MANIFEST_BYTES)
    del data[:start]
    while len(data) < head.length:
        chunk = _read(connection)
        if not chunk:
            raise Refused(400, "half a request")
        data += chunk
    return head, bytes(data[: head.length])


def _read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_READ_BYTES)
    except ConnectionError:
        return b""


def _start_worker() -> tuple[socket.socket, int]:
    """Start ``rkt-metadata``; returns the channel to it and the process to watch."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    # Whatever is loaded on first use must be there before there are no files.
    hmac.digest(b"", b"", "sha512")
    uid = confine.FETCH_UID_BASE + (os.getpid() & 0xFFFF)
    pid = os.fork()
    if pid:
        theirs.close()
        return ours, pid
    try:
        # The end of the channel ends it, after the last answer.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        channel = os.dup2(theirs.fileno(), _CHANNEL_FD, inheritable=False)
        libc.close_range(_CHANNEL_FD + 1, 0xFFFFFFFF)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):
            os.dup2(null, stream)
        os.close(null)
        confine.begin(b"rkt-metadata", network=False)
        confine.confine_metadata(uid=uid)
        worker.Server(socket.socket(fileno=channel), worker.write_line).run()
    except BaseException as e:  # noqa: BLE001 - a forked child must not unwind into the parent's frames
        worker.write_line(f"rkt-metadata: {e!r}")
        os._exit(1)
    os._exit(0)


def _notify(text: bytes) -> None:
    """Word to a service manager."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as handle:
            handle.sendto(text, "\0" + address[1:] if address.startswith("@") else address)
