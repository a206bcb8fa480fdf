# SPDX-License-Identifier: Apache-2.0
"""Bounds on transfers (invariant RG8)."""

from __future__ import annotations

from rkt.schema.record import Record


class TransferLimits(Record):
    """Ceilings; reaching one ends the transfer.

    Attributes:
        image_bytes: size of an image as transferred.
        signature_bytes: size of a signature file.
        redirects: hops that are followed.
        connect_seconds: until a connection stands, TLS included.
        idle_seconds: without a single byte.
        slow_bytes_per_second: averaged over ``slow_window_seconds``; less is a stalled transfer.
        total_seconds: from the first connection to the last byte, signature and image together.
        attempts: how often in a row a transfer may fail in a way that may pass.
        retry_seconds: pause before the second attempt; doubled each time.
        retry_after_seconds: longest pause that a server may ask for; it is an error when it wants more.
        retry_progress_bytes: so many new bytes begin a new row of attempts.
    """

    image_bytes: int = 16 << 30
    signature_bytes: int = 1 << 20
    redirects: int = 10
    connect_seconds: float = 20.0
    idle_seconds: float = 60.0
    slow_bytes_per_second: int = 64
    slow_window_seconds: float = 120.0
    total_seconds: float = 6 * 3600.0
    attempts: int = 4
    retry_seconds: float = 0.5
    retry_after_seconds: float = 120.0
    retry_progress_bytes: int = 1 << 20


DEFAULT_TRANSFER_LIMITS = TransferLimits()
