# SPDX-License-Identifier: Apache-2.0
"""Several images on their way at once: one process for each, and one loop that listens to them.

::

    command ── fork ──> one image: rkt-fetch, gpgv, rkt-unpack, commit     says what it does, then which image it became
       │   └── fork ──> another …
       └── asks for the images in its own order, shows what they say in that order, reports the first that failed

A process of its own gives each download its own user (``privsep.confine``), its own locks and a clean end: SIGTERM lets
it kill its workers, keep its partial file and remove its staging. This process has one thread whenever it forks, and
only waits; the children die with it. Whoever asks for the images neither sees nor causes their order of arrival, so
that messages, results and errors are those of one fetch after the other.

What has to be asked of people is asked by the image whose turn it is (``Reporter.turn``): it is never held back by the
number of processes, and holds no lock while it waits, so that none waits for another in a circle.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque

from rkt import errors
from rkt.errors import RktError
from rkt.fetch import fetch
from rkt.fetch.report import Reporter
from rkt.linux import libc
from rkt.privsep import wire
from rkt.store.member import open_store
from rkt.values import ImageKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType, TracebackType
    from typing import Any, NoReturn, Self, TypeAlias

    from rkt.config.settings import Settings
    from rkt.store.record import ImageRecord

    #: A reference as typed, and the file with its signature or None.
    Wanted: TypeAlias = tuple[str, str | None]

#: How many images are fetched at once; the one that is waited for may be one more.
MAX_AT_ONCE = 4
_END_SECONDS = 20.0
_ENDS = (signal.SIGINT, signal.SIGTERM)
_MAX_CAUSES = 32
_TYPES: dict[str, type[RktError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RktError)
}


class _Job:
    """One image: waiting, on its way, or done."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.pid = 0
        self.is_taken = False
        self.connection: socket.socket | None = None
        self.receiver: wire.Receiver | None = None
        self.held: list[dict[str, Any]] = []
        self.record: ImageRecord | None = None
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.record is not None or self.error is not None


class Crew:
    """The images of one command; on ``close``, or at the end of ``with``, those that nobody waits for are given up."""

    def __init__(
        self,
        settings: Settings,
        *,
        pull_policy: str,
        report: Reporter,
        foresee: Callable[[ImageRecord], Iterable[str]] = lambda _: (),
    ) -> None:
        """Nothing is started yet.

        Args:
            settings: of the running command.
            pull_policy: for every image.
            report: shows everything.
            foresee: which references will be asked for because of an image.
        """
        self._settings = settings
        self._pull_policy = pull_policy
        self._report = report
        self._foresee = foresee
        self._jobs: dict[Wanted, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._running: dict[int, _Job] = {}
        self._poll = select.poll()
        self._head: _Job | None = None
        self._is_asking = False

    def expect(self, reference: str, signature: str | None = None) -> None:
        """Say that an image will be asked for, so that it may be on its way when it is."""
        wanted = (reference, signature)
        if wanted not in self._jobs:
            self._jobs[wanted] = job = _Job(wanted)
            self._waiting.append(job)

    def is_expected(self, reference: str) -> bool:
        """Whether ``expect`` was told of a reference and ``fetch`` was not asked for it yet."""
        job = self._jobs.get((reference, None))
        return job is not None and not job.is_taken

    def fetch(self, reference: str, signature: str | None = None) -> ImageRecord:
        """What ``fetch_image`` returns or raises, once for each reference."""
        self.expect(reference, signature)
        job = self._jobs[reference, signature]
        job.is_taken = True
        if not job.is_done and not self._running and list(self._waiting) == [job]:
            # Nobody to share the machine with: no second process is needed.
            self._waiting.clear()
            self._finish(job, self._fetch_here(job))
        self._head = job
        self._show_held(job)
        if not job.is_done and job.connection is None:
            self._waiting.remove(job)
            self._start(job)
        while not job.is_done:
            self._start_waiting()
            self._listen()
        self._start_waiting()
        self._head = None
        if job.error is not None:
            raise job.error
        assert job.record is not None
        return job.record

    def foresee(self, image: ImageRecord) -> None:
        """Expect what will be asked for because of an image that was had before."""
        for reference in self._foresee(image):
            self.expect(reference)

    def close(self) -> None:
        """Give up what is not done."""
        self._waiting.clear()
        self._head = None
        self._report.end()
        for job in self._running.values():
            os.kill(job.pid, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while self._running:
            # Read to the end, so that nobody who cleans up waits for this process.
            if not self._listen(max(0.0, deadline - time.monotonic())):
                for job in self._running.values():
                    os.kill(job.pid, signal.SIGKILL)
                deadline += _END_SECONDS

    def _fetch_here(self, job: _Job) -> ImageRecord | BaseException:
        reference, signature = job.wanted
        try:
            return fetch.fetch_image(
                reference,
                self._settings,
                signature=signature,
                pull_policy=self._pull_policy,
                progress=self._report,
            )
        except RktError as e:
            return e

    def _start_waiting(self) -> None:
        if not self._running and len(self._waiting) == 1:
            return  # most likely the next to be asked for, by this process itself
        while self._waiting and len(self._running) < MAX_AT_ONCE:
            self._start(self._waiting.popleft())

    def _start(self, job: _Job) -> None:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        # Else an interrupt between fork and _work would unwind this process's stack in the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        try:
            job.pid = os.fork()
            if not job.pid:
                for other in self._running.values():
                    assert other.connection is not None
                    other.connection.close()
                ours.close()
                _work(theirs, parent, before, job.wanted, self._settings, self._pull_policy)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        job.connection, job.receiver = ours, wire.Receiver(ours)
        self._running[ours.fileno()] = job
        self._poll.register(ours, select.POLLIN)

    def _listen(self, seconds: float | None = None) -> bool:
        """Take what has come; False when nothing came in time."""
        ready = self._poll.poll(None if seconds is None else seconds * 1000)
        for fd, _ in ready:
            job = self._running[fd]
            assert job.receiver is not None
            try:
                more = job.receiver.fill()
            except ConnectionResetError:
                more = False
            if not more:
                self._ended(fd, job)
                continue
            while (message := job.receiver.take()) is not None:
                self._hear(job, message)
        return bool(ready)

    def _ended(self, fd: int, job: _Job) -> None:
        assert job.connection is not None
        self._poll.unregister(fd)
        del self._running[fd]
        job.connection.close()
        _, status = os.waitpid(job.pid, 0)
        if not job.is_done:
            self._finish(
                job, RktError(f"the fetch of {job.wanted[0]!r} ended without an answer (status {status})")
            )

    def _hear(self, job: _Job, message: dict[str, Any]) -> None:
        if "result" in message:
            key = ImageKey.parse(message["result"])
            try:
                self._finish(job, open_store(self._settings).get(key))
            except RktError as e:
                self._finish(job, e)
        elif "error" in message:
            self._finish(job, _rebuild(message["error"], debug=self._settings.debug))
        elif "progress" in message:
            if not self._is_asking:
                label, done, total, url = message["progress"]
                self._report.progress(label, done, total, url, of=job.wanted[0])
        elif "end" in message:
            self._report.end(of=job.wanted[0])
        elif job is self._head:
            self._show(job, message)
        else:
            job.held.append(message)

    def _finish(self, job: _Job, outcome: ImageRecord | BaseException) -> None:
        if isinstance(outcome, BaseException):
            job.error = outcome
        else:
            job.record = outcome
            self.foresee(outcome)

    def _show_held(self, job: _Job) -> None:
        for message in job.held:
            self._show(job, message)
        job.held.clear()

    def _show(self, job: _Job, message: dict[str, Any]) -> None:
        if "message" in message:
            text, source = message["message"]
            self._report.message(text, source=source)
        elif "turn" in message:
            self._is_asking = message["turn"]
            if self._is_asking:
                self._report.end()
                assert job.connection is not None
                with contextlib.suppress(OSError):
                    job.connection.sendall(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _work(
    connection: socket.socket,
    parent: int,
    signals: set[int],
    wanted: Wanted,
    settings: Settings,
    pull_policy: str,
) -> NoReturn:
    """The child's whole life; nothing of what the command goes on to do, or undoes, happens here."""
    status = 1
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            for number in _ENDS:
                signal.signal(number, _interrupt)
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            reference, signature = wanted
            try:
                record = fetch.fetch_image(
                    reference,
                    settings,
                    signature=signature,
                    pull_policy=pull_policy,
                    progress=_Relay(settings, connection),
                )
                answer: dict[str, Any] = {"result": str(record.key)}
            except Exception as e:  # noqa: BLE001 - the other process reports it
                answer = {"error": _describe(e)}
            wire.send(connection, answer)
            status = 0
    except (KeyboardInterrupt, OSError):
        pass  # given up, or nobody listens
    finally:
        os._exit(status)


def _interrupt(_: int, __: FrameType | None) -> None:
    """The first signal ends the fetch; what cleans up after it is not interrupted again."""
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


class _Relay(Reporter):
    """Tells the process that shows it."""

    def __init__(self, settings: Settings, connection: socket.socket) -> None:
        super().__init__(settings)
        self._connection = connection

    def message(self, text: str, *, source: str = "image") -> None:
        wire.send(self._connection, {"message": [text, source]})

    def progress(self, label: str, done: int, total: int | None, url: str = "", *, of: str = "") -> None:
        wire.send(self._connection, {"progress": [label, done, total, url]})

    def end(self, *, of: str | None = None) -> None:
        wire.send(self._connection, {"end": True})

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        wire.send(self._connection, {"turn": True})
        if not self._connection.recv(1):
            raise KeyboardInterrupt
        try:
            yield
        finally:
            wire.send(self._connection, {"turn": False})


def _describe(error: BaseException) -> list[dict[str, Any]]:
    """An error and what it comes from, outermost first, for ``_rebuild``."""
    chain: list[dict[str, Any]] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < _MAX_CAUSES:
        link: dict[str, Any] = {"notes": [str(note) for note in getattr(cause, "__notes__", ())]}
        if isinstance(cause, RktError):
            link |= {"code": cause.code, "message": cause.message, "hint": cause.hint}
        elif isinstance(cause, OSError) and cause.errno is not None:
            names = [None if n is None else os.fsdecode(n) for n in (cause.filename, cause.filename2)]
            link |= {"errno": cause.errno, "message": cause.strerror, "names": names}
        elif isinstance(cause, MemoryError):
            link |= {"code": "image", "message": "out of memory", "hint": ""}
        else:
            import traceback

            link["message"] = f"{type(cause).__name__}: {cause}"
            link["trace"] = "".join(traceback.format_tb(cause.__traceback__))
        chain.append(link)
        cause = cause.__cause__
    return chain


def _rebuild(chain: list[dict[str, Any]], *, debug: bool) -> BaseException:
    """The error that ``_describe`` was given; one that nobody foresaw becomes a ``RuntimeError`` that quotes it."""
    outer: BaseException | None = None
    for link in reversed(chain):
        error: BaseException
        if "code" in link:
            error = _TYPES.get(link["code"], RktError)(link["message"], hint=link["hint"])
        elif "errno" in link:
            first, second = link["names"]
            error = OSError(link["errno"], link["message"], first, None, second)
        else:
            error = RuntimeError(link["message"])
            if debug:
                error.add_note(link["trace"])
        for note in link["notes"]:
            error.add_note(note)
        error.__cause__ = outer
        outer = error
    assert outer is not None
    return outer
