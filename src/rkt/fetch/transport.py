# SPDX-License-Identifier: Apache-2.0
"""HTTP and HTTPS downloads into a descriptor; runs in the unprivileged ``rkt-fetch`` worker.

``urllib3`` does connections and framing. Redirects, decoding, retries and credentials are ours: it follows nothing,
decodes nothing, repeats nothing, and reads neither proxies nor ``.netrc`` (invariant RG7). No request carries a header
that belongs to one host only, so none can leak to another by a redirect (RG2).
"""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import time
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    LocationParseError,
    ReadTimeoutError,
)
from urllib3.util import parse_url

from rkt.errors import FetchError
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3 import BaseHTTPResponse

    from rkt.fetch.limits import TransferLimits

    #: Given bytes so far, and the whole size or None.
    Progress = Callable[[int, int | None], None]

_CHUNK_BYTES = 1 << 18
_REDIRECTS = (301, 302, 303, 307, 308)
_ACCEPTED = 202
#: Where distributions keep the certificates when OpenSSL's own default is empty.
_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class Downloaded(Record):
    """What came.

    Attributes:
        size_bytes: number of bytes written.
        deferred: the server answered 202: ask again later; nothing was written.
        etag, cache_control: headers of the final answer, empty when absent.
    """

    size_bytes: int
    deferred: bool = False
    etag: str = ""
    cache_control: str = ""


def make_tls_context(*, insecure: bool) -> ssl.SSLContext:
    """TLS 1.2 or later by the system's certificates; ``insecure`` checks none of them, for this command only (RG3)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.set_default_verify_paths()
    if not context.get_ca_certs():
        for path in _CA_FILES:
            if os.path.exists(path):
                context.load_verify_locations(path)
                break
    return context


class Client:
    """Downloads of one command.

    Attributes:
        requests: called with each URL before it is asked for.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        user_agent: str,
        limits: TransferLimits = DEFAULT_TRANSFER_LIMITS,
        requests: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._limits = limits
        self._requests = requests
        self._deadline = time.monotonic() + limits.total_seconds
        if context.verify_mode == ssl.CERT_NONE:
            urllib3.disable_warnings()
        self._pool = urllib3.PoolManager(
            num_pools=4,
            ssl_context=context,
            # identity: what is hashed and verified are the bytes as they lie on the server.
            headers={"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
            timeout=urllib3.Timeout(connect=limits.connect_seconds, read=limits.idle_seconds),
            retries=False,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def download(
        self, url: str, fd: int, *, limit_bytes: int, defer: bool = False, progress: Progress | None = None
    ) -> Downloaded:
        """GET a URL into an empty file.

        Args:
            url: http or https.
            fd: written from its current offset.
            limit_bytes: a larger body is refused, at the first byte when the server says its size.
            defer: accept 202, which says that the server will have it later (spec cli §6.5).
            progress: called for each piece.
        Raises:
            FetchError: no answer, a wrong one, too much, too slow.
            OSError: the file cannot be written.
        """
        response = self._follow(url)
        try:
            if defer and response.status == _ACCEPTED:
                return Downloaded(size_bytes=0, deferred=True)
            if response.status != 200:
                raise FetchError(f'cannot fetch "{url}": bad HTTP status code: {response.status}')
            size = self._body(url, response, fd, limit_bytes, progress)
            return Downloaded(
                size_bytes=size,
                etag=response.headers.get("ETag", ""),
                cache_control=response.headers.get("Cache-Control", ""),
            )
        except HTTPError as e:
            raise FetchError(f'cannot fetch "{url}": {_reason(e)}') from e
        finally:
            # Not given back to the pool: a body that was not read to its end is nobody's connection any more.
            response.close()

    def _follow(self, url: str) -> BaseHTTPResponse:
        current = check_url(url)
        for _ in range(self._limits.redirects + 1):
            self._requests(current)
            self._check_deadline(url)
            try:
                with _alarm(self._limits.connect_seconds + self._limits.idle_seconds, current):
                    response = self._pool.request(
                        "GET", current, redirect=False, preload_content=False, decode_content=False
                    )
            except (HTTPError, ValueError) as e:
                raise FetchError(f'cannot fetch "{current}": {_reason(e)}') from e
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            try:
                target = check_url(urljoin(current, location))
            except ValueError as e:
                raise FetchError(f'"{current}" redirects to {location[:256]!r}, which is no URL') from e
            if current.startswith("https:") and not target.startswith("https:"):
                raise FetchError(f'"{current}" redirects from https to "{target}", which is refused')
            current = target
        raise FetchError(f'cannot fetch "{url}": too many redirects')

    def _body(
        self, url: str, response: BaseHTTPResponse, fd: int, limit_bytes: int, progress: Progress | None
    ) -> int:
        total = _content_length(response)
        if total is not None:
            if total > limit_bytes:
                raise FetchError(f'"{url}" is too large: {total} bytes, at most {limit_bytes} are accepted')
            _check_free_space(fd, total)
        size = window_bytes = 0
        window_start = time.monotonic()
        while data := response.read1(_CHUNK_BYTES, decode_content=False):
            size += len(data)
            if size > limit_bytes:
                raise FetchError(f'"{url}" is too large: more than {limit_bytes} bytes')
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if progress is not None:
                progress(size, total)
            self._check_deadline(url)
            window_bytes += len(data)
            elapsed = time.monotonic() - window_start
            if elapsed >= self._limits.slow_window_seconds:
                if window_bytes < elapsed * self._limits.slow_bytes_per_second:
                    raise FetchError(
                        f'cannot fetch "{url}": too slow, {window_bytes} bytes in {elapsed:.0f} s'
                    )
                window_start += elapsed
                window_bytes = 0
        return size

    def _check_deadline(self, url: str) -> None:
        if time.monotonic() > self._deadline:
            raise FetchError(
                f'cannot fetch "{url}": not done within {self._limits.total_seconds:.0f} seconds'
            )


def check_url(url: str) -> str:
    """A URL that may be asked for: http or https, a host, no credentials, nothing unprintable.

    Raises:
        FetchError: anything else.
    """
    if not url.isprintable() or not url.isascii() or " " in url:
        raise FetchError(f"URL {url!r} has characters that must be percent-encoded")
    try:
        parts = parse_url(url)
    except LocationParseError as e:
        raise FetchError(f"cannot parse URL {url!r}") from e
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise FetchError(f"URL {url!r} is neither http nor https")
    if parts.auth:
        raise FetchError(f"URL of host {parts.host} carries credentials, which everybody could read in ps(1)")
    return parts._replace(fragment=None).url


def parse_max_age(cache_control: str) -> int:
    """``max-age`` in seconds, 0 when the answer is not to be kept (spec cli §5.5)."""
    seconds = 0
    for part in cache_control.split(","):
        word = part.strip().lower()
        if word in {"no-store", "no-cache"}:
            seconds = 0
        elif word.startswith("max-age="):
            digits = word[len("max-age=") :]
            if (
                digits.isascii()
                and digits.isdigit()
                and len(digits) < 12
                and (digits == "0" or digits[0] != "0")
            ):
                seconds = int(digits)
    return seconds


def _content_length(response: BaseHTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _check_free_space(fd: int, size_bytes: int) -> None:
    status = os.fstatvfs(fd)
    free = status.f_bavail * status.f_frsize
    if size_bytes > free:
        raise FetchError(f"not enough space: {size_bytes} bytes are needed, {free} are free")


@contextlib.contextmanager
def _alarm(seconds: float, url: str) -> Iterator[None]:
    """Ends a request whose header does not arrive; time-outs of sockets begin anew with each byte."""

    def ring(_signal: int, _frame: object) -> None:
        raise FetchError(f'cannot fetch "{url}": the server does not answer within {seconds:.0f} seconds')

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _reason(error: Exception) -> str:
    """The innermost words, without the library's object names."""
    chain: list[BaseException] = [error]
    while (inner := _inner(chain[-1])) is not None and inner not in chain:
        chain.append(inner)
    for cause in reversed(chain):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or cause}"
        if isinstance(cause, ConnectTimeoutError):
            return "the server does not answer"
        if isinstance(cause, TimeoutError | ReadTimeoutError):
            return "the server went silent"
        if isinstance(cause, IncompleteRead):
            return f"the transfer ended early, {cause.expected} bytes are missing"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return str(chain[-1])


def _inner(error: BaseException) -> BaseException | None:
    """What caused an error: the library puts it in one of three places."""
    for inner in (getattr(error, "reason", None), error.__cause__, *error.args):
        if isinstance(inner, BaseException):
            return inner
    return None
