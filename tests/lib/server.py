# SPDX-License-Identifier: Apache-2.0
"""A real HTTP or HTTPS server on a loopback address, able to misbehave: lie, stall, truncate, redirect, drip.

``Server.put(path, Page(…))`` says what is served; ``Server.requests`` what was asked for, with headers; ``Server.sent``
how many bytes of bodies went out per path.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

_CHUNK = 1 << 16


@dataclass
class Page:
    """What one path answers.

    Attributes:
        body: bytes; ``repeat`` says how often they come, for bodies larger than memory.
        status, headers: as sent; ``Content-Length`` is added unless given, left out with ``no_length``.
        redirect: target of a 302.
        truncate: close the connection after that many bytes.
        stall: send nothing more after that many bytes, until the client leaves or the server ends.
        drip_seconds: pause after each byte.
        ranges: answer ``Range: bytes=N-`` by 206, when ``If-Range`` is the ETag or Last-Modified of ``headers``.
        ignore_if_range: answer it in any case.
        content_range: a lie in that answer.
        range_status: answer a range by that status and nothing else.
        pace_seconds: pause after each piece of 64 KiB.
        first: statuses of the first requests, before the page is served; with the headers ``first_headers``.
        first_bodies: bodies of the first requests, before ``body``.
        hang_up: close without an answer.
        endless_header: send one header line, a byte at a time, for ever.
        after: hold the body back until that path has been asked for.
        authorization: the header without which the answer is 401.
        challenge: ``WWW-Authenticate`` of each answer with status 401.
    """

    body: bytes = b""
    repeat: int = 1
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    no_length: bool = False
    redirect: str = ""
    truncate: int | None = None
    stall: int | None = None
    drip_seconds: float = 0.0
    ranges: bool = False
    ignore_if_range: bool = False
    content_range: str = ""
    range_status: int = 0
    pace_seconds: float = 0.0
    first: list[int] = field(default_factory=list)
    hang_up: bool = False
    endless_header: bool = False
    after: str = ""
    authorization: str = ""
    challenge: str = ""
    first_headers: dict[str, str] = field(default_factory=dict)
    first_bodies: list[bytes] = field(default_factory=list)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """The body from an offset on."""
        for _ in range(self.repeat):
            piece = self.body[start:]
            start = max(0, start - len(self.body))
            for i in range(0, len(piece), _CHUNK):
                yield piece[i : i + _CHUNK]

    @property
    def size(self) -> int:
        """Length of the whole body."""
        return len(self.body) * self.repeat


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Authority:
    """A private root, in a directory of its own, and the certificates it signs."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="rkt-ca-")
        self.root = os.path.join(self.directory, "root.pem")
        self._key = os.path.join(self.directory, "root.key")
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-days", "2", "-subj", "/CN=rkt test root", "-keyout", self._key),
            *("-out", self.root, "-addext", "keyUsage=critical,keyCertSign"),
        )

    def issue(self, address: str) -> Certificate:
        """A certificate for an address or a host name; goes with this authority."""
        base = os.path.join(self.directory, address)
        kind = "IP" if address[0].isdigit() else "DNS"
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={address}", "-keyout", f"{base}.key", "-out", f"{base}.csr")
        with open(f"{base}.ext", "w", encoding="ascii") as file:
            file.write(f"subjectAltName={kind}:{address}\n")
        _openssl(
            *("x509", "-req", "-in", f"{base}.csr", "-CA", self.root, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", "2", "-extfile", f"{base}.ext", "-out", f"{base}.pem"),
        )
        return Certificate(files=(f"{base}.pem", f"{base}.key"))

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.directory)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


class Certificate:
    """A self-signed certificate for ``localhost`` and 127.0.0.1, in a directory of its own."""

    def __init__(
        self, *, name: str = "localhost", address: str = "127.0.0.1", files: tuple[str, str] | None = None
    ) -> None:
        self.directory = ""
        if files is not None:
            self.certificate, self.key = files
            return
        self.directory = tempfile.mkdtemp(prefix="rkt-tls-")
        self.certificate = os.path.join(self.directory, "cert.pem")
        self.key = os.path.join(self.directory, "key.pem")
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={name}", "-keyout", self.key),
            *("-out", self.certificate, "-addext", f"subjectAltName=DNS:{name},IP:{address}"),
        )

    def close(self) -> None:
        """Remove the files."""
        if self.directory:
            shutil.rmtree(self.directory)


class Server:
    """The server; runs in threads of the test until ``close``."""

    def __init__(
        self,
        *,
        certificate: Certificate | None = None,
        max_tls: ssl.TLSVersion | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        client_roots: str = "",
    ) -> None:
        """``client_roots`` is a file: only clients with a certificate by one of its roots are served."""
        self.pages: dict[str, Page] = {}
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()
        self.lock = threading.Lock()
        self._ending = threading.Event()
        self._http = _Http(self, address, port)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.certificate, certificate.key)
            if max_tls is not None:
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                context.maximum_version = max_tls
                context.set_ciphers("ALL:@SECLEVEL=0")
            if client_roots:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(client_roots)
            self._http.context = context
        scheme = "http" if certificate is None else "https"
        self.authority = f"{address}:{self._http.server_address[1]}"
        self.url = f"{scheme}://{self.authority}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def put(self, path: str, page: Page | bytes) -> str:
        """Serve a page; returns its URL."""
        self.pages[path] = Page(page) if isinstance(page, bytes) else page
        return self.url + path

    def paths(self) -> list[str]:
        """Paths that were asked for, in order."""
        return [request.path for request in self.requests]

    def pause(self, seconds: float) -> bool:
        """Wait; True when the server is ending."""
        return self._ending.wait(seconds)

    def close(self) -> None:
        """Stop, with everything that stalls, and with connections that clients keep."""
        self._ending.set()
        self._http.shutdown()
        for connection in list(self._http.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Http(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, owner: Server, address: str, port: int) -> None:
        self.owner = owner
        self.context: ssl.SSLContext | None = None
        self.connections: set[socket.socket] = set()
        super().__init__((address, port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a client that fails the handshake holds up nobody else.
        request.settimeout(30)
        if self.context is not None:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except (OSError, ValueError):
                return
        self.connections.add(request)
        try:
            super().finish_request(request, client_address)
        except OSError:
            pass  # the client left
        finally:
            self.connections.discard(request)
            if isinstance(request, ssl.SSLSocket):
                request.close()


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_POST(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        pass

    def _answer(self, *, with_body: bool) -> None:
        owner = self.server.owner
        sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        owner.requests.append(Request(self.command, self.path, dict(self.headers.items()), sent))
        page = owner.pages.get(self.path)
        if page is None:
            page = Page(b"not here", status=404)
        if page.hang_up:
            self.close_connection = True
            return
        if page.endless_header:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not owner.pause(0.05):
                self.wfile.write(b"x")
                self.wfile.flush()
            return
        refused = Page(status=401, headers={"WWW-Authenticate": page.challenge} if page.challenge else {})
        if page.first:
            status = page.first.pop(0)
            page = refused if status == 401 else Page(status=status, headers=page.first_headers)
        elif page.authorization and self.headers.get("Authorization") != page.authorization:
            page = refused
        elif page.first_bodies:
            page = replace(page, body=page.first_bodies.pop(0))
        elif page.headers.get("ETag", "-") == self.headers.get("If-None-Match", ""):
            page = Page(status=304, headers=page.headers)
        elif page.redirect:
            page = Page(status=302, headers={"Location": page.redirect})
        start = self._range(page)
        if start and page.range_status:
            start, page = 0, Page(status=page.range_status)
        self.send_response(206 if start else page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if start:
            self.send_header(
                "Content-Range", page.content_range or f"bytes {start}-{page.size - 1}/{page.size}"
            )
        if page.no_length:
            self.send_header("Connection", "close")
        elif "Content-Length" not in page.headers:
            self.send_header("Content-Length", str(page.size - start))
        self.end_headers()
        if with_body:
            self._body(page, start)
        if page.no_length or page.truncate is not None or page.stall is not None:
            self.close_connection = True

    def _range(self, page: Page) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not page.ranges or not match:
            return 0
        condition = self.headers.get("If-Range")
        known = (None, page.headers.get("ETag"), page.headers.get("Last-Modified"))
        return int(match[1]) if page.ignore_if_range or condition in known else 0

    def _send(self, data: bytes) -> None:
        # Counted first: the client may be done before this thread goes on.
        with self.server.owner.lock:
            self.server.owner.sent[self.path] += len(data)
        self.wfile.write(data)

    def _body(self, page: Page, start: int) -> None:
        sent = 0
        deadline = time.monotonic() + 20 * SLOWNESS
        while page.after and page.after not in self.server.owner.paths():
            if self.server.owner.pause(0.02) or time.monotonic() > deadline:
                return
        for chunk in page.chunks(start):
            for limit, stalls in ((page.truncate, False), (page.stall, True)):
                if limit is not None and sent + len(chunk) > limit:
                    self._send(chunk[: limit - sent])
                    self.wfile.flush()
                    if stalls:
                        self._wait_for_the_client()
                    return
            if page.drip_seconds:
                for i in range(len(chunk)):
                    self._send(chunk[i : i + 1])
                    self.wfile.flush()
                    if self.server.owner.pause(page.drip_seconds):
                        return
            else:
                self._send(chunk)
                if page.pace_seconds and self.server.owner.pause(page.pace_seconds):
                    return
            sent += len(chunk)

    def _wait_for_the_client(self) -> None:
        self.connection.settimeout(0.05)
        deadline = time.monotonic() + 60 * SLOWNESS
        while time.monotonic() < deadline and not self.server.owner.pause(0):
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
