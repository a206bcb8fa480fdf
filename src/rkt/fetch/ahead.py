# SPDX-License-Identifier: Apache-2.0
"""Unpacking while the download still runs, into staging, where nobody sees it before there is a verdict.

::

    rkt-fetch ──> partial file ──> pump (root: reads, hashes) ──pipe──> rkt-unpack ──> staging

What comes of it counts only if the bytes that went through the pipe are those of the finished file: root hashes that
file again once ``rkt-fetch`` is gone, the verdict is about that file, and the two hashes must be the same. When they are
not, because a server began anew with another version, staging is emptied and the finished file unpacked as if there had
been no attempt. Waiting for the end of the download costs as good as nothing then; a slow server hides all of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading

from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.store import importer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rkt.config.settings import Installation
    from rkt.store.importer import Filled
    from rkt.store.staging import Staging

#: Smaller images are unpacked faster than it pays to start early.
MINIMUM_BYTES = 4 << 20
_PIPE_BYTES = 1 << 20
#: Small enough to stay in a processor's cache from hashing to writing.
_CHUNK_BYTES = 1 << 18
_POLL_SECONDS = 0.02


class UnpackAhead:
    """One attempt; ended on ``close`` or at the end of ``with``, before staging is removed."""

    def __init__(self, staging: Staging, blob_fd: int, installation: Installation) -> None:
        self._staging = staging
        self._blob_fd = blob_fd
        self._installation = installation
        self._threads: list[threading.Thread] = []
        self._complete = threading.Event()
        self._given_up = threading.Event()
        self._digest = hashlib.sha256()
        self._position = 0
        self._filled: Filled | None = None
        self._error: Exception | None = None

    def started(self, kept_bytes: int, total_bytes: int | None) -> None:
        """A body begins to arrive behind so many bytes; called for every attempt of the download."""
        if self._threads:
            if kept_bytes < self._position:
                self._given_up.set()
        elif total_bytes is None or total_bytes >= MINIMUM_BYTES:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            with contextlib.suppress(OSError):
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._threads = [
                threading.Thread(target=self._unpack, args=(reader,), daemon=True),
                threading.Thread(target=self._pump, args=(writer,), daemon=True),
            ]
            for thread in self._threads:
                thread.start()

    def check(self) -> None:
        """Called while the download runs, which is not worth going on with once its bytes cannot be unpacked.

        Raises:
            RktError: they cannot.
        """
        if self._error is not None and not self._given_up.is_set():
            raise self._error

    def result(self, blob_sha256: str) -> Filled | None:
        """What was unpacked, if it was what the file has now become; else None, and staging is as before.

        Args:
            blob_sha256: hex digest of the finished file.
        Raises:
            RktError: the very bytes of that file cannot be unpacked.
        """
        if not self._threads:
            return None
        self._complete.set()
        self._join()
        if self._digest.hexdigest() == blob_sha256:
            if self._error is not None:
                raise self._error
            assert self._filled is not None
            # Of what went into the pipe, by this process: not a word of the worker's.
            self._filled.blob_sha256 = blob_sha256
            return self._filled
        importer.empty(self._staging)
        return None

    def close(self) -> None:
        """Give up what is not done."""
        self._given_up.set()
        self._complete.set()
        self._join()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _unpack(self, reader: int) -> None:
        try:
            self._filled = importer.fill(
                self._staging,
                reader,
                self._installation,
                arriving_seconds=DEFAULT_TRANSFER_LIMITS.total_seconds,
            )
        except Exception as e:  # noqa: BLE001 - the thread that waits raises it
            self._error = e
        finally:
            # Whoever still writes learns that nobody reads.
            os.close(reader)

    def _pump(self, writer: int) -> None:
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        try:
            while not self._given_up.is_set():
                complete = self._complete.is_set()
                count = os.preadv(self._blob_fd, [buffer], self._position)
                if count:
                    view = buffer[:count]
                    self._digest.update(view)
                    self._position += count
                    while view:
                        view = view[os.write(writer, view) :]
                elif complete:
                    break
                else:
                    self._complete.wait(_POLL_SECONDS)
        except BrokenPipeError:
            self._hash_rest()
        except OSError as e:
            self._error = e
        finally:
            os.close(writer)

    def _hash_rest(self) -> None:
        """Unpacking failed: whether that is final depends on whether these were the bytes of the finished file."""
        self._complete.wait()
        while not self._given_up.is_set() and (data := os.pread(self._blob_fd, _CHUNK_BYTES, self._position)):
            self._digest.update(data)
            self._position += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
