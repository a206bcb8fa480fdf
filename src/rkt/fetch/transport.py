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
import signal
import ssl
import threading
import time

import urllib3
from urllib3.exceptions import HTTPError

from rkt.errors import FetchError, StoreError
from rkt.fetch.access import Access, load_system_roots, make_context
from rkt.fetch.answer import Answer, Downloaded, conditions, content_length, continues, downloaded
from rkt.fetch.failures import PASSING, PassingError, bad_status, failure, reason_of
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.fetch.resume import ResumableFile, read_validators
from rkt.fetch.urls import check_url, follow, origin, without_query
from rkt.linux import disk

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
_OK = 200
_ACCEPTED = 202
_PARTIAL = 206
_NOT_MODIFIED = 304
_UNAUTHORIZED = 401
_RANGE_NOT_SATISFIABLE = 416
#: How often in a row credentials may be refused before that is the answer: none sent yet, and those sent out of date.
_MAX_REFUSALS = 2


def make_tls_context(*, insecure: bool) -> ssl.SSLContext:
    """TLS 1.2 or later by the system's certificates; ``insecure`` checks none of them, for this command only (RG3)."""
    context = make_context(insecure=insecure)
    if not insecure:
        load_system_roots(context)
    return context


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
            raise FetchError(f'cannot fetch "{url}": {reason_of(e)}') from e
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
            response, final_url = self._follow(url, conditions(file, known_etag), own=sent)
            if response.status == _UNAUTHORIZED and authorizer is not None:
                challenges = response.headers.get("WWW-Authenticate", "")
                response.close()
                refusals += 1
                if refusals > _MAX_REFUSALS:
                    raise bad_status(url, response)
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
                if response.status in PASSING:
                    raise bad_status(url, response)
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
                raise failure(url, e) from e
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
            except PassingError as e:
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
                return downloaded(response, final_url, 0, not_modified=True)
            if offset and response.status in {_PARTIAL, _RANGE_NOT_SATISFIABLE}:
                if response.status == _RANGE_NOT_SATISFIABLE or not continues(response, file, offset):
                    file.restart(None)
                    return None
                file.go_on(offset)
            elif response.status == _OK:
                offset = 0
                file.restart(read_validators(response.headers, url, content_length(response)))
            else:
                raise bad_status(url, response)
            length = content_length(response)
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
                raise PassingError(f'cannot fetch "{url}": the transfer ended early')
            return downloaded(response, final_url, file.size_bytes, kept_bytes=offset)
        except (HTTPError, TimeoutError, ConnectionError) as e:
            raise failure(url, e) from e
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
                raise failure(shown, e) from e
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
        length = content_length(response)
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


def _check_free_space(file: ResumableFile, size_bytes: int) -> None:
    status = os.fstatvfs(file.fd)
    free = status.f_bavail * status.f_frsize
    # A file in memory has no file system that could be full.
    if status.f_blocks and size_bytes > free:
        raise StoreError(
            f"not enough space: {size_bytes} bytes are needed, {free} are free",
            hint=disk.remedy(errno.ENOSPC),
        )
