# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

from rkt.stage1.common.streams import HIGH_WATER_BYTES, LONGEST_LINE_BYTES, Outlet, Prefixer, let_go


def test_each_line_gets_the_prefix_once() -> None:
    """Prefixes stand at line starts, however the bytes were cut."""
    prefixer = Prefixer(b"app: ")
    assert prefixer.mark(b"one\ntw") == b"app: one\n"
    assert prefixer.mark(b"") == b""
    assert prefixer.mark(b"o\n\n") == b"app: two\napp: \n"
    assert prefixer.rest() == b""


def test_lines_of_two_apps_are_not_glued() -> None:
    """A line that an app says in two pieces is one line, whoever speaks between; the end completes what was left."""
    read_end, write_end = os.pipe()
    outlet = Outlet(write_end)
    one, other = Prefixer(b"one: "), Prefixer(b"other: ")
    outlet.add(one.mark(b"first"))
    outlet.add(other.mark(b"whole\nleft"))
    outlet.add(one.mark(b" second\n"))
    source = os.open("/dev/null", os.O_RDONLY)
    outlets = {source: (b"stdout", other, outlet)}
    let_go(outlets, source)
    assert os.read(read_end, 4096) == b"other: whole\none: first second\nother: left\n"
    assert not outlets
    os.close(read_end)
    os.close(write_end)


def test_a_line_without_end_is_cut() -> None:
    """No app makes the supervisor keep more than a line of bounded length."""
    prefixer = Prefixer(b"app: ")
    assert prefixer.mark(b"x" * (LONGEST_LINE_BYTES + 1)) == b"app: %s\n" % (b"x" * LONGEST_LINE_BYTES)
    assert prefixer.rest() == b"app: x\n"


def test_without_a_prefix_bytes_pass_unchanged() -> None:
    """A single app's output is not touched."""
    assert Prefixer(b"").mark(b"\x1b[1m\xff\n") == b"\x1b[1m\xff\n"


def test_a_reader_that_does_not_read_never_blocks_us() -> None:
    """What the pipe does not take is kept, and asks the apps to wait; once read, all of it arrives in order."""
    read_end, write_end = os.pipe()
    outlet = Outlet(write_end)
    sent = b"".join(b"%07d\n" % i for i in range(HIGH_WATER_BYTES // 8 + 20_000))
    outlet.add(sent)
    assert outlet.is_full
    received = b""
    while outlet.pending:
        received += os.read(read_end, 65536)
        outlet.flush()
    os.close(write_end)
    while chunk := os.read(read_end, 65536):
        received += chunk
    os.close(read_end)
    assert received == sent


def test_a_reader_that_is_gone_is_forgotten() -> None:
    """A closed pipe ends the outlet, not the supervisor."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    outlet = Outlet(write_end)
    outlet.add(b"x\n")
    os.close(write_end)
    assert outlet.is_closed
    assert not outlet.pending
