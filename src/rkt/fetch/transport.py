# SPDX-License-Identifier: Apache-2.0
"""HTTP and HTTPS downloads into a descriptor; runs in the unprivileged ``rkt-fetch`` worker.

``urllib3`` does connections and framing. Redirects, decoding, retries, ranges and credentials are ours: it follows
nothing, decodes nothing, repeats nothing, and reads neither proxies nor ``.netrc`` (invariant RG7). A credential is sent
to exactly the origin it was given for, looked up anew for every hop (``fetch.access``), so none can leak to another by a
redirect (RG2).

A transfer that breaks is taken up again where it broke, a few times and ever more slowly, when what broke it may pass
by itself: a lost connection, silence, an overloaded server. It goes on by ``Range`` and ``If-Range`` (``fetch.resume``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import ssl
import threading
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    LocationParseError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.util import parse_url

from rkt.errors import FetchError, StoreError
from rkt.fetch.access import Access, load_system_roots, make_context
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.fetch.resume import ResumableFile, read_validators
from rkt.linux import disk
from rkt.schema.record import Record
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Protocol, TypeVar

    from urllib3 import BaseHTTPResponse

    from rkt.fetch.limits import TransferLimits

    #: Given bytes so far, and the whole size or None.
    Progress = Callable[[int, int | None], None]
    T = TypeVar("T")

    class Authorizer(Protocol):
        """Who knows the headers that one origin wants."""

        def headers(self) -> dict[str, str]:
            """To be sent now; none at first."""

        def renew(self, sent: Mapping[str, str], challenges: str, url: str) -> None:
            """Get others, after ``url`` refused those sent with this ``WWW-Authenticate``.

            Raises:
                FetchError: there are none.
            """


_CHUNK_BYTES = 1 << 18
#: Kept for further requests to the same server.
_CONNECTIONS = 4
_REDIRECTS = (301, 302, 303, 307, 308)
#: Methods whose redirects are followed.
_FOLLOWING = ("GET", "HEAD")
#: What OpenSSL, by its version, says of a server that answers in plain text.
NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
_PORTS = {"https": 443, "http": 80}
_OK = 200
_ACCEPTED = 202
_PARTIAL = 206
_NOT_MODIFIED = 304
_UNAUTHORIZED = 401
_RANGE_NOT_SATISFIABLE = 416
#: How often in a row credentials may be refused before that is the answer: none sent yet, and those sent out of date.
_MAX_REFUSALS = 2
#: Statuses of a server that may do better in a moment.
_PASSING = (429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)


class _PassingError(FetchError):
    """A transfer that may succeed when it is tried again."""

    def __init__(self, message: str, *, after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class Downloaded(Record):
    """What came.

    Attributes:
        size_bytes: size of the whole file.
        deferred: the server answered 202: ask again later; nothing was written.
        not_modified: the server still has the version that was asked about; nothing was written.
        etag, cache_control, last_modified: headers of the final answer, empty when absent.
        url: what was answered at last, after all redirects.
        kept_bytes: how many bytes were there before and did not have to come again.
    """

    size_bytes: int
    deferred: bool = False
    not_modified: bool = False
    etag: str = ""
    cache_control: str = ""
    last_modified: str = ""
    url: str = ""
    kept_bytes: int = 0

    @property
    def max_age(self) -> int:
        """Seconds for which the server wants not to be asked again."""
        return parse_max_age(self.cache_control)


def make_tls_context(*, insecure: bool) -> ssl.SSLContext:
    """TLS 1.2 or later by the system's certificates; ``insecure`` checks none of them, for this command only (RG3)."""
    context = make_context(insecure=insecure)
    if not insecure:
        load_system_roots(context)
    return context


class Answer(Record):
    """The whole of a small answer, whatever its status.

    Attributes:
        headers: compared without case.
        body: bounded.
        url: what was answered at last, after all redirects.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Client:
    """Downloads of one command; several threads may share it.

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
        access: dict[str, Any] | None = None,
    ) -> None:
        """``access`` is what ``fetch.job.describe_way`` made of the configuration."""
        self._limits = limits
        self.requests = requests
        self._deadline = time.monotonic() + limits.total_seconds
        # identity: what is hashed and verified are the bytes as they lie on the server.
        self._headers = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        # Threads that wait for the header of an answer: until when, and of what URL.
        self._waiting: dict[int, tuple[float, str]] = {}
        self._access = Access(
            access or {},
            context,
            num_pools=4,
            maxsize=_CONNECTIONS,
            timeout=urllib3.Timeout(connect=limits.connect_seconds, read=limits.idle_seconds),
            retries=False,
        )

    def close(self) -> None:
        """Close all connections."""
        self._access.close()

    def get(self, url: str, *, limit_bytes: int) -> bytes:
        """Content of a small page, tried once.

        Raises:
            FetchError: as ``download``.
        """
        response, _ = self._follow(url, {})
        try:
            if response.status != _OK:
                raise FetchError(f'cannot fetch "{url}": expected a 200 OK got {response.status}')
            kept = bytearray()
            for data in self._pieces(url, response, 0, limit_bytes):
                kept += data
            return bytes(kept)
        except (HTTPError, OSError) as e:
            raise FetchError(f'cannot fetch "{url}": {_reason(e)}') from e
        finally:
            response.close()

    def download(
        self,
        url: str,
        fd: int,
        *,
        limit_bytes: int,
        validators_fd: int = -1,
        known_etag: str = "",
        defer: bool = False,
        started: Progress | None = None,
        progress: Progress | None = None,
    ) -> Downloaded:
        """GET a URL into a file, going on with what is in it where that is right.

        Args:
            url: http or https.
            fd: regular file, empty or with what an earlier attempt left.
            limit_bytes: a larger body is refused, at the first byte when the server says its size.
            validators_fd: regular file that keeps for a later attempt what the bytes so far belong to.
            known_etag: of the version that is had already; when the server still has it, nothing is transferred.
            defer: accept 202, which says that the server will have it later (spec cli §6.5).
            started: called before each body, with the number of bytes that are kept.
            progress: called for each piece.
        Raises:
            FetchError: no answer, a wrong one, too much, too slow; what came so far is kept in the file.
            StoreError, OSError: the file cannot be written.
        """
        return self.download_file(
            url,
            ResumableFile(fd, validators_fd, url),
            limit_bytes=limit_bytes,
            known_etag=known_etag,
            defer=defer,
            started=started,
            progress=progress,
        )

    def download_file(
        self,
        url: str,
        file: ResumableFile,
        *,
        limit_bytes: int,
        known_etag: str = "",
        defer: bool = False,
        started: Progress | None = None,
        progress: Progress | None = None,
        authorizer: Authorizer | None = None,
    ) -> Downloaded:
        """``download`` into a file that knows by itself what its bytes so far belong to.

        The headers of ``authorizer`` go to the origin of ``url``, and it is asked for others when they are refused (401).
        """
        refusals = 0

        def attempt() -> Downloaded | None:
            nonlocal refusals
            sent = {} if authorizer is None else authorizer.headers()
            response, final_url = self._follow(url, _conditions(file, known_etag), own=sent)
            if response.status == _UNAUTHORIZED and authorizer is not None:
                challenges = response.headers.get("WWW-Authenticate", "")
                response.close()
                refusals += 1
                if refusals > _MAX_REFUSALS:
                    raise _bad_status(url, response)
                authorizer.renew(sent, challenges, final_url)
                return None
            refusals = 0
            return self._receive(
                url, file, response, final_url, limit_bytes, known_etag, defer, started, progress
            )

        return self._persist(attempt, lambda: file.size_bytes)

    def exchange(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        limit_bytes: int,
        authorizer: Authorizer | None = None,
        own: Mapping[str, str] | None = None,
        same_origin: bool = False,
        attempts: int = 0,
    ) -> Answer:
        """Ask, and read a small answer of any status but those of a server that may do better in a moment.

        Args:
            url: http or https.
            method: with another than ``GET`` and ``HEAD`` a redirect is an answer as any other.
            headers: for every hop.
            body: of the request.
            limit_bytes: a larger answer is refused.
            authorizer: as for ``download_file``.
            own: headers for the origin of ``url`` alone.
            same_origin: a redirect elsewhere is refused.
            attempts: other than the limits have it, when not 0.
        Raises:
            FetchError: no answer, too much, too slow.
        """
        refusals = 0

        def attempt() -> Answer | None:
            nonlocal refusals
            sent = {} if authorizer is None else authorizer.headers()
            response, final_url = self._follow(
                url,
                headers or {},
                own={**(own or {}), **sent},
                method=method,
                body=body,
                same_origin=same_origin,
            )
            try:
                if response.status in _PASSING:
                    raise _bad_status(url, response)
                if response.status == _UNAUTHORIZED and authorizer is not None and refusals < _MAX_REFUSALS:
                    refusals += 1
                    authorizer.renew(sent, response.headers.get("WWW-Authenticate", ""), final_url)
                    return None
                kept = bytearray()
                for data in self._pieces(url, response, 0, limit_bytes) if method != "HEAD" else ():
                    kept += data
                return Answer(
                    status=response.status, headers=response.headers, body=bytes(kept), url=final_url
                )
            except (HTTPError, TimeoutError, ConnectionError) as e:
                raise _failure(url, e) from e
            finally:
                response.close()

        return self._persist(attempt, lambda: 0, attempts=attempts)

    def check_waiting(self) -> None:
        """Called by the main thread now and then while others download.

        Raises:
            FetchError: one of them has waited too long for the header of an answer.
        """
        now = time.monotonic()
        for deadline, url in list(self._waiting.values()):
            if now > deadline:
                raise self._no_answer(url)

    def _persist(
        self, attempt: Callable[[], T | None], written: Callable[[], int], *, attempts: int = 0
    ) -> T:
        """Make an attempt until it has a result; None is made again at once, what may pass after a pause."""
        furthest = written()
        failures = 0
        while True:
            try:
                answer = attempt()
                if answer is not None:
                    return answer
            except _PassingError as e:
                # Only bytes that nobody has had before count as getting on; the time of all is bounded as well.
                size = written()
                if size >= furthest + self._limits.retry_progress_bytes:
                    failures = 0
                furthest = max(furthest, size)
                failures += 1
                pause = max(self._limits.retry_seconds * 2 ** (failures - 1), e.after_seconds)
                if (
                    failures >= (attempts or self._limits.attempts)
                    or e.after_seconds > self._limits.retry_after_seconds
                    or time.monotonic() + pause > self._deadline
                ):
                    raise FetchError(e.message, hint=e.hint) from e.__cause__
                time.sleep(pause)

    def _receive(
        self,
        url: str,
        file: ResumableFile,
        response: BaseHTTPResponse,
        final_url: str,
        limit_bytes: int,
        known_etag: str,
        defer: bool,
        started: Progress | None,
        progress: Progress | None,
    ) -> Downloaded | None:
        """An answer into the file; None when it has to be asked for again, from the beginning."""
        offset = file.offset()
        try:
            if defer and response.status == _ACCEPTED:
                return Downloaded(size_bytes=0, deferred=True)
            if response.status == _NOT_MODIFIED and known_etag:
                return _downloaded(response, final_url, 0, not_modified=True)
            if offset and response.status in {_PARTIAL, _RANGE_NOT_SATISFIABLE}:
                if response.status == _RANGE_NOT_SATISFIABLE or not _continues(response, file, offset):
                    file.restart(None)
                    return None
                file.go_on(offset)
            elif response.status == _OK:
                offset = 0
                file.restart(read_validators(response.headers, url, _content_length(response)))
            else:
                raise _bad_status(url, response)
            length = _content_length(response)
            total = None if length is None else offset + length
            known = file.validators
            if total is not None and known is not None and 0 <= known.size_bytes != total:
                raise FetchError(f'"{url}" has {total} bytes, {known.size_bytes} are expected')
            if total is not None and total <= limit_bytes:
                _check_free_space(file, total - offset)
            if started is not None:
                started(offset, total)
            for data in self._pieces(url, response, offset, limit_bytes):
                file.write(data)
                if progress is not None:
                    progress(file.size_bytes, total)
            if known is not None and 0 <= known.size_bytes != file.size_bytes:
                raise _PassingError(f'cannot fetch "{url}": the transfer ended early')
            return _downloaded(response, final_url, file.size_bytes, kept_bytes=offset)
        except (HTTPError, TimeoutError, ConnectionError) as e:
            raise _failure(url, e) from e
        finally:
            # Not given back to the pool: a body that was not read to its end is nobody's connection any more.
            response.close()

    def _follow(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        own: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
        same_origin: bool = False,
    ) -> tuple[BaseHTTPResponse, str]:
        """The answer and the URL that gave it; ``own`` are headers that no other origin gets."""
        current = check_url(url)
        home = origin(current)
        is_home = True
        for hop in range(self._limits.redirects + 1):
            # What a server redirects to may have a key in its query that is good for a while.
            shown = without_query(current) if hop else current
            self.requests(shown)
            self._check_deadline(url)
            # Nor does whoever was led elsewhere and back: who led there is not who was asked.
            is_home = is_home and origin(current) == home
            secret = {**self._access.headers(current, url), **(own or {})} if is_home else {}
            try:
                with self._header_deadline(shown):
                    response = self._access.pool(current).request(
                        method,
                        current,
                        body=body,
                        preload_content=False,
                        redirect=False,
                        headers={**self._headers, **headers, **secret},
                    )
            except (HTTPError, ValueError) as e:
                raise _failure(shown, e) from e
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location or method not in _FOLLOWING:
                return response, current
            response.close()
            target = follow(current, location)
            if current.startswith("https:") and not target.startswith("https:"):
                raise FetchError(
                    f'"{shown}" redirects from https to "{without_query(target)}", which is refused'
                )
            if same_origin and origin(target) != home:
                raise FetchError(
                    f'"{shown}" redirects to "{without_query(target)}" on another host, which is refused'
                )
            current = target
        raise FetchError(f'cannot fetch "{url}": too many redirects')

    @contextlib.contextmanager
    def _header_deadline(self, url: str) -> Iterator[None]:
        """Ends a request whose header does not arrive; time-outs of sockets begin anew with each byte.

        Signals reach the main thread only; of another one it has to ask, by ``check_waiting``.
        """
        seconds = self._limits.connect_seconds + self._limits.idle_seconds
        if threading.current_thread() is threading.main_thread():

            def ring(_signal: int, _frame: object) -> None:
                raise self._no_answer(url)

            before = signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            return
        thread = threading.get_ident()
        self._waiting[thread] = (time.monotonic() + seconds, url)
        try:
            yield
        finally:
            del self._waiting[thread]

    def _no_answer(self, url: str) -> FetchError:
        seconds = self._limits.connect_seconds + self._limits.idle_seconds
        return FetchError(f'cannot fetch "{url}": the server does not answer within {seconds:.0f} seconds')

    def _pieces(self, url: str, response: BaseHTTPResponse, offset: int, limit_bytes: int) -> Iterator[bytes]:
        """The body, with bounds on size and time."""
        length = _content_length(response)
        if length is not None and offset + length > limit_bytes:
            raise FetchError(
                f'"{url}" is too large: {offset + length} bytes, at most {limit_bytes} are accepted'
            )
        size = offset
        window_bytes = 0
        window_start = time.monotonic()
        while data := response.read1(_CHUNK_BYTES, decode_content=False):
            size += len(data)
            if size > limit_bytes:
                raise FetchError(f'"{url}" is too large: more than {limit_bytes} bytes')
            yield data
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

    def _check_deadline(self, url: str) -> None:
        if time.monotonic() > self._deadline:
            raise FetchError(
                f'cannot fetch "{url}": not done within {self._limits.total_seconds:.0f} seconds'
            )


def _downloaded(
    response: BaseHTTPResponse, url: str, size_bytes: int, *, not_modified: bool = False, kept_bytes: int = 0
) -> Downloaded:
    return Downloaded(
        size_bytes=size_bytes,
        not_modified=not_modified,
        etag=response.headers.get("ETag", ""),
        cache_control=response.headers.get("Cache-Control", ""),
        last_modified=response.headers.get("Last-Modified", ""),
        url=url,
        kept_bytes=kept_bytes,
    )


def _continues(response: BaseHTTPResponse, file: ResumableFile, offset: int) -> bool:
    """Whether an answer with status 206 is what was asked for: the rest of the same version, to the last byte."""
    known = file.validators
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if known is None or match is None:
        return False
    first, last = int(match[1]), int(match[2])
    total = last + 1 if match[3] == "*" else int(match[3])
    length = _content_length(response)
    return (
        first == offset
        and last + 1 == total
        and known.size_bytes in {-1, total}
        and length in {None, total - offset}
        and (not known.etag or response.headers.get("ETag", known.etag) == known.etag)
    )


def _bad_status(url: str, response: BaseHTTPResponse) -> FetchError:
    message = f'cannot fetch "{url}": bad HTTP status code: {response.status}'
    if response.status not in _PASSING:
        return FetchError(message)
    after = parse_retry_after(response.headers.get("Retry-After", ""), time.time())
    if not after:
        return _PassingError(message)
    return _PassingError(f"{message}, to be asked again in {after:.0f} s", after_seconds=after)


def parse_retry_after(text: str, now: float) -> float:
    """Seconds from ``now`` that a server wants to be left alone; 0 when it does not say."""
    if len(text) > 64 or not text.isascii():
        return 0.0
    if is_number(text, most_digits=64):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _conditions(file: ResumableFile, known_etag: str) -> dict[str, str]:
    """Headers that ask for what is not there yet."""
    headers = {"If-None-Match": known_etag} if known_etag else {}
    if offset := file.offset():
        assert file.validators is not None
        headers["Range"] = f"bytes={offset}-"
        if file.validators.if_range:
            headers["If-Range"] = file.validators.if_range
    return headers


def without_query(url: str) -> str:
    """A URL for people, without what only its server understands."""
    base, mark, _ = url.partition("?")
    return f"{base}?…" if mark else base


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL that ``check_url`` accepted."""
    parts = parse_url(url)
    scheme = parts.scheme or ""
    return scheme, (parts.host or "").lower(), parts.port or _PORTS.get(scheme, 0)


def _failure(url: str, error: Exception) -> FetchError:
    """The error for a request or a body that broke: passing, unless trying again could not help."""
    message = f'cannot fetch "{url}": {_reason(error)}'
    passing = (TimeoutError, ReadTimeoutError, ConnectTimeoutError, IncompleteRead, ProtocolError)
    chain = causes(error)
    # First: the library wraps them in errors that look passing.
    if any(isinstance(cause, ssl.SSLCertVerificationError | ConnectionRefusedError) for cause in chain):
        return FetchError(message)
    for cause in chain:
        if isinstance(cause, (*passing, ConnectionResetError, BrokenPipeError)):
            return _PassingError(message)
    return FetchError(message)


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


def follow(url: str, location: str) -> str:
    """Where a server leads to from a URL, in the form in which it may be asked for.

    Raises:
        FetchError: it is no URL, or one that ``check_url`` refuses.
    """
    try:
        return check_url(urljoin(url, location))
    except ValueError as e:
        raise FetchError(f'"{without_query(url)}" leads to {location[:256]!r}, which is no URL') from e


def parse_max_age(cache_control: str) -> int:
    """``max-age`` in seconds, 0 when the answer is not to be kept (spec cli §5.5)."""
    seconds = 0
    for part in cache_control.split(","):
        word = part.strip().lower()
        if word in {"no-store", "no-cache"}:
            seconds = 0
        elif word.startswith("max-age="):
            digits = word[len("max-age=") :]
            if is_number(digits, most_digits=11) and (digits == "0" or digits[0] != "0"):
                seconds = int(digits)
    return seconds


def _content_length(response: BaseHTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if is_number(text, most_digits=18) else None


def _check_free_space(file: ResumableFile, size_bytes: int) -> None:
    status = os.fstatvfs(file.fd)
    free = status.f_bavail * status.f_frsize
    # A file in memory has no file system that could be full.
    if status.f_blocks and size_bytes > free:
        raise StoreError(
            f"not enough space: {size_bytes} bytes are needed, {free} are free",
            hint=disk.remedy(errno.ENOSPC),
        )


def _reason(error: Exception) -> str:
    """The innermost words, without the library's object names."""
    chain = causes(error)
    for cause in reversed(chain):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and cause.reason in NOT_TLS:
            return "the server does not speak TLS"
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


def causes(error: BaseException) -> list[BaseException]:
    """An error and what caused it, the cause last."""
    chain = [error]
    while (inner := _inner(chain[-1])) is not None and inner not in chain:
        chain.append(inner)
    return chain


def _inner(error: BaseException) -> BaseException | None:
    """What caused an error: the library puts it in one of three places."""
    for inner in (getattr(error, "reason", None), error.__cause__, *error.args):
        if isinstance(inner, BaseException):
            return inner
    return None
