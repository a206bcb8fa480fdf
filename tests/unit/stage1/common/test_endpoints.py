# SPDX-License-Identifier: Apache-2.0
"""Clients of an app's streams, without an app."""

from __future__ import annotations

import _socket
import itertools
from typing import TYPE_CHECKING

import pytest

from rkt.stage1.common.endpoints import STREAM_BYTES, TTY_BYTES, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: More than the kernel holds for a socket, and than may wait beyond that.
MUCH = 8 * STREAM_BYTES


class Pair:
    """A client and its other end."""

    def __init__(self, redraw: Callable[[], None] | None) -> None:
        ours, self.theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        ours.setblocking(False)
        self.theirs.setblocking(False)
        self.client = Client(ours, redraw)

    def read(self) -> bytes:
        """All that there is, until the other end has nothing more to send."""
        data = b""
        while True:
            try:
                more = self.theirs.recv(1 << 16)
            except BlockingIOError:
                if not self.client.pending:
                    return data
                self.client.flush()
                continue
            if not more:
                return data
            data += more


@pytest.fixture
def drawn() -> list[int]:
    """Gets an item for each time the app was asked to draw."""
    return []


@pytest.fixture
def stream() -> Iterator[Pair]:
    """A client of a stream."""
    pair = Pair(None)
    yield pair
    pair.theirs.close()
    pair.client.close()


@pytest.fixture
def terminal(drawn: list[int]) -> Iterator[Pair]:
    """A client of a terminal."""
    pair = Pair(lambda: drawn.append(1))
    yield pair
    pair.theirs.close()
    pair.client.close()


def test_a_reader_of_lines_misses_none_unawares(stream: Pair) -> None:
    """Who is too far behind on a stream is hung up on; up to there nothing is missing."""
    lines = [b"%d\n" % number for number in range(MUCH // 8)]
    for line in lines:
        stream.client.add(line)
    assert stream.client.is_closed
    assert not stream.client.pending
    data = stream.read()
    assert b"".join(lines).startswith(data)
    assert data


def test_a_terminal_misses_what_is_old(terminal: Pair, drawn: list[int]) -> None:
    """Of a terminal's output the latest is kept, from the beginning of a line on, and then the app is asked to draw once."""
    for number in range(MUCH // 8):
        terminal.client.add(b"%d\n" % number)
        assert len(terminal.client.pending) <= TTY_BYTES
    assert not drawn
    lines = terminal.read().split(b"\n")
    assert lines[-2:] == [b"%d" % (MUCH // 8 - 1), b""]
    numbers = [int(line) for line in lines[:-1]]
    gaps = [(a, b) for a, b in itertools.pairwise(numbers) if b != a + 1]
    assert gaps
    assert drawn == [1]


def test_who_keeps_up_misses_nothing(terminal: Pair, drawn: list[int]) -> None:
    """A client that reads gets every byte, and the app is never asked to draw."""
    data = b""
    for number in range(1000):
        terminal.client.add(b"%d\n" % number * 100)
        data += terminal.read()
    assert data == b"".join(b"%d\n" % number * 100 for number in range(1000))
    assert not drawn


def test_leaving_waits_for_what_is_due(stream: Pair) -> None:
    """A client that is to go gets what waits for it, and nothing that comes later."""
    stream.client.add(b"x" * (STREAM_BYTES // 2))
    stream.client.leave()
    stream.client.add(b"later")
    assert not stream.client.is_closed
    assert stream.read() == b"x" * (STREAM_BYTES // 2)
    assert stream.client.is_closed
