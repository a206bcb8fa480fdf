# SPDX-License-Identifier: Apache-2.0
"""Unpacking layers while they and others still arrive, into staging, where nobody sees them before they are whole.

::

    rkt-fetch ──> files ──> pump (root: reads, hashes) ──pipes──> rkt-unpack ──> staging

As ``fetch.ahead`` does for one file. A layer counts only if root's own hash of what went through its pipe is the digest
that the manifest has; when it is not, because a server sent something else first, all is unpacked again from the
finished files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading

from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.privsep.wire import foreign_count
from rkt.schema.record import Record
from rkt.store.oci import LayerBlob, unpack_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, Self

    from rkt.config.settings import Installation
    from rkt.store.oci import FilledLayer
    from rkt.store.staging import Staging
    from rkt.values import Digest

_PIPE_BYTES = 1 << 20
#: Small enough to stay in a processor's cache from hashing to writing.
_CHUNK_BYTES = 1 << 18
_POLL_SECONDS = 0.02


class ArrivingLayer(Record):
    """A layer on its way into a file.

    Attributes:
        fd: of the file, for reading.
        digest, size_bytes: of the blob, as the manifest has them.
        diff_id: of its tar, as the configuration has it.
    """

    fd: int
    digest: Digest
    size_bytes: int
    diff_id: Digest


class Arriving:
    """One attempt; ended on ``close`` or at the end of ``with``, before staging is removed."""

    def __init__(self, staging: Staging, layers: Sequence[ArrivingLayer], installation: Installation) -> None:
        """Start to wait for the layers, in their order."""
        self._layers = layers
        self._positions = [0] * len(layers)
        self._started = [False] * len(layers)
        self._complete = threading.Event()
        self._given_up = threading.Event()
        self._filled: list[FilledLayer] | None = None
        self._error: Exception | None = None
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in layers]
        for _, writer in pipes:
            with contextlib.suppress(OSError):
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        readers = [reader for reader, _ in pipes]
        self._threads = [
            threading.Thread(target=self._unpack, args=(staging, readers, installation), daemon=True),
            threading.Thread(target=self._pump, args=([writer for _, writer in pipes],), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def heard(self, event: dict[str, Any]) -> None:
        """Take what a source says while it works.

        Raises:
            RktError: what has come cannot be unpacked, so that it is not worth going on.
        """
        index, kept = foreign_count(event.get("index")), foreign_count(event.get("kept"))
        if event.get("kind") == "started" and index is not None and index < len(self._layers):
            if kept is None or kept < self._positions[index]:
                self._given_up.set()
            self._started[index] = True
        if self._error is not None and not self._given_up.is_set():
            raise self._error

    def result(self) -> list[FilledLayer] | None:
        """What was unpacked, once all is there; None when the files hold something else than what went by.

        Raises:
            RktError: the layers cannot be unpacked.
        """
        self._complete.set()
        self._join()
        if self._given_up.is_set():
            return None
        if self._error is not None:
            raise self._error
        return self._filled

    def close(self) -> None:
        """Give up what is not done."""
        if any(thread.is_alive() for thread in self._threads):
            self._given_up.set()
            self._complete.set()
        self._join()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _unpack(self, staging: Staging, readers: list[int], installation: Installation) -> None:
        blobs = [
            LayerBlob(fd=fd, digest=layer.digest.hex, diff_id=layer.diff_id.hex)
            for fd, layer in zip(readers, self._layers, strict=True)
        ]
        try:
            self._filled = unpack_layers(
                staging, blobs, installation, arriving_seconds=DEFAULT_TRANSFER_LIMITS.total_seconds
            )
        except Exception as e:  # noqa: BLE001 - the thread that waits raises it
            self._error = e
        finally:
            # Whoever still writes learns that nobody reads.
            for fd in readers:
                os.close(fd)

    def _pump(self, writers: list[int]) -> None:
        try:
            for index in range(len(writers)):
                self._pump_one(index, writers[index])
                os.close(writers[index])
                writers[index] = -1
        except BrokenPipeError:
            pass  # why nobody reads is known by whoever read
        except OSError as e:
            self._error = e
        finally:
            for fd in writers:
                if fd >= 0:
                    os.close(fd)

    def _pump_one(self, index: int, writer: int) -> None:
        layer = self._layers[index]
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        digest = hashlib.sha256()
        while self._positions[index] < layer.size_bytes:
            # What lies in the file before the transfer starts may be about to be thrown away.
            is_complete = self._complete.is_set()
            count = 0
            if is_complete or self._started[index]:
                left = layer.size_bytes - self._positions[index]
                count = os.preadv(layer.fd, [buffer[:left]], self._positions[index])
            if self._given_up.is_set() or (is_complete and not count):
                self._given_up.set()
                return
            if not count:
                self._complete.wait(_POLL_SECONDS)
                continue
            view = buffer[:count]
            digest.update(view)
            self._positions[index] += count
            while view:
                view = view[os.write(writer, view) :]
        if digest.hexdigest() != layer.digest.hex:
            self._given_up.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
