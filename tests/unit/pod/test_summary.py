# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import pytest

from rkt.pod.summary import FILE, AppSummary, Summary, parse, parse_rows, read, render, write

KEY = "sha512-" + "0" * 64


@pytest.mark.parametrize("text", ["1.0", "a\tb", "a\nb", "100%", "%09", "%250A", "\r", "a\0b", "ü", ""])
def test_every_version_label_survives(text: str) -> None:
    """What an image says of itself cannot break the lines and fields of the summary."""
    summary = Summary(
        created_ns=5,
        name="web",
        insecure="image,paths",
        networks=True,
        apps=[
            AppSummary(name="a", image=f"example.com/a:{text}", image_id=KEY),
            AppSummary(name="b", image="--", image_id=""),
        ],
    )
    data = render(summary)
    assert data.count(b"\n") == 3
    assert parse(data) == summary


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rkt.summary",
        b"rkt.summary\t2\t5\t\t\t\n",
        b"rkt.summary\t1\t5\t\t\t",
        b"rkt.summary\t1\tx\t\t\t\n",
        b"rkt.summary\t1\t5\t\t\n",
        b"rkt.summary\t1\t5\t\t\t\na\tb\n",
        b"rkt.summary\t1\t5\t\t\t\n\n",
        b"rkt.summary\t1\t\xff\t\t\t\n",
    ],
)
def test_anything_else_is_no_summary(data: bytes) -> None:
    """A damaged summary, or one of another version, is as good as none."""
    assert parse_rows(data) is None
    assert parse(data) is None


@pytest.mark.parametrize("apps", [0, 1, 3, 100])
def test_written_and_replaced(tmp_path: object, apps: int) -> None:
    """A summary of any length is read as it was written, and replaced by one of any other length."""
    fd = os.open(f"{tmp_path}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert read(fd) is None
        for count in (apps, 100, apps, 1):
            summary = Summary(
                created_ns=count,
                apps=[AppSummary(name=f"a{i}", image="example.com/ü:1", image_id=KEY) for i in range(count)],
            )
            write(fd, summary)
            assert read(fd) == summary
            assert os.listdir(fd) == [FILE]
    finally:
        os.close(fd)
