# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import pytest

from rkt.errors import FetchError
from rkt.fetch.answer import Downloaded
from rkt.fetch.limits import TransferLimits
from rkt.fetch.transport import Client, make_tls_context
from tests.lib.pace import SLOWNESS
from tests.lib.server import Certificate, Page, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

IMPATIENT = TransferLimits(
    connect_seconds=2,
    idle_seconds=0.3,
    total_seconds=2,
    slow_window_seconds=0.5,
    slow_bytes_per_second=1000,
    attempts=2,
    retry_seconds=0.01,
)


@pytest.fixture
def server() -> Iterator[Server]:
    """A plain server."""
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def certificate() -> Iterator[Certificate]:
    """A certificate that no system trusts."""
    made = Certificate()
    yield made
    made.close()


def get(
    url: str,
    *,
    limit_bytes: int = 1 << 20,
    defer: bool = False,
    context: ssl.SSLContext | None = None,
    limits: TransferLimits = IMPATIENT,
) -> tuple[bytes, Downloaded]:
    """Download into a temporary file; returns its content."""
    client = Client(context or make_tls_context(insecure=False), user_agent="rkt/test", limits=limits)
    try:
        with tempfile.TemporaryFile() as file:
            answer = client.download(url, file.fileno(), limit_bytes=limit_bytes, defer=defer)
            file.seek(0)
            return file.read(), answer
    finally:
        client.close()


def test_a_body_arrives_unchanged(server: Server) -> None:
    """Bytes are stored as they lie on the server, whatever encoding it claims; caching headers are handed on."""
    body = os.urandom(600_000)
    page = Page(body, headers={"ETag": '"x"', "Cache-Control": "max-age=7", "Content-Encoding": "gzip"})
    data, answer = get(server.put("/x.aci", page))
    assert data == body
    assert answer == Downloaded(
        size_bytes=len(body), etag='"x"', cache_control="max-age=7", url=f"{server.url}/x.aci"
    )
    headers = server.requests[0].headers
    assert headers["User-Agent"] == "rkt/test"
    assert headers["Accept-Encoding"] == "identity"
    assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(headers)


def test_redirects_are_followed_ten_times(server: Server) -> None:
    """Relative and absolute targets are followed, the eleventh is not."""
    server.put("/end.aci", b"end")
    for i in range(10):
        server.put(f"/{i}", Page(redirect=f"{i + 1}" if i % 2 else f"{server.url}/{i + 1}"))
    server.put("/10", b"ten")
    assert get(server.url + "/0")[0] == b"ten"
    server.put("/10", Page(redirect="/end.aci"))
    with pytest.raises(FetchError, match="too many redirects"):
        get(server.url + "/0")
    assert "/end.aci" not in server.paths()


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://user:secret@127.0.0.1/x", "gopher:x", "http://[bad"],
)
def test_redirects_lead_nowhere_else(server: Server, target: str) -> None:
    """A redirect may only name another http or https URL without credentials."""
    with pytest.raises(FetchError):
        get(server.put("/x", Page(redirect=target)))
    assert server.paths() == ["/x"]


def test_who_was_led_elsewhere_has_no_credentials_any_more(certificate: Certificate) -> None:
    """RG2: neither the host that is redirected to gets them, nor the first one when that leads back to it."""
    with Server(certificate=certificate) as one, Server(certificate=certificate) as other:
        other.put("/there", Page(redirect=one.put("/back", b"x")))
        url = one.put("/x", Page(redirect=f"{other.url}/there"))
        host, _, port = one.url.removeprefix("https://").partition(":")
        mine = {"host": host, "port": int(port), "headers": {"Authorization": "Basic c2VjcmV0"}}
        client = Client(
            make_tls_context(insecure=True),
            user_agent="rkt/test",
            limits=IMPATIENT,
            access={"authorizations": [mine]},
        )
        assert client.get(url, limit_bytes=10) == b"x"
        client.close()
        sent = [(request.path, "Authorization" in request.headers) for request in one.requests]
        assert sent == [("/x", True), ("/back", False)]
        assert ["Authorization" in request.headers for request in other.requests] == [False]


def test_https_never_becomes_http(server: Server, certificate: Certificate) -> None:
    """A redirect from https to http is refused even when certificates are not checked."""
    server.put("/plain.aci", b"x")
    with Server(certificate=certificate) as secure:
        url = secure.put("/x.aci", Page(redirect=f"{server.url}/plain.aci"))
        with pytest.raises(FetchError, match="redirects from https to"):
            get(url, context=make_tls_context(insecure=True))
    assert server.paths() == []


def test_certificates_are_checked(certificate: Certificate) -> None:
    """An unknown issuer is refused, a known one is accepted, the opt-out is an opt-out."""
    with Server(certificate=certificate) as server:
        url = server.put("/x.aci", b"x")
        with pytest.raises(FetchError, match="certificate is not valid"):
            get(url)
        context = make_tls_context(insecure=False)
        context.load_verify_locations(certificate.certificate)
        assert get(url, context=context)[0] == b"x"
        assert get(url, context=make_tls_context(insecure=True))[0] == b"x"


def test_the_host_name_is_checked() -> None:
    """A certificate of a known issuer for another host is refused."""
    other = Certificate(name="other.example", address="127.0.0.9")
    try:
        context = make_tls_context(insecure=False)
        context.load_verify_locations(other.certificate)
        with Server(certificate=other) as server, pytest.raises(FetchError, match="certificate is not valid"):
            get(server.put("/x.aci", b"x"), context=context)
    finally:
        other.close()


def test_old_tls_is_refused(certificate: Certificate) -> None:
    """A server that knows nothing newer than TLS 1.1 is not talked to, even when certificates are not checked."""
    assert make_tls_context(insecure=False).minimum_version == ssl.TLSVersion.TLSv1_2
    with (
        pytest.warns(DeprecationWarning, match="TLSv1_1"),
        Server(certificate=certificate, max_tls=ssl.TLSVersion.TLSv1_1) as server,
        pytest.raises(FetchError),
    ):
        get(server.put("/x.aci", b"x"), context=make_tls_context(insecure=True))


def test_neither_proxies_nor_netrc_are_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the caller and files in its home have no say."""
    home = tempfile.mkdtemp(prefix="rkt-test-")
    with open(f"{home}/.netrc", "w", encoding="ascii") as file:
        file.write("machine 127.0.0.1 login alice password secret\n")
    monkeypatch.setenv("HOME", home)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    try:
        assert get(server.put("/x.aci", b"x"))[0] == b"x"
        assert "Authorization" not in server.requests[0].headers
    finally:
        os.unlink(f"{home}/.netrc")
        os.rmdir(home)


def test_too_large_bodies_are_refused(server: Server) -> None:
    """A declared size over the limit is refused at once, an undeclared one when the limit is reached."""
    url = server.put("/x", Page(b"x" * 1000, repeat=1000))
    with pytest.raises(FetchError, match="too large: 1000000 bytes"):
        get(url, limit_bytes=999_999)
    server.put("/x", Page(b"x" * 1000, repeat=100_000, no_length=True))
    with pytest.raises(FetchError, match="too large: more than 500000 bytes"):
        get(url, limit_bytes=500_000)


def test_short_bodies_are_refused(server: Server) -> None:
    """A connection that closes before the declared size is an error, not a short image."""
    with pytest.raises(FetchError, match="ended early"):
        get(server.put("/x", Page(b"x" * 1000, truncate=400)))


def test_a_silent_server_is_given_up(server: Server) -> None:
    """Nothing for the idle time ends the transfer."""
    start = time.monotonic()
    with pytest.raises(FetchError, match="went silent"):
        get(server.put("/x", Page(b"x" * 1000, stall=400)))
    assert time.monotonic() - start < 40


def test_a_dripping_server_is_given_up(server: Server) -> None:
    """One byte now and then is too slow, although the connection is never idle for long."""
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"too slow|not done within"):
        get(server.put("/x", Page(b"x" * 1000, drip_seconds=0.05)))
    assert time.monotonic() - start < 40


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 500, 503, 202, 204, 206, 304])
def test_other_statuses_are_errors(server: Server, status: int) -> None:
    """Anything but 200 is an error that names the status."""
    with pytest.raises(FetchError, match=f"bad HTTP status code: {status}$"):
        get(server.put("/x", Page(b"", status=status)))


def test_deferral(server: Server) -> None:
    """202 is no error for who may come back later."""
    data, answer = get(server.put("/x", Page(b"later", status=202)), defer=True)
    assert (data, answer.deferred) == (b"", True)


def test_no_server_is_named(server: Server) -> None:
    """A refused connection is reported with URL and cause."""
    url = server.put("/x", b"")
    server.close()
    with pytest.raises(FetchError, match=r"cannot fetch .*/x.*[Rr]efused"):
        get(url)


def test_dripping_headers_are_given_up(server: Server) -> None:
    """A header that never ends is given up although each byte comes in time."""
    start = time.monotonic()
    with pytest.raises(FetchError, match="does not answer"):
        get(server.put("/x", Page(b"x", endless_header=True)))
    assert time.monotonic() - start < 40


def test_hanging_up_is_an_error(server: Server) -> None:
    """A connection closed without an answer is an error."""
    with pytest.raises(FetchError):
        get(server.put("/x", Page(hang_up=True)))


def test_a_thread_that_waits_for_a_header_is_noticed(server: Server) -> None:
    """RG8: signals do not reach threads, so the main thread asks who has waited too long for the header of an answer."""
    url = server.put("/endless", Page(endless_header=True))
    client = Client(make_tls_context(insecure=False), user_agent="rkt/test", limits=IMPATIENT)
    with tempfile.TemporaryFile() as file:

        def download() -> None:
            with contextlib.suppress(FetchError):
                client.download(url, file.fileno(), limit_bytes=100)

        client.check_waiting()
        thread = threading.Thread(target=download)
        thread.start()
        try:
            deadline = time.monotonic() + 20 * SLOWNESS
            noticed = ""
            while not noticed and time.monotonic() < deadline:
                try:
                    client.check_waiting()
                    time.sleep(0.01)
                except FetchError as e:
                    noticed = e.message
            assert "does not answer within" in noticed
        finally:
            server.close()
            thread.join()
    client.check_waiting()
